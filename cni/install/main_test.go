// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

const bridge = `{
  "cniVersion": "1.0.0",
  "name": "net",
  "plugins": [
    {"type": "bridge"},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`

const ours = `{"type": "linkpin-cni", "capabilities": {"io.kubernetes.cri.pod-annotations": true, "cgroupPath": true}}`

var withOurs = strings.Replace(bridge, "true}}\n", "true}},\n    "+ours+"\n", 1)

// hostWith returns a host that has these files: network configurations, unless the
// name is a path.
func hostWith(t testing.TB, files map[string]string) change.Host {
	t.Helper()
	h := change.Host{Dir: t.TempDir()}
	for name, text := range files {
		put(t, h, name, text)
	}
	return h
}

func at(h change.Host, name string) string {
	if !strings.HasPrefix(name, "/") {
		name = filepath.Join(DefaultDir, name)
	}
	return filepath.Join(h.Dir, name)
}

func put(t testing.TB, h change.Host, name, text string) {
	t.Helper()
	mode := os.FileMode(0o644)
	if strings.Contains(name, "bin/") || strings.Contains(name, "/cni/") && strings.Contains(name, "/lib") {
		mode = 0o755
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(at(h, name)), 0o755), os.WriteFile(at(h, name), []byte(text), mode)); err != nil {
		t.Fatal(err)
	}
}

// configs returns all files of the host's network directory.
func configs(t testing.TB, h change.Host) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(at(h, "."))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		data, err := os.ReadFile(at(h, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(data)
	}
	return out
}

func install(t testing.TB, c *CNI, h change.Host) *change.Plan {
	t.Helper()
	return apply(t, h)(c.Install(h))
}

func uninstall(t testing.TB, c *CNI, h change.Host) *change.Plan {
	t.Helper()
	return apply(t, h)(c.Uninstall(h))
}

func apply(t testing.TB, h change.Host) func(*change.Plan, error) *change.Plan {
	return func(p *change.Plan, err error) *change.Plan {
		t.Helper()
		if err == nil {
			err = p.Apply(h)
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

// sameFiles compares the directory with what it should hold.
func sameFiles(t testing.TB, h change.Host, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, configs(t, h)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// nothingLeft says that a second plan has nothing to do.
func nothingLeft(t testing.TB, plan func(change.Host) (*change.Plan, error), h change.Host) {
	t.Helper()
	p, err := plan(h)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Empty() || len(p.Notes) > 0 {
		t.Errorf("the second time plans %s", p.Diff())
	}
}

// refused expects an error for users that has all parts, and that nothing was done.
func refused(t testing.TB, h change.Host, before map[string]string, err error, parts ...string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatalf("error %v, want a *fault.Error", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if f.Remedy == "" {
		t.Errorf("error %q has no remedy", err)
	}
	sameFiles(t, h, before)
}

// lines shows findings as "level file: detail".
func lines(c *CNI, h change.Host) []string {
	var out []string
	for _, f := range c.Check(h) {
		out = append(out, string(f.Level)+" "+filepath.Base(f.What)+": "+f.Detail)
		if (f.Level == change.OK) != (f.Remedy == "") {
			out = append(out, "with remedy "+f.Remedy)
		}
	}
	return out
}

func with(files map[string]string, more map[string]string) map[string]string {
	out := maps.Clone(files)
	maps.Copy(out, more)
	return out
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
