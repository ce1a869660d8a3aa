// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"testing"
	"time"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
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
	st, err := f.Root.StageFor(b.target(c.sub))
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
	f.dropAbandoned(context.Background(), targets(c.sub, c.wants("a"))...)
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

// What is of other targets, as its name says, is left to sweeps and gc: its number says
// nothing about what a container costs.
func TestAbandonedStagingOfOthersIsNotLookedAt(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	stage := func(on pin.Target) {
		t.Helper()
		st, err := f.Root.StageFor(on)
		if err != nil {
			t.Fatal(err)
		}
		st.Leave()
	}
	for _, on := range []pin.Target{{Cgroup: c.sub.Cgroup.ID + 1}, {Netns: c.sub.Cgroup.ID}} {
		stage(on)
	}
	stage(pin.Target{Cgroup: c.sub.Cgroup.ID})
	stage(pin.Target{}) // may be of anybody
	f.mustAttach(t, c, "a")
	names, err := f.Root.StagingNames()
	if err != nil || len(names) != 2 {
		t.Fatalf("left in staging: %v, %v; want what is of others", names, err)
	}
	for _, name := range names {
		if on := pin.StagingTarget(name); on == (pin.Target{}) || on.Cgroup == c.sub.Cgroup.ID {
			t.Errorf("left: %s", name)
		}
	}
	if _, err := f.GC(context.Background(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	if names, err := f.Root.StagingNames(); err != nil || len(names) > 0 {
		t.Errorf("gc left in staging: %v, %v", names, err)
	}
}

// Where it can't be told for sure what links will be on, names don't say it.
func TestTargetsOfWants(t *testing.T) {
	ns, cg := &target.Netns{Cookie: 7}, &target.Cgroup{ID: 8}
	sub := &Subject{Netns: ns, Cgroup: cg}
	dies, outlives := &target.Interface{DiesWithNetns: true}, &target.Interface{}
	for _, c := range []struct {
		want Want
		on   pin.Target
	}{
		{Want{Kind: specs.TargetCgroup}, pin.Target{Cgroup: 8}},
		{Want{Kind: specs.TargetPodCgroup, Cgroup: &target.Cgroup{ID: 9}}, pin.Target{Cgroup: 9}},
		{Want{Kind: specs.TargetInterface, Interface: dies}, pin.Target{Netns: 7}},
		{Want{Kind: specs.TargetInterface, Interface: outlives}, pin.Target{}},
		{Want{Kind: specs.TargetNetns}, pin.Target{Netns: 7}},
	} {
		if on := c.want.target(sub); on != c.on {
			t.Errorf("%s: %+v, want %+v", c.want.Kind, on, c.on)
		}
	}
	traced := &built{want: Want{Kind: specs.TargetCgroup}, chosen: []choice{{attachment: specs.Attachment{Hook: specs.HookTPBTF}}}}
	if on := traced.target(sub); on != (pin.Target{}) {
		t.Errorf("tracing: %+v", on)
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
