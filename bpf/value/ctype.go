// SPDX-License-Identifier: Apache-2.0

package value

import (
	"fmt"

	"github.com/cilium/ebpf/btf"
)

// TypeName returns t as C writes it in a cast: "const __u32", "char[16]",
// "struct rule *", "struct {…}" for one without a tag.
func TypeName(t btf.Type) string {
	before, after := cParts(t, 0)
	return before + after
}

// cParts returns what stands before and after the declared name.
func cParts(t btf.Type, depth int) (before, after string) {
	if depth > 16 {
		return "…", ""
	}
	switch t := t.(type) {
	case nil:
		return "no type", ""
	case *btf.Void:
		return "void", ""
	case *btf.Struct:
		return "struct " + tag(t.Name), ""
	case *btf.Union:
		return "union " + tag(t.Name), ""
	case *btf.Enum:
		return "enum " + tag(t.Name), ""
	case *btf.Fwd:
		return t.Kind.String() + " " + tag(t.Name), ""
	case *btf.Const:
		return qualified("const", t.Type, depth)
	case *btf.Volatile:
		return qualified("volatile", t.Type, depth)
	case *btf.Restrict:
		return qualified("restrict", t.Type, depth)
	case *btf.TypeTag:
		return cParts(t.Type, depth+1)
	case *btf.Array:
		b, a := cParts(t.Type, depth+1)
		return b, fmt.Sprintf("[%d]", t.Nelems) + a
	case *btf.Pointer:
		return pointer(t, depth)
	case *btf.FuncProto:
		b, a := cParts(t.Return, depth+1)
		return b + a, "(…)"
	case *btf.Func:
		return "function " + t.Name, ""
	case *btf.Var:
		return cParts(t.Type, depth+1)
	case *btf.Datasec:
		return "section " + t.Name, ""
	default:
		if name := t.TypeName(); name != "" {
			return name, ""
		}
		return "a type without a name", ""
	}
}

func tag(name string) string {
	if name == "" {
		return "{…}"
	}
	return name
}

func qualified(word string, t btf.Type, depth int) (before, after string) {
	b, a := cParts(t, depth+1)
	if _, ok := t.(*btf.Pointer); ok {
		return b + " " + word, a // const of the pointer, not of what it points to
	}
	return word + " " + b, a
}

func pointer(t *btf.Pointer, depth int) (before, after string) {
	b, a := cParts(t.Target, depth+1)
	switch underlying(t.Target).(type) {
	case *btf.Array, *btf.FuncProto:
		if a != "" {
			return b + " (*", ")" + a
		}
	}
	if b != "" && b[len(b)-1] == '*' {
		return b + "*", a
	}
	return b + " *", a
}
