// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
)

// runLinkpin runs one command line in this process.
func runLinkpin(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = Run(context.Background(), Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Version: "test"}, args)
	return code, out.String(), errs.String()
}

// openFiles counts the descriptors of this process.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestDoctorLeavesNothing(t *testing.T) {
	bpffs := bpftest.TempBPFFS(t)
	args := []string{"doctor", "--bpffs", bpffs, "--state", filepath.Join(t.TempDir(), "state")}
	runLinkpin(t, args...) // opens what stays open, as the poller does
	before := openFiles(t)
	code, stdout, stderr := runLinkpin(t, args...)
	if code != 1 || stderr != "" || !strings.Contains(stdout, "hooks work") {
		t.Errorf("exit code %d, stderr %q, stdout:\n%s", code, stderr, stdout)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors became %d", before, after)
	}
	left, err := filepath.Glob(filepath.Join(bpftest.Cgroup2Mount(t), fmt.Sprintf("linkpin-doctor-%d-*", os.Getpid())))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if entries, err := os.ReadDir(filepath.Join(bpffs, "linkpin")); err == nil {
		t.Errorf("in bpffs: %v", entries)
	}
}

// Every kind of link is really made: what is broken is found.
func TestDoctorProbes(t *testing.T) {
	a := &app{Env: Env{Stdout: new(strings.Builder), Stderr: new(strings.Builder)}}
	d := &doctor{app: a}
	missing := d.checkLinks(bpftest.Cgroup2Mount(t))
	for _, hook := range specs.Hooks() {
		if err := missing[hook]; err != nil && hook != "lsm_cgroup" { // some machines have no trampolines
			t.Errorf("%s: %v", hook, err)
		}
	}
	d = &doctor{app: a}
	d.checkLinks(t.TempDir())
	if len(d.findings) == 0 || d.findings[0].Level != change.Fail {
		t.Errorf("a directory that is no cgroup: %v", d.findings)
	}
	// A program that is refused is a finding, not a failure of doctor.
	s := scratch{}
	if err := s.try("cgroup/nothing"); err == nil {
		t.Error("an unknown hook works")
	}
}

func TestDoctorNeedsHooks(t *testing.T) {
	a := &app{Env: Env{Stdout: new(strings.Builder), Stderr: new(strings.Builder)}}
	dir := t.TempDir()
	file := filepath.Join(dir, "p.yaml")
	text := "apiVersion: linkpin.io/v1\nkind: Policy\nmetadata: {name: meter}\nobject: {builtin: meter}\nselect: {all: true}\nonError: deny\n...\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(t.TempDir(), "state")
	if code, _, stderr := runLinkpin(t, "policy", "apply", "--dir", dir, "--state", state); code != 0 {
		t.Fatal(stderr)
	}
	a.roots.state = state
	d := &doctor{app: a}
	d.checkApplied(map[specs.Hook]error{"cgroup_skb/egress": os.ErrInvalid})
	if len(d.findings) == 0 || d.findings[0].Level != change.Fail || d.findings[0].What != "policy meter" || !strings.Contains(d.findings[0].Detail, "cgroup_skb/egress") {
		t.Errorf("%+v", d.findings)
	}
}

func TestCgroupMounts(t *testing.T) {
	for text, want := range map[string]struct {
		v2 string
		v1 bool
	}{
		"30 20 0:26 / /sys/fs/cgroup rw - cgroup2 none rw\n":                                                   {"/sys/fs/cgroup", false},
		"30 20 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw\n":                                              {"", true},
		"1 2 0:1 / /a/cpu rw - cgroup c rw\n3 2 0:2 / /a/uni\\040fied rw shared:1 - cgroup2 c rw\n":            {"/a/uni fied", true},
		"3 2 0:2 /sub /a/bind rw - cgroup2 c rw\nnonsense\n3 2 0:2 / /a/whole rw - cgroup2 c rw\n - cgroup2 x": {"/a/whole", false},
	} {
		file := filepath.Join(t.TempDir(), "mountinfo")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		v2, v1, err := cgroupMounts(file)
		if err != nil || v2 != want.v2 || v1 != want.v1 {
			t.Errorf("%q: %q %v %v", text, v2, v1, err)
		}
	}
}

// docker takes part only by devices, and only if some are offered.
func TestDoctorDocker(t *testing.T) {
	bin := programs(t)
	for _, tc := range []struct {
		name  string
		files []string
		want  []change.Level
	}{
		{"no docker", nil, nil},
		{"nothing offered", []string{"usr/bin/dockerd"}, []change.Level{change.Warn}},
		{"devices", []string{"usr/bin/dockerd", "etc/cdi/linkpin.io-policy.yaml"}, []change.Level{change.OK}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			for _, f := range tc.files {
				path := filepath.Join(root, f)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				text := "cdiVersion: 0.3.0\nkind: linkpin.io/policy\ndevices: [{name: a, containerEdits: {hooks: [{hookName: createRuntime, path: /usr/bin/linkpin-hook}]}}]\n"
				if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			d := &doctor{app: &app{Env: Env{Programs: bin}}, host: change.Host{Dir: root}}
			targets, err := d.targets(d.host)
			if err != nil {
				t.Fatal(err)
			}
			d.checkDocker(targets)
			var got []change.Level
			for _, f := range d.findings {
				got = append(got, f.Level)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("findings %+v, want levels %v", d.findings, tc.want)
			}
		})
	}
}
