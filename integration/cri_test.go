// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"maps"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestCRI runs the scripts of testdata/cri: pods as a kubelet makes them, with
// Debian's containerd, its CRI plugin, runc and Debian's CNI plugins.
func TestCRI(t *testing.T) {
	needTools(t, "containerd", "ctr", "runc", "umoci", "jq", "busybox", "ip", "bpftool", "clang")
	commands := maps.Clone(scriptCommands)
	commands["containerd"] = cmdContainerd
	commands["cri"] = cmdCRI
	for _, mode := range []cgroupMode{unified, hybrid} {
		t.Run(string(mode), func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir:                 "testdata/cri",
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
				Setup: func(env *testscript.Env) error {
					return setUpCRIScript(env, mode)
				},
				Condition: func(cond string) (bool, error) {
					return cond == string(mode), nil
				},
				Cmds: commands,
			})
		})
	}
}

func setUpCRIScript(env *testscript.Env, mode cgroupMode) error {
	if err := setUpScript(env, mode, "runc"); err != nil {
		return err
	}
	d, err := setUpContainerd(env.Getenv("PATH"))
	if err != nil {
		return err
	}
	env.Values[daemonKey{}] = d
	env.Values[criKey{}] = &criClient{parent: env.Getenv("CGPARENT"), pods: map[string]*cri.PodSandboxConfig{}}
	t, _ := env.T().(testing.TB)
	env.Defer(func() {
		if t != nil && t.Failed() {
			t.Logf("containerd said:\n%s", d.Log())
		}
		if err := d.Kill(); err != nil && t != nil {
			t.Error("containerd:", err)
		}
	})
	return nil
}

// errUsage says that a script uses a command wrongly.
var errUsage = errors.New("wrong arguments; see README.md")
