// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// image makes the root directory of a host with all runtimes, none of them
// configured but for a network.
func image(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for path, content := range map[string]string{
		"usr/bin/podman":                         "",
		"usr/bin/crio":                           "",
		"usr/lib/cni/bridge":                     "",
		"usr/lib/cni/portmap":                    "",
		"etc/cni/net.d/10-pods.conflist":         "{\n\t\"cniVersion\": \"1.0.0\",\n\t\"name\": \"pods\",\n\t\"plugins\": [\n\t\t{\"type\": \"bridge\"},\n\t\t{\"type\": \"portmap\"}\n\t]\n}\n",
		"etc/containers/containers.conf":         "# ours\n[engine]\n",
		"usr/share/containers/oci/hooks.d/.keep": "",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// programs makes a directory like that of linkpin itself.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"linkpin-hook", "linkpin-cni", "linkpin-nri"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("\x7fELF\x00 "+name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// files returns the files below a directory, with their modes and contents, but for
// the applied policies.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, dir)
		if strings.HasPrefix(name, "/var/lib/linkpin/") {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		out[name] = info.Mode().String() + " " + string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func runInstalled(t *testing.T, programs string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = Run(context.Background(), Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Version: "test", Programs: programs}, args)
	return code, out.String(), errs.String()
}

// Everything is installed and taken out again, in every order, and only what is
// there for others stays.
func TestInstallAndUninstall(t *testing.T) {
	bin, root := programs(t), image(t)
	before := files(t, root)
	install := func(verb, target string) installOutput {
		t.Helper()
		code, stdout, stderr := runInstalled(t, bin, verb, target, "--root", root, "-o", "json")
		if code != 0 || stderr != "" {
			t.Fatalf("%s %s: exit code %d, %s", verb, target, code, stderr)
		}
		var out installOutput
		if err := json.Unmarshal([]byte(stdout), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	hook := libexec + "/linkpin-hook"
	if out := install("install", "podman"); out.Changes[1].Path != hook || len(out.Changes) < 4 || len(out.Notes) == 0 {
		t.Errorf("the binary comes first: %+v", out)
	}
	if data, err := os.ReadFile(filepath.Join(root, hook)); err != nil || string(data) != "\x7fELF\x00 linkpin-hook" {
		t.Errorf("linkpin-hook: %q, %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(root, "var/lib/linkpin/current")); err != nil {
		t.Errorf("no empty set was applied: %v", err)
	}
	for _, target := range []string{"crio", "cni", "nri", "podman"} {
		install("install", target)
		if out := install("install", target); len(out.Changes) != 0 {
			t.Errorf("install %s again: %+v", target, out.Changes)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "usr/lib/cni/linkpin-cni")); err != nil {
		t.Error(err)
	}
	install("uninstall", "nri")
	install("uninstall", "podman")
	if _, err := os.Stat(filepath.Join(root, hook)); err != nil {
		t.Errorf("CRI-O still calls it: %v", err)
	}
	out := install("uninstall", "crio")
	if last := out.Changes[len(out.Changes)-1]; last.Path != libexec || out.Changes[len(out.Changes)-3].Path != hook {
		t.Errorf("the binary goes last: %+v", out.Changes)
	}
	install("uninstall", "cni")
	if out := install("uninstall", "cni"); len(out.Changes) != 0 {
		t.Errorf("uninstall cni again: %+v", out.Changes)
	}
	if d := cmp.Diff(before, files(t, root)); d != "" {
		t.Errorf("what was there before is not what is there now:\n%s", d)
	}
}

// The plugin stays as long as attachments that were made with it are to be deleted.
func TestUninstallKeepsWhatIsNeeded(t *testing.T) {
	bin, root := programs(t), image(t)
	plugin := filepath.Join(root, "usr/lib/cni/linkpin-cni")
	cache := filepath.Join(root, "var/lib/cni/results/pods-4711-eth0")
	if err := os.MkdirAll(filepath.Dir(cache), 0o755); err != nil {
		t.Fatal(err)
	}
	kept, err := json.Marshal(map[string]any{"config": []byte(`{"plugins":[{"type":"linkpin-cni"}]}`)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cache, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"install", "uninstall"} {
		code, stdout, stderr := runInstalled(t, bin, verb, "cni", "--root", root)
		if code != 0 || verb == "uninstall" && !strings.Contains(stdout, "linkpin-cni stays: ") {
			t.Fatalf("%s: exit code %d, %s%s", verb, code, stdout, stderr)
		}
		if _, err := os.Stat(plugin); err != nil {
			t.Error(err)
		}
	}
	if err := os.Remove(cache); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := runInstalled(t, bin, "uninstall", "cni", "--root", root); code != 0 {
		t.Fatalf("%s%s", stdout, stderr)
	}
	if _, err := os.Stat(plugin); err == nil {
		t.Error("the plugin is still there")
	}
}

// A plugin that a package has put there is the package's to remove; without its
// configuration it would refuse every container.
func TestUninstallLeavesForeignPlugins(t *testing.T) {
	bin, root := programs(t), image(t)
	plugin := filepath.Join(root, "opt/nri/plugins/10-linkpin-nri")
	if err := os.MkdirAll(filepath.Dir(plugin), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(plugin, []byte("a package's"), 0o755); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := runInstalled(t, bin, "install", "nri", "--root", root); code != 0 {
		t.Fatal(stderr)
	}
	before := files(t, root)
	code, _, stderr := runInstalled(t, bin, "uninstall", "nri", "--root", root)
	if code == 0 || !strings.Contains(stderr, "has not put there") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	if d := cmp.Diff(before, files(t, root)); d != "" {
		t.Error(d)
	}
}

func TestInstallDryRun(t *testing.T) {
	bin, root := programs(t), image(t)
	before := files(t, root)
	code, stdout, stderr := runInstalled(t, bin, "install", "cni", "--root", root, "--dry-run")
	if code != 0 || stderr != "" || !strings.Contains(stdout, "+++ /etc/cni/net.d/10-pods.conflist") ||
		!strings.Contains(stdout, `"type": "linkpin-cni"`) || !strings.Contains(stdout, "binary /dev/null → /usr/lib/cni/linkpin-cni") {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	if d := cmp.Diff(before, files(t, root)); d != "" {
		t.Errorf("something has changed: %s", d)
	}
	if _, err := os.Stat(filepath.Join(root, "var/lib/linkpin")); err == nil {
		t.Error("a set was applied")
	}
}

// Installers wait for each other: whatever the order, the result is the same.
func TestInstallersAtOnce(t *testing.T) {
	bin, root, one := programs(t), image(t), image(t)
	targets := []string{"podman", "crio", "cni", "nri"}
	for _, target := range targets {
		if code, _, stderr := runInstalled(t, bin, "install", target, "--root", one); code != 0 {
			t.Fatal(stderr)
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		for _, target := range targets {
			wg.Go(func() {
				if code, _, stderr := runInstalled(t, bin, "install", target, "--root", root); code != 0 {
					t.Errorf("install %s: %s", target, stderr)
				}
			})
		}
	}
	wg.Wait()
	// But for a note of who has made which directory.
	made := cmpopts.AcyclicTransformer("made", func(s string) string {
		before, rest, _ := strings.Cut(s, `"io.linkpin.made": [`)
		_, after, _ := strings.Cut(rest, "]")
		return before + after
	})
	if d := cmp.Diff(files(t, one), files(t, root), made); d != "" {
		t.Errorf("not as one after the other: %s", d)
	}
}

func TestInstallFails(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		harm func(t *testing.T, bin, root string)
		code int
		want string
	}{
		{"unknown target", []string{"install", "docker"}, nil, fault.ExitUsage, `unknown command "docker"`},
		{"relative hook", []string{"install", "podman", "--hook", "bin/hook"}, nil, fault.ExitUsage, "not an absolute path"},
		{"bad --when", []string{"install", "podman", "--when", "never"}, nil, fault.ExitUsage, "none of auto, always, optIn"},
		{"no host", []string{"install", "podman", "--root", "/nonexistent"}, nil, 1, "is --root the root directory"},
		{"no binary", []string{"install", "podman"}, func(t *testing.T, bin, _ string) {
			if err := os.Remove(filepath.Join(bin, "linkpin-hook")); err != nil {
				t.Fatal(err)
			}
		}, 1, "make build"},
		{"malformed conflist", []string{"install", "cni"}, func(t *testing.T, _, root string) {
			if err := os.WriteFile(filepath.Join(root, "etc/cni/net.d/10-pods.conflist"), []byte("{\n\"plugins\": [\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, 1, "10-pods.conflist"},
		{"read-only", []string{"install", "podman"}, func(t *testing.T, _, root string) {
			mountOver(t, root, unix.MS_RDONLY)
		}, 1, "read-only"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bin, root := programs(t), image(t)
			if tc.harm != nil {
				tc.harm(t, bin, root)
			}
			before := files(t, root)
			args := tc.args
			if tc.code != fault.ExitUsage && !strings.Contains(strings.Join(args, " "), "--root") {
				args = append(args, "--root", root)
			}
			code, stdout, stderr := runInstalled(t, bin, args...)
			if code == 0 || tc.code != 1 && code != tc.code || !strings.Contains(stderr, tc.want) || strings.Count(stderr, "\n") != 1 || stdout != "" {
				t.Errorf("exit code %d, stdout %q, stderr %q; want one line with %q", code, stdout, stderr, tc.want)
			}
			if d := cmp.Diff(before, files(t, root)); d != "" {
				t.Errorf("something has changed: %s", d)
			}
		})
	}
}

// mountOver binds a directory on itself with further flags.
func mountOver(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		t.Fatal(err)
	}
}
