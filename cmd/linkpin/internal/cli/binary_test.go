// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// put writes files below a directory; the names end in those of programs.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for path, text := range files {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
}

// must runs an installer that succeeds.
func must(t *testing.T, programs string, args ...string) string {
	t.Helper()
	code, stdout, stderr := runInstalled(t, programs, args...)
	if code != 0 {
		t.Fatalf("%q: exit code %d, %s", args, code, stderr)
	}
	return stdout
}

const (
	testPlugin = "/usr/lib/cni/linkpin-cni"
	testList   = "{\"cniVersion\": \"1.0.0\", \"name\": \"pods\", \"plugins\": [{\"type\": \"bridge\"}, {\"type\": \"portmap\"}]}\n"
)

// `make install` puts linkpin-nri where no runtime starts it and no copy is placed.
func TestInstallAfterMakeInstall(t *testing.T) {
	prefix, root := t.TempDir(), image(t)
	put(t, prefix, map[string]string{"bin/linkpin-hook": "hook", "libexec/linkpin/linkpin-nri": "nri"})
	must(t, filepath.Join(prefix, "bin"), "install", "nri", "--root", root)
	if data, err := os.ReadFile(filepath.Join(root, "opt/nri/plugins/10-linkpin-nri")); err != nil || string(data) != "nri" {
		t.Errorf("%q, %v", data, err)
	}
	makefile, err := os.ReadFile("../../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(makefile), "\nLIBEXECDIR ?= ")
	theirs, _, _ := strings.Cut(rest, "\n")
	if theirs != "$(PREFIX)/libexec/linkpin" || strings.ReplaceAll(theirs, "$(PREFIX)", "/usr/local") == libexec {
		t.Errorf("make install uses %s, linkpin install uses %s", theirs, libexec)
	}
}

// Another build knows what this one has placed: it brings it up to date and takes it
// away.
func TestOtherBuild(t *testing.T) {
	bin, newer, root := programs(t), programs(t), image(t)
	put(t, newer, map[string]string{"linkpin-hook": "newer hook", "linkpin-cni": "newer cni", "linkpin-nri": "newer nri"})
	before := files(t, root)
	targets := []string{"podman", "cni", "nri"}
	for _, target := range targets {
		must(t, bin, "install", target, "--root", root)
	}
	for _, target := range targets {
		if out := must(t, newer, "install", target, "--root", root); !strings.Contains(out, "update") {
			t.Errorf("install %s of another build: %s", target, out)
		}
	}
	if data, err := os.ReadFile(filepath.Join(root, testPlugin)); err != nil || string(data) != "newer cni" {
		t.Errorf("%q, %v", data, err)
	}
	for _, target := range targets {
		must(t, bin, "uninstall", target, "--root", root)
	}
	if d := cmp.Diff(before, files(t, root)); d != "" {
		t.Errorf("left:\n%s", d)
	}
}

// The receipt is written first: who is killed before the program is, leaves nothing
// that the next one can't go on with.
func TestKilledUpgrade(t *testing.T) {
	bin, root := programs(t), image(t)
	before := files(t, root)
	must(t, bin, "install", "podman", "--root", root)
	hook := filepath.Join(root, libexec, "linkpin-hook")
	old, err := os.ReadFile(hook)
	if err != nil {
		t.Fatal(err)
	}
	put(t, bin, map[string]string{"linkpin-hook": "newer hook"})
	must(t, bin, "install", "podman", "--root", root)
	if err := os.WriteFile(hook, old, 0o755); err != nil {
		t.Fatal(err)
	}
	if must(t, bin, "install", "podman", "--root", root); string(mustRead(t, hook)) != "newer hook" {
		t.Error("the old program stays")
	}
	if err := os.WriteFile(hook, old, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, bin, "uninstall", "podman", "--root", root)
	if d := cmp.Diff(before, files(t, root)); d != "" {
		t.Errorf("left:\n%s", d)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// One target, installed with different options: the program stays until both are gone.
func TestInstalledTwice(t *testing.T) {
	for _, tc := range []struct {
		name, target, program string
		one, two              []string
	}{
		{"cni", "cni", testPlugin, nil, []string{"--conf-dir", "/etc/other"}},
		{"cni, the default last", "cni", testPlugin, []string{"--conf-dir", "/etc/other"}, nil},
		{"nri", "nri", libexec + "/linkpin-hook", nil, []string{"--conf-dir", "/etc/other"}},
		{"nri, two directories", "nri", libexec + "/linkpin-hook", []string{"--conf-dir", "/etc/other", "--plugin-dir", "/opt/other"}, nil},
		{"nri's plugin", "nri", "/opt/nri/plugins/10-linkpin-nri", nil, []string{"--conf-dir", "/etc/other"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bin, root := programs(t), image(t)
			put(t, root, map[string]string{"etc/other/10-pods.conflist": testList})
			before := files(t, root)
			run := func(verb string, options []string) {
				t.Helper()
				must(t, bin, append([]string{verb, tc.target, "--root", root}, options...)...)
			}
			run("install", tc.one)
			run("install", tc.two)
			run("uninstall", tc.one)
			if _, err := os.Stat(filepath.Join(root, tc.program)); err != nil {
				t.Errorf("the other one still needs it: %v", err)
			}
			run("uninstall", tc.two)
			if d := cmp.Diff(before, files(t, root)); d != "" {
				t.Errorf("left:\n%s", d)
			}
		})
	}
}

// What no installer has placed is neither replaced nor removed.
func TestProgramsOfOthersStay(t *testing.T) {
	bin, root := programs(t), image(t)
	put(t, root, map[string]string{testPlugin: "a package's"})
	if out := must(t, bin, "install", "cni", "--root", root); !strings.Contains(out, "note: "+testPlugin+" is another build") {
		t.Errorf("no word of it: %s", out)
	}
	must(t, bin, "uninstall", "cni", "--root", root)
	if data := mustRead(t, filepath.Join(root, testPlugin)); string(data) != "a package's" {
		t.Errorf("now %q", data)
	}

	// A package that has put its own in the place of the copy is not ours either.
	root = image(t)
	must(t, bin, "install", "cni", "--root", root)
	put(t, root, map[string]string{testPlugin: "a package's"})
	if out := must(t, bin, "install", "cni", "--root", root); strings.Contains(out, "update") {
		t.Errorf("%s", out)
	}
	must(t, bin, "uninstall", "cni", "--root", root)
	if data := mustRead(t, filepath.Join(root, testPlugin)); string(data) != "a package's" {
		t.Errorf("now %q", data)
	}
	if _, err := os.Stat(filepath.Join(root, libexec)); err == nil {
		t.Error("the receipt stays")
	}

	// One that can't be run is in the way.
	root = image(t)
	put(t, root, map[string]string{testPlugin: "text"})
	if err := os.Chmod(filepath.Join(root, testPlugin), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := runInstalled(t, bin, "install", "cni", "--root", root); code == 0 || !strings.Contains(stderr, testPlugin+": is not executable") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

func TestReceipt(t *testing.T) {
	bin, root := programs(t), image(t)
	must(t, bin, "install", "cni", "--root", root)
	path := filepath.Join(root, receiptPath(change.Binary{Name: "linkpin-cni", Path: testPlugin}))
	var got receipt
	if err := json.Unmarshal(mustRead(t, path), &got); err != nil {
		t.Fatal(err)
	}
	if got.Path != testPlugin || got.SHA256 != sum([]byte("\x7fELF\x00 linkpin-cni")) || !slices.Equal(got.Files, []string{"/etc/cni/net.d/10-pods.conflist"}) {
		t.Errorf("%+v", got)
	}
	for _, text := range []string{"{", "{}", `{"path": "/x", "sha256": "` + strings.Repeat("0", 64) + `"}`} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		before := files(t, root)
		code, _, stderr := runInstalled(t, bin, "install", "cni", "--root", root)
		if code != fault.ExitInput || !strings.Contains(stderr, strings.TrimPrefix(path, root)) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d, %s", text, code, stderr)
		}
		if d := cmp.Diff(before, files(t, root)); d != "" {
			t.Error(d)
		}
	}
}

// A copy whose owner or mode has been changed is mended.
func TestPlacedProgramsAreRoots(t *testing.T) {
	bin, root := programs(t), image(t)
	must(t, bin, "install", "cni", "--root", root)
	plugin := filepath.Join(root, testPlugin)
	if err := errors.Join(os.Chown(plugin, 65534, 65534), os.Chmod(plugin, 0o777)); err != nil {
		t.Fatal(err)
	}
	must(t, bin, "install", "cni", "--root", root)
	var st unix.Stat_t
	if err := unix.Stat(plugin, &st); err != nil || st.Uid != 0 || st.Gid != 0 || st.Mode&0o7777 != 0o755 {
		t.Errorf("%d:%d %o, %v", st.Uid, st.Gid, st.Mode, err)
	}
}

// Hooks run as root: what others can change is not given to a runtime, and doctor finds
// it afterwards.
func TestUntrustedHook(t *testing.T) {
	const given = "/opt/x/linkpin-hook"
	for _, tc := range []struct {
		name   string
		harmed string
		uid    int
		mode   fs.FileMode
		hook   string // "" if it is found
		want   string
	}{
		{"given, of another", given, 1000, 0o755, given, given + " belongs to uid 1000"},
		{"given, for all", given, 0, 0o777, given, given + " has mode 0777"},
		{"given, in another's", "/opt", 1000, 0o755, given, "/opt belongs to uid 1000"},
		{"given, in a sticky directory", "/opt", 0, fs.ModeSticky | 0o777, given, ""},
		{"found, for the group", "/usr/bin", 0, 0o775, "", "/usr/bin has mode 0775"},
		{"found, of another", "/usr/bin/linkpin-hook", 1000, 0o755, "", "/usr/bin/linkpin-hook belongs to uid 1000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bin, root := programs(t), image(t)
			put(t, root, map[string]string{given: "hook"})
			if tc.hook == "" {
				put(t, root, map[string]string{"usr/bin/linkpin-hook": "hook"})
			}
			args := []string{"install", "podman", "--root", root, "--hook", tc.hook}
			harm := func(root string) {
				path := filepath.Join(root, tc.harmed)
				if err := errors.Join(os.Chown(path, tc.uid, tc.uid), os.Chmod(path, tc.mode)); err != nil {
					t.Fatal(err)
				}
			}
			harm(root)
			before := files(t, root)
			code, _, stderr := runInstalled(t, bin, args...)
			if tc.want == "" {
				if code != 0 {
					t.Error(stderr)
				}
				return
			}
			if code == 0 || !strings.Contains(stderr, tc.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit code %d, %s", code, stderr)
			}
			if d := cmp.Diff(before, files(t, root)); d != "" {
				t.Error(d)
			}

			root = image(t)
			put(t, root, map[string]string{given: "hook"})
			if tc.hook == "" {
				put(t, root, map[string]string{"usr/bin/linkpin-hook": "hook"})
			}
			args[3] = root
			must(t, bin, args...)
			d := &doctor{app: &app{Env: Env{Programs: bin}}, host: change.Host{Dir: root}}
			if d.checkBinaries(); len(d.findings) > 0 {
				t.Errorf("nothing is wrong yet: %+v", d.findings)
			}
			harm(root)
			d.checkBinaries()
			if len(d.findings) != 1 || d.findings[0].Level != change.Fail || !strings.Contains(d.findings[0].Detail, tc.want) || d.findings[0].Remedy == "" {
				t.Errorf("%+v", d.findings)
			}
			must(t, bin, "uninstall", "podman", "--root", root)
			d.findings = nil
			if d.checkBinaries(); len(d.findings) > 0 {
				t.Errorf("nobody calls it: %+v", d.findings)
			}
		})
	}
}

// Without knowing the policies an installer would take away what they need.
func TestInstallDamagedPolicies(t *testing.T) {
	bin, root := programs(t), image(t)
	must(t, bin, "install", "podman", "--root", root)
	current := filepath.Join(root, "var/lib/linkpin/current")
	if err := errors.Join(os.RemoveAll(current), os.WriteFile(current, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	before := files(t, root)
	for _, target := range []string{"podman", "cdi", "cni"} {
		for _, more := range [][]string{nil, {"--dry-run"}} {
			code, _, stderr := runInstalled(t, bin, append([]string{"install", target, "--root", root}, more...)...)
			if code != fault.ExitConfig || !strings.Contains(stderr, "are damaged") || !strings.Contains(stderr, "linkpin policy apply") {
				t.Errorf("install %s: exit code %d, %s", target, code, stderr)
			}
		}
	}
	if d := cmp.Diff(before, files(t, root)); d != "" {
		t.Error(d)
	}
	a := &app{Env: Env{Programs: bin}}
	if all, err := a.targets(change.Host{Dir: root}); err != nil || len(all) != len(targetKinds) {
		t.Errorf("doctor can't go on: %v", err)
	}
	must(t, bin, "uninstall", "podman", "--root", root)
}

func TestInstallRoot(t *testing.T) {
	bin, root := programs(t), image(t)
	for _, verb := range []string{"install", "uninstall"} {
		code, _, stderr := runInstalled(t, bin, verb, "podman", "--dry-run", "--root", "")
		if code != fault.ExitUsage || !strings.Contains(stderr, "--root: is empty") {
			t.Errorf("%s: exit code %d, %s", verb, code, stderr)
		}
	}
	t.Chdir(filepath.Join(root, "usr"))
	var out installOutput
	if err := json.Unmarshal([]byte(must(t, bin, "install", "podman", "-o", "json", "--root", "../usr/..")), &out); err != nil || out.Root != root {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := os.Stat(filepath.Join(root, libexec, "linkpin-hook")); err != nil {
		t.Error(err)
	}
}

// A dry run waits for nobody.
func TestDryRunTakesNoLock(t *testing.T) {
	bin, root := programs(t), image(t)
	unlock, err := change.Host{Dir: root}.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	must(t, bin, "install", "podman", "--root", root, "--dry-run")
}

// Whoever was killed while it placed a program has left nothing but half a file.
func TestUninstallSweeps(t *testing.T) {
	bin, root := programs(t), image(t)
	before := files(t, root)
	put(t, root, map[string]string{"opt/nri/.linkpin-1.tmp": "half", "opt/nri/plugins/.linkpin-2.tmp": "half"})
	must(t, bin, "uninstall", "nri", "--root", root, "--dry-run")
	if _, err := os.Stat(filepath.Join(root, "opt/nri/.linkpin-1.tmp")); err != nil {
		t.Error("a dry run changes nothing")
	}
	must(t, bin, "uninstall", "nri", "--root", root)
	if d := cmp.Diff(before, files(t, root)); d != "" {
		t.Error(d)
	}
}

// A plugin that goes because another place was asked for takes its receipt along.
func TestReceiptOfAnotherIndex(t *testing.T) {
	bin, root := programs(t), image(t)
	before := files(t, root)
	must(t, bin, "install", "nri", "--root", root)
	must(t, bin, "install", "nri", "--root", root, "--index", "20")
	all, err := receipts(change.Host{Dir: root})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if _, err := os.Stat(filepath.Join(root, r.Path)); err != nil {
			t.Errorf("a receipt of nothing: %v", err)
		}
	}
	must(t, bin, "uninstall", "nri", "--root", root)
	if d := cmp.Diff(before, files(t, root)); d != "" {
		t.Errorf("left:\n%s", d)
	}
}
