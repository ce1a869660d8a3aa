// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/linkpin/linkpin"

// goPackage is what `go list -json` says of a package.
type goPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string // of non-test files
	Deps       []string // all, recursively
}

// layers are the parts of the module from top to bottom. A package may import its
// own part and the parts that stand with it; see docs/ARCHITECTURE.md.
var layers = map[string][]string{
	"cmd/linkpin":      {"hook", "hook/install", "cni", "cni/install", "bpf", "specs"},
	"cmd/linkpin-hook": {"hook", "bpf", "specs"},
	"cmd/linkpin-cni":  {"cni", "bpf", "specs"},
	"cmd/linkpin-nri":  {"hook/nri", "specs"},
	"hook/install":     {"specs"},
	"hook/nri":         {"specs"},
	"hook/containerd":  {"specs"}, // for programs of others: it must not bring our loader along
	"cni/install":      {"specs"},
	"hook":             {"bpf", "specs"},
	"cni":              {"bpf", "specs"},
	"bpf":              {"specs"},
	"specs":            {},
}

// outside are packages that no layer rule is for: they are never part of a binary.
var outside = []string{"integration", "hack", "bpf/bpftest"}

// startUp are imports that cost start-up time in every container's way, with what
// would be wrong about them.
var startUp = map[string]string{
	"github.com/containerd":           "talks to a runtime's daemon",
	"google.golang.org/grpc":          "talks to a runtime's daemon",
	"github.com/spf13/cobra":          "command line framework",
	"github.com/spf13/pflag":          "command line framework",
	"go.yaml.in/yaml":                 "the applied set is JSON",
	"gopkg.in/yaml":                   "the applied set is JSON",
	"sigs.k8s.io/yaml":                "the applied set is JSON",
	"net/http":                        "large, and initialises much",
	"text/template":                   "keeps the linker from dropping unused methods",
	"html/template":                   "keeps the linker from dropping unused methods",
	"github.com/prometheus":           "metrics are the command's",
	"github.com/santhosh-tekuri":      "schemas are for tests",
	"github.com/google/jsonschema-go": "schemas are for tests",
	module + "/bpf/value":             "values are encoded when policies are applied",
	module + "/bpf/prepare":           "objects are prepared when policies are applied",
	module + "/specs/policy":          "policies are parsed when they are applied",
}

// TestLayers enforces cmd → {hook, cni} → bpf → specs over direct imports, which
// by induction covers all of them.
func TestLayers(t *testing.T) {
	packages := goList(t, "./...")
	for _, bad := range checkLayers(packages) {
		t.Error(bad)
	}
	if len(packages) < 5 {
		t.Errorf("only %d packages were checked", len(packages))
	}
}

// TestLayersFails shows that the check finds each kind of wrong import.
func TestLayersFails(t *testing.T) {
	for from, to := range map[string]string{
		"hook":             "cni",
		"cni":              "hook",
		"bpf/pin":          "hook",
		"specs":            "bpf/pin",
		"specs/applied":    "bpf/target",
		"hook/install":     "bpf/pin",
		"cni/install":      "bpf/entry",
		"hook/containerd":  "bpf/pin",
		"hook/anything":    "hook/containerd",
		"cmd/linkpin-hook": "cni",
		"cmd/linkpin-cni":  "hook",
		"bpf/entry":        "bpf/bpftest",
		"bpf/load":         "cmd/linkpin",
		"newlayer":         "specs",
	} {
		p := goPackage{ImportPath: module + "/" + from, Imports: []string{"fmt", module + "/" + to}}
		if len(checkLayers([]goPackage{p})) != 1 {
			t.Errorf("%s may import %s", from, to)
		}
	}
	fine := goPackage{ImportPath: module + "/hook", Imports: []string{"fmt", module + "/bpf/entry", module + "/specs/fault"}}
	if bad := checkLayers([]goPackage{fine}); bad != nil {
		t.Errorf("hook may not import bpf and specs: %v", bad)
	}
}

func checkLayers(packages []goPackage) []string {
	var bad []string
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		if under(name, outside...) {
			continue
		}
		layer, ok := layerOf(name)
		if !ok {
			bad = append(bad, p.ImportPath+" is in no layer; add it to layers or move it")
			continue
		}
		for _, imported := range p.Imports {
			to, ours := strings.CutPrefix(imported, module+"/")
			if !ours {
				continue
			}
			toLayer, _ := layerOf(to)
			// hook and hook/install stand side by side, and so do the two of cni.
			if toLayer != layer && !slices.Contains(layers[layer], toLayer) || under(to, outside...) {
				bad = append(bad, fmt.Sprintf("%s imports %s: %s may import only %q", name, to, layer, append([]string{layer}, layers[layer]...)))
			}
		}
	}
	return bad
}

// layerOf returns the most specific layer that a package belongs to.
func layerOf(name string) (string, bool) {
	best := ""
	for layer := range layers {
		if under(name, layer) && len(layer) > len(best) {
			best = layer
		}
	}
	return best, best != ""
}

// under reports whether a path is one of the parents or below one.
func under(name string, parents ...string) bool {
	return slices.ContainsFunc(parents, func(parent string) bool {
		return name == parent || strings.HasPrefix(name, parent+"/")
	})
}

// TestStartUpDependencies keeps slow packages out of the binaries that every
// container start waits for, and prints how many packages and modules each binary
// is made of.
func TestStartUpDependencies(t *testing.T) {
	for _, binary := range []string{"linkpin-hook", "linkpin-cni"} {
		p := goList(t, "./cmd/"+binary)[0]
		for _, bad := range checkStartUp(p.Deps) {
			t.Errorf("%s: %s", binary, bad)
		}
	}
	for _, binary := range []string{"linkpin", "linkpin-hook", "linkpin-cni"} {
		out := goCommand(t, "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}} {{if .Module}}{{.Module.Path}}{{end}}{{else}}std{{end}}", "./cmd/"+binary)
		standard, others, modules := 0, 0, map[string]bool{}
		for line := range strings.Lines(string(out)) {
			fields := strings.Fields(line)
			switch {
			case fields[0] == "std":
				standard++
			case len(fields) > 1 && fields[1] != module:
				others++
				modules[fields[1]] = true
			}
		}
		t.Logf("%s depends on %d packages of %d other modules and %d of the standard library", binary, others, len(modules), standard)
	}
}

// TestStartUpDependenciesFails shows that the check finds what it is for.
func TestStartUpDependenciesFails(t *testing.T) {
	for path := range startUp {
		if len(checkStartUp([]string{"fmt", path, "net"})) != 1 || len(checkStartUp([]string{path + "/v3"})) != 1 {
			t.Errorf("%s goes unnoticed", path)
		}
	}
	if bad := checkStartUp([]string{"fmt", "net", "net/netip", module + "/specs", "github.com/containernetworking/cni/pkg/skel"}); bad != nil {
		t.Errorf("refused: %v", bad)
	}
}

func checkStartUp(deps []string) []string {
	var bad []string
	for _, dep := range deps {
		for path, reason := range startUp {
			if under(dep, path) {
				bad = append(bad, fmt.Sprintf("depends on %s (%s)", dep, reason))
			}
		}
	}
	return bad
}

// bpffsMayName are the packages that may say where bpffs is mounted.
var bpffsMayName = []string{
	"bpf/pin",     // builds all paths below it
	"bpf/bpftest", // mounts private ones
	"integration", // stands outside and looks in
	"hack",        // the same
}

// TestOnlyPinBuildsPaths keeps knowledge of bpffs paths in one package: no other
// one has a string literal with the mount point or with names of the tree.
func TestOnlyPinBuildsPaths(t *testing.T) {
	files := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(filepath.ToSlash(path), "../")
		switch {
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != ".." || d.Name() == "bin" || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir(), !strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go"):
			return nil
		case under(rel, bpffsMayName...), strings.Contains(rel, "doctor"):
			return nil
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, literal := range bpffsLiterals(file) {
			t.Errorf("%s: string literal %q: paths in bpffs are built in bpf/pin only", rel, literal)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Error("no file was checked")
	}
}

// TestOnlyPinBuildsPathsFails shows that the check finds literals, not comments.
func TestOnlyPinBuildsPathsFails(t *testing.T) {
	const source = "package p\n// like /sys/fs/bpf/linkpin\nvar a, b, c = \"/sys/fs/bpf\", `/sys/fs/bpf/linkpin/v1`, \"linkpin/v1/containers\"\n"
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if got := bpffsLiterals(file); len(got) != 3 {
		t.Errorf("found %q, want three literals", got)
	}
}

func bpffsLiterals(file *ast.File) []string {
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		literal, ok := n.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return true
		}
		text, err := strconv.Unquote(literal.Value)
		// Messages that tell an administrator what to mount are sentences, not paths.
		if err == nil && !strings.Contains(text, " ") && (strings.Contains(text, "/sys/fs/bpf") || strings.Contains(text, "linkpin/v1/")) {
			found = append(found, text)
		}
		return true
	})
	return found
}

// goList returns packages of this module.
func goList(t *testing.T, pattern string) []goPackage {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(string(goCommand(t, "list", "-json=ImportPath,Standard,Imports,Deps", pattern))))
	var packages []goPackage
	for {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func goCommand(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = ".."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}
