// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"fmt"
	"testing"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

// One invocation pays for a few entries, however many there are, and so many invocations
// heal a node.
func TestSweepIsBounded(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	const total = 6 * sweepSize
	for i := range total {
		c := newContainer(t, fmt.Sprint("c", i))
		f.mustAttach(t, c, "a")
		c.end(t)
		c.sub.Cgroup.Close()
		bpftest.RemoveCgroup(t, c.dir)
	}
	left := func() int {
		t.Helper()
		keys, err := f.Root.Containers()
		if err != nil {
			t.Fatal(err)
		}
		return len(keys)
	}
	before, calls := left(), 0
	for before > 0 {
		if calls++; calls > 100*total {
			t.Fatalf("%d containers are left after %d sweeps", before, calls)
		}
		f.Sweep(context.Background())
		now := left()
		if before-now > sweepSize {
			t.Fatalf("one sweep took %d containers, at most %d", before-now, sweepSize)
		}
		before = now
	}
}
