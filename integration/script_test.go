// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs every script once on each kind of host.
func TestScripts(t *testing.T) {
	needTools(t, "runc", "crun", "busybox", "ip", "bpftool", "clang")
	for _, host := range []struct {
		name    string
		mode    cgroupMode
		runtime string
	}{
		{"runc-hybrid", hybrid, "runc"},
		{"runc-unified", unified, "runc"},
		{"crun-unified", unified, "crun"}, // crun refuses hybrid cgroups
	} {
		t.Run(host.name, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir:                 "testdata",
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
				Setup: func(env *testscript.Env) error {
					return setUpScript(env, host.mode, host.runtime)
				},
				Condition: func(cond string) (bool, error) {
					return cond == string(host.mode) || cond == host.runtime, nil
				},
				Cmds: scriptCommands,
			})
		})
	}
}

// setUpScript gives a script its machine. testscript calls it in the goroutine
// that runs the script's commands, so all of them are inside.
func setUpScript(env *testscript.Env, mode cgroupMode, runtime string) error {
	m, err := newMachine(mode)
	if err != nil {
		return err
	}
	t, _ := env.T().(testing.TB)
	env.Defer(func() {
		if err := m.Close(); err != nil && t != nil {
			t.Error("the machine left something behind:", err)
		}
	})
	if err := m.Enter(); err != nil {
		return err
	}
	// Created by somebody other than linkpin, writable for nobody but root.
	if err := os.Chmod(env.WorkDir, 0o755); err != nil {
		return err
	}
	env.Setenv("PATH", built.bin+":"+env.Getenv("PATH"))
	env.Setenv("BIN", built.bin)
	// The race detector otherwise lets every short-lived tool wait a second at its end.
	env.Setenv("GORACE", "atexit_sleep_ms=0")
	env.Setenv("OBJECTS", built.policies+"/objects")
	env.Setenv("UNITS", filepath.Join(built.testdata, "../../systemd"))
	env.Setenv("RUNTIME", runtime)
	env.Setenv("CG2", mode.mount())
	env.Setenv("CGPARENT", m.parent)
	env.Setenv("STATE", "/sys/fs/bpf/linkpin/v1")
	env.Values[machineKey{}] = m
	return nil
}

type machineKey struct{}

// scriptMachine returns the machine of a running script.
func scriptMachine(ts *testscript.TestScript) *machine {
	m, ok := ts.Value(machineKey{}).(*machine)
	if !ok {
		ts.Fatalf("this script has no machine")
	}
	return m
}

// TestScriptsAreLockedIn checks what every script relies on: that its commands
// run in the machine and nowhere else.
func TestScriptsAreLockedIn(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "locked-in.txtar")
	host, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	marker := fmt.Sprintf("linkpin-test-%d", os.Getpid())
	text := strings.NewReplacer("HOST", regexp.QuoteMeta(host), "MARKER", marker).Replace(`
exec readlink /proc/self/ns/mnt
! stdout HOST
! exists /etc/linkpin /var/lib/linkpin /sys/fs/bpf/linkpin
exec mkdir /etc/MARKER /opt/MARKER /usr/local/MARKER /var/lib/MARKER /run/MARKER /sys/fs/bpf/MARKER
exists /etc/MARKER /var/lib/MARKER
exec sh -c 'sleep 600 >/dev/null 2>&1 & echo $! >$WORK/pid'
`)
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []cgroupMode{hybrid, unified} {
		t.Run(string(mode), func(t *testing.T) {
			testscript.Run(t, testscript.Params{Files: []string{script}, Setup: func(env *testscript.Env) error {
				return setUpScript(env, mode, "runc")
			}})
		})
	}
	for _, dir := range []string{"/etc", "/opt", "/usr/local", "/var/lib", "/run", "/sys/fs/bpf"} {
		if _, err := os.Stat(filepath.Join(dir, marker)); err == nil {
			t.Errorf("a script made a directory in %s of the host", dir)
		}
	}
}
