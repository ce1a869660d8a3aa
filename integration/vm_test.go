// SPDX-License-Identifier: Apache-2.0

//go:build vm

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestVM runs inside of the machine that `make test-vm` boots: a kernel without TCX
// and netfilter links, but with all cgroup controllers, BPF LSM and trampolines.
// vm/scripts lists the scripts.
func TestVM(t *testing.T) {
	needTools(t, "runc", "crun", "busybox", "ip", "tc", "bpftool", "jq")
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			t.Parallel()
			testscript.Run(t, testscript.Params{
				Files:               vmScripts(t, runtime),
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
				Setup: func(env *testscript.Env) error {
					return setUpScript(env, unified, runtime)
				},
				Condition: func(cond string) (bool, error) {
					return cond == string(unified) || cond == runtime, nil
				},
				Cmds: scriptCommands,
			})
		})
	}
}

// vmScripts returns the scripts for a runtime.
func vmScripts(t *testing.T, runtime string) []string {
	t.Helper()
	list, err := os.ReadFile("vm/scripts")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, name := range vmList(string(list), runtime, os.Getenv("LINKPIN_VM_ALL")) {
		file := filepath.Join("vm/testdata", name+".txtar")
		if _, err := os.Stat(file); err != nil {
			file = filepath.Join("testdata", name+".txtar")
		}
		files = append(files, file)
	}
	return files
}

// vmList returns the names that a list has for a runtime; those marked "all" only if
// all is not empty. "#" begins a comment.
func vmList(list, runtime, all string) []string {
	var names []string
	for line := range strings.Lines(list) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != runtime || len(fields) > 2 && all == "" {
			continue
		}
		names = append(names, fields[1])
	}
	return names
}
