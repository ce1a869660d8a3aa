// SPDX-License-Identifier: Apache-2.0

package cost

import (
	"os"
	"path/filepath"
	"testing"
)

// Whatever a runtime calls linkpin for, a container that has ended and that nobody has
// torn down is taken away by it, after a few calls at most. So it is if there is no policy
// for the container that it is called for. (CNI's CHECK and STATUS change nothing, and GC
// takes away everything.)
func TestEveryInvocationSweeps(t *testing.T) {
	for name, c := range map[string]struct {
		what  call
		plain bool // there are no policies for the container
	}{
		"createRuntime":                   {createRuntime, false},
		"createRuntime, without policies": {createRuntime, true},
		"poststop":                        {poststop, false}, // of a container that still runs
		"ADD":                             {add, false},
		"ADD, without policies":           {add, true},
		"DEL":                             {del, false}, // of an interface that was never added
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			ended, other := n.container(t), n.container(t)
			ended.run(t, createRuntime)
			if c.what == poststop {
				other.run(t, createRuntime)
			}
			if c.plain {
				other.policies, other.network = "no", "other"
			}
			ended.kill(t)
			// Two of at most two containers are looked at: one call is enough. A process that is
			// about to end, or a lock that somebody holds, may take another.
			const few = 5
			for calls := 1; ; calls++ {
				other.run(t, c.what)
				entries, err := filepath.Glob("/sys/fs/bpf/linkpin/v1/containers/" + ended.id + "-*")
				if err != nil {
					t.Fatal(err)
				}
				if len(entries) == 0 {
					return
				}
				if calls == few {
					all, _ := os.ReadDir("/sys/fs/bpf/linkpin/v1/containers")
					t.Fatalf("after %d calls of %s it is still there, among %v", calls, c.what, all)
				}
			}
		})
	}
}
