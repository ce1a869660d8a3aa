// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"testing"
	"time"
)

// What a killed process had pinned in staging is off before the container's programs
// are attached anew: nothing judges twice, and nothing is in the way.
func TestAbandonedStagingIsTakenDownFirst(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	b := &built{want: c.wants("a")[0]}
	if err := f.load(context.Background(), c.sub, b); err != nil {
		t.Fatal(err)
	}
	if err := f.Session.attach(context.Background(), c.sub, b); err != nil {
		t.Fatal(err)
	}
	st, err := f.Root.Stage()
	if err != nil {
		t.Fatal(err)
	}
	if err := st.PinLink("connect4", b.links[0].link); err != nil {
		t.Fatal(err)
	}
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
	if got := attached(t, c.dir, connect4); got != 1 {
		t.Fatalf("%d programs are attached while the process lives", got)
	}

	// While its process lives it is left alone.
	f.dropAbandoned(context.Background())
	if got := attached(t, c.dir, connect4); got != 1 {
		t.Errorf("%d programs are left of what a living process has staged", got)
	}
	st.Leave()
	f.mustAttach(t, c, "a")
	if got := attached(t, c.dir, connect4); got != 1 {
		t.Errorf("%d programs are attached", got)
	}
	if left, err := f.Root.StagingNames(); err != nil || len(left) > 0 {
		t.Errorf("left in staging: %v, %v", left, err)
	}
	if len(f.warnings) > 0 {
		t.Errorf("warned: %v", f.warnings)
	}
}

// gc --wait waits for the kernel to destroy a namespace that nobody uses any more,
// also if no DEL has been called for it.
func TestGCWaitsForADyingNamespace(t *testing.T) {
	f := newFixture(t, interfacePlans(t))
	sb := newSandbox(t, "web", "lpgcw0")
	f.mustAdd(t, sb, "tcx")
	sb.kill(t)
	if r, err := f.GC(context.Background(), GCOptions{Wait: 20 * time.Second}); err != nil || r.Draining != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	emptyState(t, f)
}
