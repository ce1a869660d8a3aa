// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// kept are files that give the kernel addresses of what never moves: memory of mmap,
// and what they keep on the heap.
var kept = []string{"integration/thieves/thief/xsk.go", "integration/thieves/thief/uring.go"}

// A pointer that the kernel gets as a number in a struct does not follow its stack
// when that is moved. Go allows uintptr(unsafe.Pointer(p)) as the argument of a system
// call, and nowhere else: no number is made of one.
func TestNoPointerIsANumber(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (d.Name()[0] == '.' || d.Name() == "bin") {
			return fs.SkipDir
		}
		rel, _ := filepath.Rel(root, path)
		if !strings.HasSuffix(path, ".go") || slices.Contains(kept, rel) {
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		seen++
		ast.Inspect(f, func(n ast.Node) bool {
			if outer, ok := n.(*ast.CallExpr); ok && len(outer.Args) == 1 && isNamed(outer.Fun, "uint64", "int64", "uint32", "uint") && isAddress(outer.Args[0]) {
				t.Errorf("%s:%d: a pointer as a number: give the field the type unsafe.Pointer", rel, set.Position(n.Pos()).Line)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 100 {
		t.Errorf("only %d files were looked at", seen)
	}
}

// isAddress recognises uintptr(unsafe.Pointer(…)).
func isAddress(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok || len(call.Args) != 1 || !isNamed(call.Fun, "uintptr") {
		return false
	}
	inner, ok := call.Args[0].(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := inner.Fun.(*ast.SelectorExpr)
	return ok && isNamed(sel.X, "unsafe") && sel.Sel.Name == "Pointer"
}

func isNamed(e ast.Expr, names ...string) bool {
	id, ok := e.(*ast.Ident)
	return ok && slices.Contains(names, id.Name)
}
