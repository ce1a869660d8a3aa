// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// slowPlans takes its time to hand out plans and objects.
type slowPlans struct {
	plans
	delay time.Duration
}

func (p slowPlans) Plan(name string) (*specs.Plan, string, error) {
	time.Sleep(p.delay)
	return p.plans.Plan(name)
}

func (p slowPlans) Object(sha256 string) ([]byte, error) {
	time.Sleep(p.delay)
	return p.plans.Object(sha256)
}

func TestPastTheDeadlineNothingIsPinned(t *testing.T) {
	ps := plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))}
	f := newFixture(t, ps)
	f.Plans = slowPlans{ps, 30 * time.Millisecond}
	c := newContainer(t, "web")
	l := f.lock(t, pin.Container(c.key))
	defer l.Release()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := f.Attach(ctx, c.sub, c.wants("a")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	emptyState(t, f)

	// The same between loading and attaching.
	b := &built{want: c.wants("a")[0]}
	defer b.close()
	if err := f.load(context.Background(), c.sub, b); err != nil {
		t.Fatal(err)
	}
	if err := f.Session.attach(ctx, c.sub, b); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("attaching: %v", err)
	}
	if got := attached(t, c.dir, connect4); got != 0 {
		t.Errorf("%d programs stayed attached", got)
	}
}

// The deadlines are those of the invocation, not of each policy.
func TestDeadlinesAreShared(t *testing.T) {
	ps := plans{}
	var names []string
	for _, name := range []string{"a", "b", "c", "d"} {
		ps[name] = plan(t, name, program("connect4", "cgroup/connect4"))
		names = append(names, name)
	}
	f := newFixture(t, ps)
	c := newContainer(t, "web")
	l := f.lock(t, pin.Container(c.key))
	defer l.Release()
	f.Plans = slowPlans{ps, 30 * time.Millisecond}
	f.loadTimeout = 80 * time.Millisecond
	if _, err := f.Attach(context.Background(), c.sub, c.wants(names...)); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "loading took more than") {
		t.Fatalf("got %v", err)
	}
	emptyState(t, f)
	if _, err := f.Attach(context.Background(), c.sub, c.wants("a")); err != nil {
		t.Errorf("one policy alone: %v", err)
	}
}

// What was moved while it was attached to is not published.
func TestRecheckIsAskedBeforePublishing(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	moved := errors.New("moved")
	seen := -1
	c.sub.Recheck = func() error {
		seen = attached(t, c.dir, connect4)
		emptyState(t, f)
		return moved
	}
	if err := f.attach(t, c, "a"); !errors.Is(err, moved) {
		t.Fatalf("got %v", err)
	}
	if seen != 1 {
		t.Errorf("asked with %d programs attached, want 1", seen)
	}
	emptyState(t, f)
	if got := attached(t, c.dir, connect4); got != 0 {
		t.Errorf("%d programs stayed attached", got)
	}
}

// Half a policy is none: neither before publishing nor while it goes on.
func TestAllowIsLeftOutAsAWhole(t *testing.T) {
	f := newFixture(t, plans{
		"a":     plan(t, "a", program("connect4", "cgroup/connect4")),
		"other": plan(t, "other", program("connect4", "cgroup/connect4")),
	})
	c := newContainer(t, "web")
	l := f.lock(t, pin.Container(c.key))
	defer l.Release()
	wants := append(c.wants("a"), c.wants("other", "a")...) // the third finds the first in its place
	for i := range wants {
		wants[i].OnError = specs.Allow
	}
	published, err := f.Attach(context.Background(), c.sub, wants)
	if err != nil || len(published) != 1 || published[0].Policy() != "other" {
		t.Fatalf("published %v, %v", published, err)
	}
	if live, _ := f.entries(t); live != 1 {
		t.Errorf("%d entries, want 1", live)
	}
	if got := attached(t, c.dir, connect4); got != 1 {
		t.Errorf("%d programs, want 1", got)
	}
}

// The oldest of too many entries that drain are detached, and it is said.
func TestRetiredCap(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	f.retiredCap = 2
	var all []*container
	for _, id := range []string{"a", "b", "c"} {
		c := newContainer(t, id)
		f.mustAttach(t, c, "a")
		all = append(all, c)
	}
	for i, c := range all {
		if len(f.warnings) > 0 {
			t.Fatalf("too early: %v", f.warnings)
		}
		c.end(t)
		if i > 0 {
			time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // their age counts in seconds
		}
		if _, err := f.EndContainer(context.Background(), c.key); err != nil {
			t.Fatal(err)
		}
	}
	if _, retired := f.entries(t); retired != 2 || len(f.warnings) != 1 {
		t.Errorf("%d retired, warnings %v", retired, f.warnings)
	}
	for i, want := range []int{0, 1, 1} {
		if got := attached(t, all[i].dir, connect4); got != want {
			t.Errorf("container %d: %d programs, want %d", i, got, want)
		}
	}
}

// countingPlans counts what is read.
type countingPlans struct {
	plans
	plan, object *int
}

func (p countingPlans) Plan(name string) (*specs.Plan, string, error) {
	*p.plan++
	return p.plans.Plan(name)
}

func (p countingPlans) Object(sha256 string) ([]byte, error) {
	*p.object++
	return p.plans.Object(sha256)
}

// However many entries a policy has, its plan and object are read once.
func TestEverythingIsReadOnce(t *testing.T) {
	ps := plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"), program("read_ifindex", specs.HookTCXIngress, onHost))}
	f := newFixture(t, ps)
	var read, objects int
	f.Plans = countingPlans{ps, &read, &objects}
	s, c := newSandbox(t, "", "lpone0"), newContainer(t, "web")
	key, lock, err := f.LockSandbox(context.Background(), s.sub.Netns, "")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	l := f.lock(t, pin.Container(c.key))
	defer l.Release()
	wants := append(onInterface(s, "a")(key), c.wants("a")...)
	if _, err := f.Attach(context.Background(), c.sub, wants); err != nil {
		t.Fatal(err)
	}
	if read != 1 || objects != 1 {
		t.Errorf("%d plans and %d objects read, want 1 and 1", read, objects)
	}
}

// What CNI was called for names the interface in the record of a namespace program,
// and fills none of its holes: the hook would have nothing to fill them with.
func TestValuesOfANamespaceProgram(t *testing.T) {
	w := Want{Kind: specs.TargetInterface, Interface: &target.Interface{Device: target.Device{Index: 7}}}
	if v := values(&Subject{}, w); v.Ifindex != 7 {
		t.Errorf("interface: ifindex %d, want 7", v.Ifindex)
	}
	w.Kind = specs.TargetNetns
	if v := values(&Subject{}, w); v.Ifindex != 0 {
		t.Errorf("namespace: ifindex %d, want none", v.Ifindex)
	}
	w.Kind, w.Cgroup = specs.TargetPodCgroup, &target.Cgroup{ID: 5}
	if v := values(&Subject{Cgroup: &target.Cgroup{ID: 6}}, w); v.Ifindex != 0 || v.CgroupID != 5 {
		t.Errorf("pod's cgroup: ifindex %d, cgroup %d; want none and 5", v.Ifindex, v.CgroupID)
	}
}
