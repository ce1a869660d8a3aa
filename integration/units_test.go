// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unit is what a unit file says: section, name, value.
func unit(t *testing.T, name string) [][3]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	var all [][3]string
	section := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		key, value, ok := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			section = line
		case ok && section != "":
			all = append(all, [3]string{section, key, value})
		default:
			t.Errorf("%s: %q", name, line)
		}
	}
	return all
}

// The units do what they say, and nothing that hides bpffs or the containers' namespaces
// from the service. testdata/verify.txtar runs their command.
func TestUnits(t *testing.T) {
	service, timer := unit(t, "linkpin-verify.service"), unit(t, "linkpin-verify.timer")
	for _, want := range [][3]string{
		{"[Service]", "Type", "oneshot"},
		{"[Service]", "ExecStart", "/usr/local/bin/linkpin verify --repair --known /run/linkpin/verify.json"},
		{"[Service]", "RuntimeDirectory", "linkpin"},
		{"[Service]", "RuntimeDirectoryMode", "0700"},
		{"[Service]", "RuntimeDirectoryPreserve", "yes"},
	} {
		if !slices.Contains(service, want) {
			t.Errorf("the service lacks %v", want)
		}
	}
	for _, s := range service {
		for _, no := range []string{"Protect", "Private", "ReadOnly", "ReadWrite", "Inaccessible", "Bind", "Root", "Dynamic", "RestrictNamespaces", "SuccessExitStatus", "Condition"} {
			if strings.HasPrefix(s[1], no) {
				t.Errorf("%s=%s", s[1], s[2])
			}
		}
		if s[0] == "[Install]" {
			t.Error("the service can be enabled, beside its timer")
		}
	}
	if !slices.Contains(timer, [3]string{"[Install]", "WantedBy", "timers.target"}) {
		t.Error("the timer can't be enabled")
	}

	// systemd itself knows best, where there is one.
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return
	}
	dir := t.TempDir()
	for _, name := range []string{"linkpin-verify.service", "linkpin-verify.timer"} {
		data, err := os.ReadFile(filepath.Join("../systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), "/usr/local/bin/linkpin", "/bin/true")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, name)).CombinedOutput()
		if err != nil || strings.Contains(string(out), name) {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// `make install` puts below DESTDIR what it built, the service with the path that the
// binary will have, and nothing that would enable it.
func TestMakeInstall(t *testing.T) {
	for _, c := range []struct {
		args   []string
		prefix string
	}{
		{[]string{"PREFIX=/usr"}, "/usr"},
		{nil, "/usr/local"},
	} {
		t.Run(c.prefix, func(t *testing.T) {
			// A copy of the tree as `make build` leaves it: bin/ may be somebody's.
			src, dest := t.TempDir(), t.TempDir()
			makefile, err := os.ReadFile("../Makefile")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(src, "Makefile"), makefile, 0o600); err != nil {
				t.Fatal(err)
			}
			for dir, from := range map[string]string{"systemd": "../systemd", "bin": built.bin} {
				if err := os.CopyFS(filepath.Join(src, dir), os.DirFS(from)); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("make", append([]string{"-C", src, "install", "DESTDIR=" + dest}, c.args...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("make install: %v\n%s", err, out)
			}
			want := map[string]os.FileMode{
				c.prefix + "/bin/linkpin":                               0o755,
				c.prefix + "/bin/linkpin-hook":                          0o755,
				"/opt/cni/bin/linkpin-cni":                              0o755,
				c.prefix + "/libexec/linkpin/linkpin-nri":               0o755,
				c.prefix + "/lib/systemd/system/linkpin-verify.service": 0o644,
				c.prefix + "/lib/systemd/system/linkpin-verify.timer":   0o644,
			}
			got := map[string]os.FileMode{}
			err = filepath.WalkDir(dest, func(path string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				info, err := d.Info()
				if err == nil {
					got[strings.TrimPrefix(path, dest)] = info.Mode()
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(got, want) {
				t.Errorf("installed %v\nwant %v", got, want)
			}
			service, err := os.ReadFile(filepath.Join(dest, c.prefix, "lib/systemd/system/linkpin-verify.service"))
			if err != nil {
				t.Fatal(err)
			}
			var starts []string
			for line := range strings.Lines(string(service)) {
				if strings.HasPrefix(line, "Exec") {
					starts = append(starts, strings.TrimSpace(line))
				}
			}
			if want := "ExecStart=" + c.prefix + "/bin/linkpin verify --repair --known /run/linkpin/verify.json"; !slices.Equal(starts, []string{want}) {
				t.Errorf("the service says %q, want %q", starts, want)
			}
			if strings.Contains(string(service), dest) {
				t.Error("the service names DESTDIR")
			}
		})
	}
}
