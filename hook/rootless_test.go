// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs"
)

// A user's own podman reads the hook directories of root's. Its containers start,
// unless they have asked for what they can't get.
func TestRootless(t *testing.T) {
	for _, tc := range []struct {
		name, uidMap, annotation string
		caller                   specs.Caller
		requests                 []string
		starts                   bool // without policies
		refused                  error
	}{
		{name: "user's podman", caller: specs.CallerPodman, uidMap: "         0       1000          1\n         1     100000      65536\n", starts: true},
		{name: "it asked", caller: specs.CallerPodman, uidMap: "0 1000 1\n", annotation: "web", refused: ErrRootless},
		{name: "a device asked", caller: specs.CallerCDI, uidMap: "0 1000 1\n", requests: []string{"web"}, refused: ErrRootless},
		{name: "blank", caller: specs.CallerPodman, uidMap: "0 1000 1\n", annotation: " ", starts: true},
		{name: "root's podman", caller: specs.CallerPodman, uidMap: "         0          0 4294967295\n"},
		{name: "all of Kubernetes in a user namespace", caller: specs.CallerContainerd, uidMap: "0 1000 1\n"},
		{name: "nobody said podman", caller: specs.CallerNone, uidMap: "0 1000 1\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNode(t) // without an applied set everybody is refused
			proc := t.TempDir()
			if err := os.Mkdir(filepath.Join(proc, "self"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(proc, "self/uid_map"), []byte(tc.uidMap), 0o600); err != nil {
				t.Fatal(err)
			}
			n.hook.Roots.Proc, n.hook.Caller, n.hook.Requests = proc, tc.caller, tc.requests
			c := newContainer(t, "web", "")
			if tc.annotation != "" {
				c.state["annotations"] = map[string]string{specs.OptInAnnotation: tc.annotation}
			}
			err := n.create(c)
			switch {
			case tc.starts:
				if err != nil || len(n.warnings) != 1 || !errors.Is(n.warnings[0], ErrRootless) {
					t.Errorf("got %v, warnings %v", err, n.warnings)
				}
			case tc.refused != nil:
				if !errors.Is(err, tc.refused) || !strings.Contains(err.Error(), "root's podman") {
					t.Errorf("got %v, want %v", err, tc.refused)
				}
			default:
				if err == nil || errors.Is(err, ErrRootless) {
					t.Errorf("got %v, want the refusal of everybody", err)
				}
			}
		})
	}
}
