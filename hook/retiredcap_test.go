// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/entry"
)

// So many entries may drain (docs/ARCHITECTURE.md). Whatever retires one more detaches the
// oldest, and says so: poststop, and createRuntime, which replaces what has ended.
func TestRetiredCap(t *testing.T) {
	const limit = 1024
	if entry.RetiredCap != limit {
		t.Fatalf("RetiredCap is %d, want %d", entry.RetiredCap, limit)
	}
	for _, stage := range []Stage{CreateRuntime, Poststop} {
		t.Run(string(stage), func(t *testing.T) {
			n := newNode(t, deny("p", connect))
			var ended []*container
			for i := range 3 {
				c := newContainer(t, fmt.Sprint("c", i), "")
				n.must(CreateRuntime, c)
				ended = append(ended, c)
			}
			retire := func(c *container) {
				t.Helper()
				c.kill(t) // its cgroup stays, and what is attached to it drains
				if stage == Poststop {
					delete(c.state, "pid")
					n.must(Poststop, c)
					return
				}
				again := newContainer(t, c.state["id"].(string), "")
				again.state["bundle"] = c.state["bundle"]
				n.must(CreateRuntime, again)
			}
			retire(ended[0])
			time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // ages count in seconds
			fillRetired(t, filepath.Join(n.hook.BPFFS.Path, "linkpin/v1/retired"), limit-2)
			retire(ended[1])
			if len(n.warnings) > 0 {
				t.Fatalf("with %d: %v", limit, n.warnings)
			}
			ended[0].wantPrograms(t, 1, 0)
			retire(ended[2])
			if len(n.warnings) != 1 || !strings.Contains(n.warnings[0].Error(), "detached while still draining: more than 1024 entries drain") {
				t.Errorf("with %d: %v", limit+1, n.warnings)
			}
			for i, want := range []int{0, 1, 1} {
				ended[i].wantPrograms(t, want, 0)
			}
		})
	}
}

// fillRetired makes so many retired entries. They are empty, and locked, so that nobody
// takes them away.
func fillRetired(t *testing.T, dir string, n int) {
	t.Helper()
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("%d-ended-%08x_1", time.Now().Unix(), i))
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Fatal(err)
		}
	}
}
