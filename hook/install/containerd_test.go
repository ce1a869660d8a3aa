// SPDX-License-Identifier: Apache-2.0

package install_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/linkpin/linkpin/hook/install"
	"github.com/linkpin/linkpin/specs/change"
)

var containerdUpdate = flag.Bool("containerd.update", false, "write the expected files of testdata/containerd")

// containerdSpec is short for what `ctr oci spec` prints.
const containerdSpec = `{"ociVersion": "1.1.0", "process": {"cwd": "/", "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
 "apparmorProfile": "x"}, "linux": {"cgroupsPath": "/default", "seccomp": {}}, "mounts": []}`

const containerdHook = "/usr/libexec/linkpin/linkpin-hook"

// containerdRoot writes files below a new root; a name's path is that on the host.
func containerdRoot(t *testing.T, files map[string]string) change.Host {
	t.Helper()
	h := change.Host{Dir: t.TempDir()}
	if _, ok := files["/etc"]; !ok {
		if err := os.MkdirAll(filepath.Join(h.Dir, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range files {
		containerdPut(t, h, name, data)
	}
	return h
}

func containerdPut(t *testing.T, h change.Host, name, data string) {
	t.Helper()
	p := filepath.Join(h.Dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	mode := fs.FileMode(0o644)
	if strings.HasPrefix(data, "#!") {
		mode = 0o755
	}
	if err := os.WriteFile(p, []byte(data), mode); err != nil {
		t.Fatal(err)
	}
}

// containerdFiles returns all files of a root, and its directories with a slash at
// the end.
func containerdFiles(t *testing.T, h change.Host) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(h.Dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == h.Dir {
			return err
		}
		name := strings.TrimPrefix(p, h.Dir)
		if d.IsDir() {
			out[name+"/"] = ""
			return nil
		}
		data, err := os.ReadFile(p)
		out[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func containerdApply(t *testing.T, h change.Host, plan *change.Plan, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.Apply(h); err != nil {
		t.Fatal(err)
	}
}

func containerdEmpty(t *testing.T, plan *change.Plan, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if !plan.Empty() {
		t.Errorf("planned:\n%s", plan.Diff())
	}
}

// containerdCase returns the target that the comment of an archive describes, and its
// files below "in" and "out".
func containerdCase(t *testing.T, a *txtar.Archive) (c install.Containerd, in, out map[string]string) {
	t.Helper()
	c = install.Containerd{Hook: containerdHook, Spec: []byte(containerdSpec)}
	for line := range strings.Lines(string(a.Comment)) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), ": "); key {
		case "containerd":
			c.Version = value
		case "handler":
			c.Handler = value
		case "annotations":
			c.Annotations = strings.Fields(value)
		}
	}
	in, out = map[string]string{}, map[string]string{}
	for _, f := range a.Files {
		if name, ok := strings.CutPrefix(f.Name, "in/"); ok {
			in["/"+name] = string(f.Data)
		}
		if name, ok := strings.CutPrefix(f.Name, "out/"); ok {
			out["/"+name] = string(f.Data)
		}
	}
	return c, in, out
}

// Each archive: the files before, and those after that differ. Besides: a second
// install plans nothing, and uninstall brings back every byte and no more files.
func TestContainerdGolden(t *testing.T) {
	names, err := filepath.Glob("testdata/containerd/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			c, in, want := containerdCase(t, a)
			h := containerdRoot(t, in)
			before := containerdFiles(t, h)
			plan, err := c.Install(h)
			containerdApply(t, h, plan, err)
			got := map[string]string{}
			for p, data := range containerdFiles(t, h) {
				if data != before[p] && !strings.HasSuffix(p, ".json") {
					got[p] = data
				}
			}
			if *containerdUpdate {
				containerdWrite(t, name, a, got)
			} else if d := cmp.Diff(want, got); d != "" {
				t.Errorf("after install (-want +got):\n%s", d)
			}
			plan, err = c.Install(h)
			containerdEmpty(t, plan, err)
			plan, err = c.Uninstall(h)
			containerdApply(t, h, plan, err)
			after := containerdFiles(t, h)
			delete(after, "/etc/linkpin/") // others keep files there
			delete(after, "/etc/containerd/")
			delete(before, "/etc/containerd/")
			if d := cmp.Diff(before, after); d != "" {
				t.Errorf("after uninstall (-want +got):\n%s", d)
			}
			plan, err = c.Uninstall(h)
			containerdEmpty(t, plan, err)
		})
	}
}

func containerdWrite(t *testing.T, name string, a *txtar.Archive, got map[string]string) {
	t.Helper()
	b := &txtar.Archive{Comment: a.Comment}
	for _, f := range a.Files {
		if strings.HasPrefix(f.Name, "in/") {
			b.Files = append(b.Files, f)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(got)) {
		if !strings.HasSuffix(p, "/") {
			b.Files = append(b.Files, txtar.File{Name: "out" + p, Data: []byte(got[p])})
		}
	}
	if err := os.WriteFile(name, txtar.Format(b), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every golden case again with other line ends, and without one at the end.
func TestContainerdLineEnds(t *testing.T) {
	names, err := filepath.Glob("testdata/containerd/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c, in, _ := containerdCase(t, a)
		for kind, mangle := range map[string]func(string) string{
			"crlf":           func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
			"no line end":    func(s string) string { return strings.TrimSuffix(s, "\n") },
			"crlf, no end":   func(s string) string { return strings.TrimSuffix(strings.ReplaceAll(s, "\n", "\r\n"), "\r\n") },
			"blanks at ends": func(s string) string { return strings.ReplaceAll(s, "\n", " \t\n") + "\n\n" },
		} {
			t.Run(filepath.Base(name)+"/"+kind, func(t *testing.T) {
				files := map[string]string{}
				for p, data := range in {
					if strings.HasSuffix(p, ".toml") {
						data = mangle(data)
					}
					files[p] = data
				}
				h := containerdRoot(t, files)
				plan, err := c.Install(h)
				containerdApply(t, h, plan, err)
				for p, data := range containerdFiles(t, h) {
					if strings.Contains(files[p], "\r\n") && strings.Count(data, "\n") != strings.Count(data, "\r\n") {
						t.Errorf("%s: mixed line ends: %q", p, data)
					}
				}
				plan, err = c.Install(h)
				containerdEmpty(t, plan, err)
				plan, err = c.Uninstall(h)
				containerdApply(t, h, plan, err)
				for p, data := range files {
					if after := containerdFiles(t, h)[p]; after != data {
						t.Errorf("%s: %q\nwas %q", p, after, data)
					}
				}
			})
		}
	}
}

// What users write between install and uninstall stays.
func TestContainerdEditedInBetween(t *testing.T) {
	c := install.Containerd{Hook: containerdHook, Spec: []byte(containerdSpec), Version: "1.7.28"}
	const main = "/etc/containerd/config.toml"
	h := containerdRoot(t, map[string]string{main: "version = 2\n[grpc]\n  uid = 1\n"})
	plan, err := c.Install(h)
	containerdApply(t, h, plan, err)
	text := containerdFiles(t, h)[main]
	text = strings.Replace(text, "uid = 1", "uid = 7 # mine", 1) + "\n[debug]\nlevel = 'debug'\n"
	containerdPut(t, h, main, "# first\n"+text)

	plan, err = c.Install(h)
	containerdEmpty(t, plan, err)

	c.Annotations = []string{"example.com/tier"} // an outdated entry is renewed
	plan, err = c.Install(h)
	containerdApply(t, h, plan, err)
	if got := containerdFiles(t, h)[main]; strings.Count(got, "# linkpin: begin") != 1 || !strings.Contains(got, "example.com/tier") {
		t.Errorf("after the second install:\n%s", got)
	}
	plan, err = c.Uninstall(h)
	containerdApply(t, h, plan, err)
	if got, want := containerdFiles(t, h)[main], "# first\nversion = 2\n[grpc]\n  uid = 7 # mine\n\n[debug]\nlevel = 'debug'\n"; got != want {
		t.Errorf("after uninstall %q\nwant %q", got, want)
	}
}

// A file that we made stays if others have written to it.
func TestContainerdMadeFileStays(t *testing.T) {
	c := install.Containerd{Hook: containerdHook, Spec: []byte(containerdSpec), Version: "2.1"}
	const main = "/etc/containerd/config.toml"
	h := containerdRoot(t, nil)
	plan, err := c.Install(h)
	containerdApply(t, h, plan, err)
	containerdPut(t, h, main, containerdFiles(t, h)[main]+"[debug]\nlevel = 'debug'\n")
	plan, err = c.Uninstall(h)
	containerdApply(t, h, plan, err)
	if got, want := containerdFiles(t, h)[main], "version = 3\n[debug]\nlevel = 'debug'\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Daemon and ctr of this machine are asked.
func TestContainerdAsksPrograms(t *testing.T) {
	h := containerdRoot(t, map[string]string{"/config.toml": "version = 2\n", "/containerd": "#!\n", "/ctr": "#!\n"})
	var asked []string
	answer := containerdSpec
	c := install.Containerd{Hook: containerdHook, Config: h.Dir + "/config.toml", Daemon: h.Dir + "/containerd", Run: func(_ context.Context, program string, args ...string) ([]byte, error) {
		program = strings.TrimPrefix(program, h.Dir)
		asked = append(asked, program+" "+strings.Join(args, " "))
		if len(args) == 1 {
			return []byte("containerd github.com/containerd/containerd v1.7.28 0abcdef\n"), nil
		}
		if answer == "" {
			return nil, errors.New("exec format error")
		}
		return []byte(answer), nil
	}}
	plan, err := c.Install(change.Host{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"/containerd --version", "/ctr oci spec"}, asked); d != "" {
		t.Error(d)
	}
	spec := string(plan.Changes[0].New)
	for _, gone := range []string{"rlimits", "apparmorProfile", "seccomp"} {
		if strings.Contains(spec, gone) {
			t.Errorf("%s: containerd drops it from its default, and keeps it in a base spec:\n%s", gone, spec)
		}
	}
	for _, there := range []string{containerdHook, "createRuntime", "poststop", `"timeout": 60`, "cgroupsPath"} {
		if !strings.Contains(spec, there) {
			t.Errorf("no %s in:\n%s", there, spec)
		}
	}
	answer = ""
	if _, err := c.Install(change.Host{}); err == nil || !strings.Contains(err.Error(), "with what `ctr oci spec` of this version prints") {
		t.Errorf("got %v", err)
	}
}

// A base spec of the copied handler is kept whole, foreign hooks and limits included.
func TestContainerdKeepsBaseSpec(t *testing.T) {
	const base = `{"ociVersion": "1.0.2", "process": {"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 12345678901234567890}]},
 "hooks": {"createRuntime": [{"path": "/other"}], "poststop": [{"path": "/old/linkpin-hook", "args": ["linkpin-hook", "poststop", "--caller", "containerd"]}]}}`
	h := containerdRoot(t, map[string]string{
		"/base.json":                  base,
		"/etc/containerd/config.toml": "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\nbase_runtime_spec = '/base.json'\n",
	})
	c := install.Containerd{Hook: containerdHook, Handler: "linkpin", Version: "1.7"}
	plan, err := c.Install(h)
	containerdApply(t, h, plan, err)
	spec := containerdFiles(t, h)["/etc/linkpin/containerd/linkpin.json"]
	for _, there := range []string{`"/other"`, "12345678901234567890", "createRuntime", containerdHook} {
		if !strings.Contains(spec, there) {
			t.Errorf("no %s in:\n%s", there, spec)
		}
	}
	if strings.Contains(spec, "/old/") || strings.Count(spec, containerdHook) != 2 {
		t.Errorf("an older hook of ours stayed:\n%s", spec)
	}
	if !bytes.Equal([]byte(containerdFiles(t, h)["/base.json"]), []byte(base)) {
		t.Error("the file of others was changed")
	}
}

// Another handler than before takes an uninstall first.
func TestContainerdOtherHandler(t *testing.T) {
	c := install.Containerd{Hook: containerdHook, Handler: "other", Spec: []byte(containerdSpec), Version: "2.2"}
	h := containerdRoot(t, map[string]string{"/etc/containerd/config.toml": "version = 3\nimports = ['conf.d/*.toml']\n"})
	before := containerdFiles(t, h)
	plan, err := c.Install(h)
	containerdApply(t, h, plan, err)
	c.Handler = "linkpin"
	if _, err := c.Install(h); err == nil || !strings.Contains(err.Error(), `its runtime handler "other" calls linkpin already`) ||
		!strings.Contains(err.Error(), "give --handler other, or run linkpin uninstall containerd first") {
		t.Errorf("moved: %v", err)
	}
	c.Handler = "" // uninstall finds what is there
	plan, err = c.Uninstall(h)
	containerdApply(t, h, plan, err)
	after := containerdFiles(t, h)
	delete(after, "/etc/linkpin/")
	if d := cmp.Diff(before, after); d != "" {
		t.Error(d)
	}
}

// Without containerd there is nothing to say, to plan or to use.
func TestContainerdAbsent(t *testing.T) {
	h := containerdRoot(t, nil)
	c := install.Containerd{Hook: containerdHook}
	if got := c.Check(h); got != nil {
		t.Errorf("check: %v", got)
	}
	if c.Uses(h, containerdHook) {
		t.Error("used")
	}
	plan, err := c.Uninstall(h)
	containerdEmpty(t, plan, err)
	if _, err := c.Install(h); err == nil || !strings.Contains(err.Error(), "programs of an image are not run; give --containerd-version, and --spec") {
		t.Errorf("install: %v", err)
	}
}

func containerdJSON(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
