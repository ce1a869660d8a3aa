// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs/change"
)

func TestParseRelease(t *testing.T) {
	for line, want := range map[string]string{
		"runc version 1.1.5+ds1":  "1.1.5",
		"runc version 1.2.0-rc.1": "1.2.0",
		"crun version 1.8.1":      "1.8.1",
		"crun version 1.21":       "1.21.0",
		"podman version 4.3.1":    "4.3.1",
		"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3":        "1.6.20",
		"containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4e490e9fbdc236c0e": "2.1.4",
		"crio version 1.34.0":                          "1.34.0",
		"Docker version v2.0.0-beta.24, build unknown": "2.0.0",
		"Docker version 20.10.24+dfsg1, build 297e128": "20.10.24",
		"Version: 3.17.1":                              "3.17.1",
		"6.18.5-cloud-amd64":                           "6.18.5",
		"crun version UNKNOWN":                         "",
		"runc version 5":                               "",
		"runc version 99999999999999999999.1":          "",
		"":                                             "",
	} {
		got, ok := parseRelease(line)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%q: %s %v, want %q", line, got, ok, want)
		}
	}
}

func TestFaultsOf(t *testing.T) {
	for _, tc := range []struct {
		program    string
		v          release
		kernel     release
		with       string
		want       []change.Level
		wantInText string
	}{
		{program: "runc", v: release{1, 1, 5}, want: []change.Level{change.OK}, wantInText: "poststop"},
		{program: "crun", v: release{1, 8, 1}, want: []change.Level{change.Warn, change.OK, change.OK}, wantInText: "hangs with a hook that is stopped"},
		{program: "crun", v: release{1, 8, 7}, want: []change.Level{change.Warn, change.OK, change.OK}, wantInText: "(seen with crun 1.8.1)"},
		{program: "crun", v: release{1, 9, 0}, want: []change.Level{change.OK, change.OK}, wantInText: "drops what a hook says"},
		{program: "crun", v: release{1, 9, 0}, with: "criu", want: []change.Level{change.Warn, change.OK, change.OK}, wantInText: "no hooks at restore"},
		{program: "crun", want: []change.Level{change.OK, change.OK}, wantInText: "(seen with crun 1.8.1)"}, // not known
		{program: "podman", v: release{4, 2, 9}},
		{program: "podman", v: release{4, 3, 1}, want: []change.Level{change.OK}, wantInText: "commas"},
		{program: "podman", v: release{5, 0, 0}},
		{program: "podman"},
		{program: "criu", v: release{3, 17, 1}, kernel: release{6, 12, 9}},
		{program: "criu", v: release{3, 17, 1}, kernel: release{6, 13, 0}, want: []change.Level{change.Warn}, wantInText: "criu#2532"},
		{program: "criu", v: release{4, 0, 0}, kernel: release{6, 18, 0}},
		{program: "containerd", v: release{1, 6, 20}, want: []change.Level{change.Warn}, wantInText: "cgroup: pod"},
		{program: "containerd", v: release{1, 7, 1}},
		{program: "dockerd", v: release{28, 0, 0}, want: []change.Level{change.OK}, wantInText: "after createRuntime"},
		{program: "crio", v: release{1, 34, 0}},
		{program: "crio", v: release{1, 27, 4}, want: []change.Level{change.Warn}, wantInText: "cgroup: pod"},
	} {
		t.Run(fmt.Sprint(tc.program, tc.v, tc.kernel, tc.with), func(t *testing.T) {
			var got []change.Level
			var text strings.Builder
			for _, f := range faultsOf(tc.program, tc.v, tc.kernel, func(p string) bool { return p == tc.with }) {
				got = append(got, f.level)
				text.WriteString(f.detail(tc.v) + "\n")
				if (f.remedy == "") != (f.level == change.OK) {
					t.Errorf("%s: level %s, remedy %q", f.what, f.level, f.remedy)
				}
			}
			if !slices.Equal(got, tc.want) || !strings.Contains(text.String(), tc.wantInText) {
				t.Errorf("got %v, want %v with %q:\n%s", got, tc.want, tc.wantInText, &text)
			}
		})
	}
}

// programFile makes an executable shell script.
func programFile(t *testing.T, path, script string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProgramVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, tc := range []struct {
		name, script, want, wantErr string
	}{
		{"first line", "echo; echo 'crun version 1.8.1'; echo 'spec: 1.0.0'", "crun version 1.8.1", ""},
		{"fails", "echo 1.2.3; exit 3", "", "exit status 3"},
		{"says too much", "echo 1.2.3; yes | head -c 1000000", "1.2.3", ""},
		{"leaves a child behind", "echo 1.2.3; sleep 30 &", "", "WaitDelay"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			start := time.Now()
			got, err := programVersion(programFile(t, filepath.Join(dir, tc.name), tc.script))
			if got != tc.want || (err == nil) != (tc.wantErr == "") || err != nil && !strings.Contains(err.Error(), tc.wantErr) {
				t.Errorf("%q, %v", got, err)
			}
			if took := time.Since(start); took > versionTimeout {
				t.Errorf("took %s", took)
			}
		})
	}
	t.Run("hangs", func(t *testing.T) {
		if _, err := programVersion(programFile(t, filepath.Join(dir, "hangs"), "exec sleep 60")); err == nil || !strings.Contains(err.Error(), "does not answer within 5s") {
			t.Error(err)
		}
	})
}

// Programs are looked for on the host that is judged, by no PATH, and those of another
// machine are not run.
func TestDoctorPrograms(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	ran := filepath.Join(elsewhere, "ran")
	programFile(t, filepath.Join(root, "usr/sbin/runc"), "touch "+ran)
	programFile(t, filepath.Join(root, "usr/local/bin/kata-runtime"), "touch "+ran)
	programFile(t, filepath.Join(elsewhere, "crun"), "touch "+ran)
	if err := os.Symlink("usr/sbin", filepath.Join(root, "sbin")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", elsewhere)
	d := &doctor{app: &app{}, host: change.Host{Dir: root}}
	d.checkRuntimes()
	var got []string
	for _, f := range d.findings {
		got = append(got, fmt.Sprintf("%s %s", f.Level, f.What))
	}
	if diff := cmp.Diff([]string{"ok runc", "warn /usr/local/bin/kata-runtime"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a program was run")
	}
}

func TestDoctorUnknownVersion(t *testing.T) {
	dir := t.TempDir()
	none := func(string) bool { return false }
	for _, tc := range []struct{ script, want string }{
		{"echo crun version UNKNOWN", "warn crun: "},
		{"exit 1", "warn crun: "},
		{"echo crun version 1.8.1", "ok crun: 1.8.1, "},
	} {
		d := &doctor{app: &app{}}
		d.checkProgram("crun", programFile(t, filepath.Join(dir, "crun"), tc.script), release{6, 18, 0}, none)
		f := d.findings[0]
		if got := fmt.Sprintf("%s %s: %s", f.Level, f.What, f.Detail); !strings.HasPrefix(got, tc.want) || f.Level != change.OK && f.Remedy == "" {
			t.Errorf("%s: %s; %s", tc.script, got, f.Remedy)
		}
	}
}
