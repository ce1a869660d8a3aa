// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

const connect4 = ebpf.AttachCGroupInet4Connect

func TestAttachPublishesAndEndRetires(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"), program("read_cgroup", "cgroup_skb/egress"))})
	c := newContainer(t, "web")
	f.mustAttach(t, c, "a")
	if got := attached(t, c.dir, connect4); got != 1 {
		t.Fatalf("%d programs at connect4, want 1", got)
	}
	item, ok := f.Look(pin.ContainerEntry(c.key, "a"))
	if !ok || item.Err != nil {
		t.Fatalf("no entry: %v", item.Err)
	}
	if len(item.Record.Programs) != 2 || item.Record.Cgroup.ID != bpftest.CgroupID(t, c.dir) || item.Record.Digest != "digest-a" {
		t.Errorf("record: %+v", item.Record)
	}

	// A container that runs keeps its entry, whoever says that it has stopped.
	if _, err := f.EndContainer(context.Background(), c.key); err != nil {
		t.Fatal(err)
	}
	if live, retired := f.entries(t); live != 1 || retired != 0 {
		t.Fatalf("poststop of a running container: %d live, %d retired", live, retired)
	}
	c.end(t)
	for range 2 { // a runtime may call poststop twice
		if _, err := f.EndContainer(context.Background(), c.key); err != nil {
			t.Fatal(err)
		}
	}
	if live, _ := f.entries(t); live != 0 {
		t.Errorf("%d live entries after the end", live)
	}
	// The cgroup still exists, so the link drains.
	if got := attached(t, c.dir, connect4); got != 1 {
		t.Errorf("%d programs at connect4 while the cgroup exists, want 1", got)
	}
}

// A cgroup that is used again, under the same id or another one, has the programs of
// its new container only, also if the old ones were retired meanwhile.
func TestReusedCgroupDoesNotInherit(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	f.mustAttach(t, c, "a")
	// Not by cgroup.kill: the kernel would kill whoever is started in the cgroup next.
	if err := syscall.Kill(c.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	bpftest.Eventually(t, "cgroup is empty", func() error {
		populated, err := c.sub.Cgroup.Populated()
		if err == nil && populated {
			err = errors.New("still populated")
		}
		return err
	})
	if _, err := f.EndContainer(context.Background(), c.key); err != nil {
		t.Fatal(err)
	}
	if live, retired := f.entries(t); live != 0 || retired != 1 {
		t.Fatalf("%d live, %d retired; the cgroup still exists", live, retired)
	}
	other := newContainer(t, "other")
	f.mustAttach(t, other, "a")
	if got := attached(t, c.dir, connect4); got != 1 {
		t.Errorf("another container has taken down what drains: %d programs", got)
	}
	again := subject(t, "again", c.dir, bpftest.CgroupProcess(t, c.dir).Pid)
	f.mustAttach(t, again, "a")
	if got := attached(t, c.dir, connect4); got != 1 {
		t.Errorf("%d programs at connect4, want those of the new container only", got)
	}
	if live, retired := f.entries(t); live != 2 || retired != 0 {
		t.Errorf("%d live, %d retired", live, retired)
	}
}

// A container without policies inherits nothing, either: not what its cgroup's
// container before has retired, nor what is still recorded under its id.
func TestDisinherit(t *testing.T) {
	for _, retired := range []bool{false, true} {
		f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
		c := newContainer(t, "web")
		f.mustAttach(t, c, "a")
		if err := f.Disinherit(context.Background(), c.key, c.sub); err != nil {
			t.Fatal(err)
		}
		if got := attached(t, c.dir, connect4); got != 1 {
			t.Fatalf("%d programs: what another hook has attached to the same process must stay", got)
		}
		if err := syscall.Kill(c.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		bpftest.Eventually(t, "the process has ended", func() error {
			_, err := target.StartTime(target.Roots{}, c.pid)
			if err == nil {
				return errors.New("it has not")
			}
			return nil
		})
		if retired {
			if _, err := f.EndContainer(context.Background(), c.key); err != nil {
				t.Fatal(err)
			}
		}
		next := subject(t, "web", c.dir, bpftest.CgroupProcess(t, c.dir).Pid)
		if err := f.Disinherit(context.Background(), next.key, next.sub); err != nil {
			t.Fatal(err)
		}
		if got := attached(t, c.dir, connect4); got != 0 {
			t.Errorf("retired %v: %d programs of the container before", retired, got)
		}
		emptyState(t, f)
	}
}

// What another hook of the same container has attached, and somebody has taken off in
// between, is attached again; it is never dropped in silence.
func TestAnotherHooksPolicyIsMended(t *testing.T) {
	f := newFixture(t, plans{
		"a": plan(t, "a", program("connect4", "cgroup/connect4")),
		"b": plan(t, "b", program("read_cgroup", "cgroup_skb/egress")),
	})
	c := newContainer(t, "web")
	f.mustAttach(t, c, "a")
	e, err := f.Root.Entry(pin.ContainerEntry(c.key, "a"))
	if err != nil {
		t.Fatal(err)
	}
	withLink(t, e.LinkPath("connect4"), func(l *attach.Link) error { return l.Detach() })
	if got := attached(t, c.dir, connect4); got != 0 {
		t.Fatalf("%d programs", got)
	}
	l := f.lock(t, pin.Container(c.key))
	defer l.Release()
	if _, err := f.ClaimContainer(context.Background(), c.key, c.sub, map[string]string{"a": "", "b": "digest-b"}); err != nil {
		t.Fatal(err)
	}
	if got := attached(t, c.dir, connect4); got != 1 {
		t.Errorf("%d programs of the other hook's policy, want it mended", got)
	}
	// In another cgroup it can't be: the container is refused.
	moved := *c.sub
	other := newContainer(t, "other")
	moved.Cgroup = other.sub.Cgroup
	if _, err := f.ClaimContainer(context.Background(), c.key, &moved, map[string]string{"a": "", "b": "digest-b"}); err == nil || !strings.Contains(err.Error(), "another hook") {
		t.Errorf("got %v", err)
	}
}

// A retired entry that can't be read, of whatever cgroup, keeps nobody from starting.
func TestUnreadableRetiredEntry(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	f.mustAttach(t, c, "a")
	c.end(t)
	if _, err := f.EndContainer(context.Background(), c.key); err != nil {
		t.Fatal(err)
	}
	places, err := f.Root.Retired()
	if err != nil || len(places) != 1 {
		t.Fatalf("%v, %v", places, err)
	}
	if err := os.Remove(f.Root.Path() + "/" + places[0].String() + "/meta"); err != nil {
		t.Fatal(err)
	}
	f.mustAttach(t, newContainer(t, "other"), "a")
	if got := attached(t, c.dir, connect4); got != 1 {
		t.Errorf("%d programs drain, want 1", got)
	}
}

func TestTeardownDetachGoesAtOnce(t *testing.T) {
	p := plan(t, "a", program("connect4", "cgroup/connect4"))
	p.Teardown = specs.Detach
	f := newFixture(t, plans{"a": p})
	c := newContainer(t, "web")
	f.mustAttach(t, c, "a")
	c.end(t)
	if _, err := f.EndContainer(context.Background(), c.key); err != nil {
		t.Fatal(err)
	}
	emptyState(t, f)
	if got := attached(t, c.dir, connect4); got != 0 {
		t.Errorf("%d programs at connect4, want 0", got)
	}
}

func TestDenyLeavesNothing(t *testing.T) {
	f := newFixture(t, plans{
		"good": plan(t, "good", program("connect4", "cgroup/connect4")),
		"bad":  plan(t, "bad", program("wild", "cgroup_skb/egress")), // another type than its hook takes
	})
	c := newContainer(t, "web")
	if err := f.attach(t, c, "good", "bad"); err == nil {
		t.Fatal("a policy that can't be loaded was attached")
	}
	emptyState(t, f)
	if got := attached(t, c.dir, connect4); got != 0 {
		t.Errorf("%d programs stayed attached", got)
	}
}

// A failure after the first entry was published takes that one back.
func TestFailureWhilePublishingUndoes(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	l := f.lock(t, pin.Container(c.key))
	defer l.Release()
	wants := append(c.wants("a"), c.wants("a")...) // the second finds the first in its place
	if _, err := f.Attach(context.Background(), c.sub, wants); !errors.Is(err, pin.ErrExist) {
		t.Fatalf("got %v, want ErrExist", err)
	}
	if live, _ := f.entries(t); live != 0 {
		t.Errorf("%d entries stayed published", live)
	}
	if got := attached(t, c.dir, connect4); got != 0 {
		t.Errorf("%d programs stayed attached", got)
	}
}

func TestAllowStartsWithoutThePolicy(t *testing.T) {
	f := newFixture(t, plans{
		"good": plan(t, "good", program("connect4", "cgroup/connect4")),
		"bad":  plan(t, "bad", program("wild", "cgroup_skb/egress")),
	})
	c := newContainer(t, "web")
	wants := c.wants("bad", "good")
	wants[0].OnError = specs.Allow
	l := f.lock(t, pin.Container(c.key))
	defer l.Release()
	published, err := f.Attach(context.Background(), c.sub, wants)
	if err != nil || len(published) != 1 || published[0].Policy() != "good" {
		t.Fatalf("published %v, %v", published, err)
	}
	if len(f.warnings) != 1 {
		t.Errorf("warnings: %v", f.warnings)
	}
}

// The second of prestart and createRuntime finds everything in place.
func TestClaimKeepsTheSameContainer(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	f.mustAttach(t, c, "a")
	f.mustAttach(t, c, "a")
	if got := attached(t, c.dir, connect4); got != 1 {
		t.Errorf("%d programs at connect4, want 1", got)
	}
}

func TestClaimRefusesAnotherRunningContainer(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	first, second := newContainer(t, "web"), newContainer(t, "web")
	f.mustAttach(t, first, "a")
	if err := f.attach(t, second, "a"); !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v, want ErrInUse", err)
	}
	if got := attached(t, second.dir, connect4); got != 0 {
		t.Errorf("%d programs at the refused container", got)
	}
	if got := attached(t, first.dir, connect4); got != 1 {
		t.Errorf("%d programs at the first container, want 1", got)
	}
}

// A recycled id inherits nothing: poststop never came, the cgroup is empty.
func TestClaimStartsCleanAfterTheOldOneEnded(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	first, second := newContainer(t, "web"), newContainer(t, "web")
	f.mustAttach(t, first, "a")
	first.end(t)
	f.mustAttach(t, second, "a")
	item, _ := f.Look(pin.ContainerEntry(second.key, "a"))
	if item.Record == nil || item.Record.Cgroup.ID != bpftest.CgroupID(t, second.dir) {
		t.Errorf("record: %+v, %v", item.Record, item.Err)
	}
	if live, retired := f.entries(t); live != 1 || retired != 1 {
		t.Errorf("%d live, %d retired; want 1 and 1", live, retired)
	}
}

// Cgroup links are severed when the kernel lets go of the cgroup; gc then finds
// nothing to keep.
func TestGCLeavesNothingOfADeadContainer(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	dead := newContainer(t, "dead")
	alive := newContainer(t, "alive")
	f.mustAttach(t, dead, "a")
	f.mustAttach(t, alive, "a")
	dead.end(t)
	preview, err := f.Preview()
	if err != nil || len(preview) != 1 || preview[0].Record.Identity.ContainerID != "dead" {
		t.Errorf("preview: %v, %v", preview, err)
	}
	if live, _ := f.entries(t); live != 2 {
		t.Fatalf("a preview changed something: %d live", live)
	}
	dead.sub.Cgroup.Close()
	bpftest.RemoveCgroup(t, dead.dir)
	r, err := f.GC(context.Background(), GCOptions{Wait: 5e9})
	if err != nil || r.Draining != 0 || r.Busy != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if live, retired := f.entries(t); live != 1 || retired != 0 {
		t.Errorf("%d live, %d retired; want 1 and 0", live, retired)
	}
}

// Sweeps of later invocations do what poststop did not.
func TestSweepHealsANode(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	var gone []*container
	for range 5 {
		c := newContainer(t, "c"+string(rune('a'+len(gone))))
		f.mustAttach(t, c, "a")
		gone = append(gone, c)
	}
	st, err := f.Root.Stage()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range gone {
		c.end(t)
		c.sub.Cgroup.Close()
		bpftest.RemoveCgroup(t, c.dir)
	}
	// What somebody is building stays.
	bpftest.Eventually(t, "only what is being built is left", func() error {
		f.Sweep(context.Background())
		if n, err := f.count(); err != nil || n != 1 {
			return fmt.Errorf("%d left, %w", n, err)
		}
		return nil
	})
	if err := st.Discard(); err != nil {
		t.Fatal(err)
	}
	emptyState(t, f)
}

// By id alone: what has that id and has ended, whatever its bundle, and nothing else.
func TestEndContainersOfAnID(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	long := strings.Repeat("x", 300) // its key is shortened
	var all []*container
	for _, id := range []string{"web", "web", "we", "web-1", long} {
		c := newContainer(t, id)
		c.key = pin.ContainerKey(id, "/bundle"+string(rune('0'+len(all))))
		f.mustAttach(t, c, "a")
		all = append(all, c)
	}
	runs := newContainer(t, "web")
	f.mustAttach(t, runs, "a")
	for _, c := range all {
		c.end(t)
	}
	gone := func(want ...bool) {
		t.Helper()
		for i, c := range all {
			if _, ok := f.Look(pin.ContainerEntry(c.key, "a")); ok == want[i] {
				t.Errorf("container %d: it is there: %v", i, ok)
			}
		}
	}
	if err := f.EndContainers(context.Background(), "web"); err != nil {
		t.Fatal(err)
	}
	gone(true, true, false, false, false)
	if err := f.EndContainers(context.Background(), long); err != nil {
		t.Fatal(err)
	}
	gone(true, true, false, false, true)
	if _, ok := f.Look(pin.ContainerEntry(runs.key, "a")); !ok {
		t.Error("one that runs was ended")
	}
}

// A link that is not the recorded one protects somebody else.
func TestClaimSeesThroughAForeignLink(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	c, other := newContainer(t, "web"), newContainer(t, "other")
	f.mustAttach(t, c, "a")
	_, path := f.verified(t, pin.ContainerEntry(c.key, "a"))
	info, err := linkInfo(path)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(info.ProgramID))
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	foreign, err := attach.Attach(prog, specs.Attachment{Name: "x", Hook: info.Hook}, attach.Target{Cgroup: other.sub.Cgroup})
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	withLink(t, path, func(*attach.Link) error { remove(t, path); return nil })
	if err := foreign.Pin(path); err != nil {
		t.Fatal(err)
	}
	f.mustAttach(t, c, "a")
	if got := attached(t, c.dir, connect4); got != 1 {
		t.Errorf("%d programs at connect4, want 1", got)
	}
}

// A runtime may move the process between prestart and createRuntime.
func TestClaimFollowsTheProcess(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	f.mustAttach(t, c, "a")
	dir := bpftest.Cgroup(t)
	if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(c.pid)), 0); err != nil {
		t.Fatal(err)
	}
	moved := subject(t, "web", dir, c.pid)
	f.mustAttach(t, moved, "a")
	if got := attached(t, dir, connect4); got != 1 {
		t.Errorf("%d programs where it is, want 1", got)
	}
	if got := attached(t, c.dir, connect4); got != 0 {
		t.Errorf("%d programs where it was, want 0", got)
	}
}
