// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/testscript"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// TestCDI runs the scripts of testdata/cdi: what `linkpin install cdi` writes, given
// to containers by the library that docker, podman, containerd and CRI-O use.
func TestCDI(t *testing.T) {
	needTools(t, "runc", "crun", "busybox", "jq", "clang")
	commands := maps.Clone(scriptCommands)
	commands["devices"] = cmdDevices
	for _, host := range []struct {
		name    string
		mode    cgroupMode
		runtime string
	}{
		{"runc-hybrid", hybrid, "runc"},
		{"crun-unified", unified, "crun"},
	} {
		t.Run(host.name, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir:                 "testdata/cdi",
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
				Setup: func(env *testscript.Env) error {
					return setUpScript(env, host.mode, host.runtime)
				},
				Condition: func(cond string) (bool, error) {
					return cond == string(host.mode) || cond == host.runtime, nil
				},
				Cmds: commands,
			})
		})
	}
}

// cmdDevices gives CDI devices to a bundle: devices NAME DEVICE…. Without a device
// it lists those that there are.
func cmdDevices(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 1 {
		ts.Fatalf("usage: devices [NAME DEVICE…]")
	}
	// The default directories, which are the machine's.
	cache, err := cdi.NewCache(cdi.WithAutoRefresh(false))
	ts.Check(err)
	err = cache.Refresh()
	for _, broken := range cache.GetErrors() {
		err = errors.Join(append(broken, err)...)
	}
	if err == nil && len(args) > 0 {
		err = inject(cache, ts.MkAbs(args[0]), args[1:])
	}
	out := ""
	if len(args) == 0 {
		for _, name := range cache.ListDevices() {
			out += name + "\n"
		}
	}
	_, _ = fmt.Fprint(ts.Stdout(), out) // into memory
	if err != nil {
		_, _ = fmt.Fprintln(ts.Stderr(), err)
	}
	expect(ts, neg, err)
}

// inject changes the bundle in dir as runtimes do for devices.
func inject(cache *cdi.Cache, dir string, devices []string) error {
	name := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	spec := &specs.Spec{}
	if err := json.Unmarshal(data, spec); err != nil {
		return err
	}
	if _, err := cache.InjectDevices(spec, devices...); err != nil {
		return err
	}
	if data, err = json.MarshalIndent(spec, "", "  "); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o644)
}
