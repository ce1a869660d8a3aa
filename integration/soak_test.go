// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"flag"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// soakContainers is how many containers TestSoak starts. `make soak` asks for 2,000.
var soakContainers = flag.Int("soak.containers", 48, "containers that TestSoak starts")

// TestSoak starts and ends containers with real runc and a real CNI plugin, and kills
// whoever is at work.
func TestSoak(t *testing.T) {
	needTools(t, "runc", "busybox", "ip", "clang")
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/soak",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("SOAK", strconv.Itoa(*soakContainers))
			return setUpScript(env, unified, "runc")
		},
		Cmds: scriptCommands,
	})
}
