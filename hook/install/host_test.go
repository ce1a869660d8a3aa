// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

const testHook = "/usr/libexec/linkpin/linkpin-hook"

// hostFiles makes a host with /etc, the hook and some files. A name that ends in "/"
// is a directory, content that begins with "-> " a link; what lies in a bin
// directory is executable.
func hostFiles(t *testing.T, files map[string]string) change.Host {
	t.Helper()
	h := change.Host{Dir: t.TempDir()}
	putFile(t, h, "/etc/", "")
	putFile(t, h, testHook, "hook")
	if err := os.Chmod(filepath.Join(h.Dir, testHook), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		putFile(t, h, name, content)
	}
	return h
}

func putFile(t *testing.T, h change.Host, name, content string) {
	t.Helper()
	real := filepath.Join(h.Dir, name)
	dir := filepath.Dir(real)
	if strings.HasSuffix(name, "/") {
		dir = real
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, "/") {
		return
	}
	mode := os.FileMode(0o644)
	if filepath.Base(dir) == "bin" {
		mode = 0o755
	}
	var err error
	if to, ok := strings.CutPrefix(content, "-> "); ok {
		err = os.Symlink(to, real)
	} else {
		err = os.WriteFile(real, []byte(content), mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// hostTree describes everything below a host's root.
func hostTree(t *testing.T, h change.Host) map[string]string {
	t.Helper()
	tree := map[string]string{}
	err := filepath.WalkDir(h.Dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		what := st.Mode().String()
		switch {
		case st.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			what += " " + string(data)
		case st.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			what += " -> " + to
		}
		tree[strings.TrimPrefix(p, h.Dir)] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// mustInstall installs a target and returns the paths of what was changed.
func mustInstall(t *testing.T, h change.Host, target change.Target) []string {
	t.Helper()
	plan, err := target.Install(h)
	if err != nil {
		t.Fatal(err)
	}
	return mustApply(t, h, plan)
}

func mustApply(t *testing.T, h change.Host, plan *change.Plan) []string {
	t.Helper()
	var paths []string
	for _, c := range plan.Changes {
		paths = append(paths, c.Path)
	}
	if err := plan.Apply(h); err != nil {
		t.Fatal(err)
	}
	return paths
}

// checkInstalled tests what holds of every target: a second Install plans nothing,
// and after Uninstall the host is what it was before.
func checkInstalled(t *testing.T, h change.Host, target change.Target, before map[string]string) {
	t.Helper()
	plan, err := target.Install(h)
	if err != nil {
		t.Fatal(err)
	}
	if !plan.Empty() {
		t.Errorf("a second install plans\n%s", plan.Diff())
	}
	if !target.Uses(h, testHook) {
		t.Error("Uses does not know the hook")
	}
	if target.Uses(h, "/other/linkpin-hook") {
		t.Error("Uses knows a hook that is not used")
	}
	plan, err = target.Uninstall(h)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, h, plan)
	if d := cmp.Diff(before, hostTree(t, h)); d != "" {
		t.Errorf("after uninstall (-before +after):\n%s", d)
	}
	if target.Uses(h, testHook) {
		t.Error("Uses knows the hook after uninstall")
	}
	if plan, err = target.Uninstall(h); err != nil || !plan.Empty() {
		t.Errorf("a second uninstall: %v, %v", plan, err)
	}
}

// checkRefused tests that a plan was refused in one line of text with a remedy.
func checkRefused(t *testing.T, err error, want string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatalf("got the error %v", err)
	}
	if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || f.Remedy == "" {
		t.Errorf("got %q, want %q and a remedy", err, want)
	}
}

// findings writes findings as lines, the remedy left out.
func findings(fs []change.Finding) string {
	var b strings.Builder
	for _, f := range fs {
		b.WriteString(string(f.Level) + " " + f.What + ": " + f.Detail + "\n")
		if (f.Remedy == "") != (f.Level == change.OK) {
			b.WriteString("with the remedy " + f.Remedy + "\n")
		}
	}
	return b.String()
}

// checkFindings compares findings with the beginnings of lines; "…" stands for any text.
func checkFindings(t *testing.T, got []change.Finding, want ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(findings(got), "\n"), "\n")
	if len(got) == 0 {
		lines = nil
	}
	ok := len(lines) == len(want)
	for i := 0; ok && i < len(want); i++ {
		first, parts, _ := strings.Cut(want[i], "…")
		rest, found := strings.CutPrefix(lines[i], first)
		ok = found
		for part := range strings.SplitSeq(parts, "…") {
			_, rest, found = strings.Cut(rest, part)
			ok = ok && found
		}
	}
	if !ok {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}
