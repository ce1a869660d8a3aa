// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
)

func (v *viewer) of(t testing.TB, k Kind, id string) Event {
	t.Helper()
	return v.find(t, string(k)+" of "+id, func(e Event) bool {
		return e.Kind == k && e.Item.Record != nil && e.Item.Record.Identity.ContainerID == id
	})
}

// An entry's life, seen by a watcher that was there first.
func TestLife(t *testing.T) {
	f := newFixture(t)
	v := f.watch(t)
	c := newContainer(t, "web")
	f.attach(t, c, "meter")
	place := pin.ContainerEntry(c.key, "meter")
	if e := v.of(t, Attached, "web"); e.Place != place || e.Initial || !strings.Contains(e.Detail, "skb_egress") {
		t.Errorf("%+v", e)
	}

	f.withLink(t, place, "skb_egress", func(_ string, l *attach.Link) error { return l.Detach() })
	if e := v.of(t, Drift, "web"); e.Program != "skb_egress" || e.Problem != entry.ProblemSevered || e.Place != place {
		t.Errorf("%+v", e)
	}
	if _, err := f.Repair(context.Background(), place); err != nil {
		t.Fatal(err)
	}
	if e := v.of(t, Repaired, "web"); e.Program != "skb_egress" || e.Problem != entry.ProblemSevered {
		t.Errorf("%+v", e)
	}
	if e := v.of(t, Updated, "web"); !strings.Contains(e.Detail, "skb_egress has link") {
		t.Errorf("%+v", e)
	}

	f.end(t, c)
	if e := v.of(t, Retired, "web"); e.Reason != "ended" {
		t.Errorf("%+v", e)
	}
	if _, err := f.GC(context.Background(), entry.GCOptions{Wait: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	v.of(t, Gone, "web")
	if n := len(v.all(func(e Event) bool { return e.Kind == Drift })); n != 1 {
		t.Errorf("%d events of drift, want 1", n)
	}
}

// What is there at the start is told only if it is asked for, drift in any case.
func TestInitial(t *testing.T) {
	f := newFixture(t)
	good, bad := newContainer(t, "good"), newContainer(t, "bad")
	f.attach(t, good, "meter")
	f.attach(t, bad, "egress")
	f.withLink(t, pin.ContainerEntry(bad.key, "egress"), "connect4", func(path string, _ *attach.Link) error { return os.Remove(path) })

	v := f.watch(t)
	v.of(t, Drift, "bad")
	if told := v.all(func(e Event) bool { return e.Kind == Attached }); len(told) != 0 {
		t.Errorf("%+v", told)
	}
	v = f.watch(t, func(o *Options) { o.Initial = true })
	if e := v.of(t, Attached, "good"); !e.Initial {
		t.Errorf("%+v", e)
	}
	v.of(t, Attached, "bad")
	v.of(t, Drift, "bad")
}

// The watcher waits for the first attachment, and goes on if something is mounted over
// the state.
func TestTreeComesAndGoes(t *testing.T) {
	f := &fixture{bpffs: bpftest.TempBPFFS(t)}
	v := f.watch(t)
	time.Sleep(120 * time.Millisecond) // some looks at nothing
	f.open(t)
	c := newContainer(t, "web")
	f.attach(t, c, "meter")
	v.of(t, Attached, "web")

	if err := unix.Mount("bpf", f.bpffs, "bpf", 0, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	if e := v.kind(t, Drift); e.Problem != ProblemHidden || !strings.Contains(e.Detail, "of 2 links in it 2 still exist") {
		t.Errorf("%+v", e)
	}
	if gone := v.all(func(e Event) bool { return e.Kind == Gone }); len(gone) != 0 {
		t.Errorf("%+v", gone)
	}
	// Whoever attaches now makes a tree of its own, on top.
	over := &fixture{bpffs: f.bpffs}
	over.open(t)
	late := newContainer(t, "late")
	over.attach(t, late, "meter")
	v.of(t, Attached, "late")
	over.Root.Close()
	// Between two looks the watcher holds nothing.
	bpftest.Eventually(t, "unmounting", func() error { return unix.Unmount(f.bpffs, 0) })
	if e := v.kind(t, Repaired); e.Problem != ProblemHidden {
		t.Errorf("%+v", e)
	}
	f.end(t, c)
	v.of(t, Retired, "web")
}

// Entries come and go faster than anybody looks: none of that is drift.
func TestChurnIsNoDrift(t *testing.T) {
	f := newFixture(t)
	v := f.watch(t, func(o *Options) { o.Interval = MinInterval })
	c := newContainer(t, "churn")
	l, err := f.Root.Lock(context.Background(), pin.Container(c.key))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	wants := []entry.Want{{Policy: "meter", OnError: "deny", Kind: "cgroup", Place: pin.ContainerEntry(c.key, "meter")}}
	for range 200 {
		places, err := f.Attach(context.Background(), c.sub, wants)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		// Two steps, as everywhere: out of its place, then apart.
		p, err := f.Root.Retire(places[0], "ended", c.sub.Cgroup.ID)
		if err != nil {
			t.Fatal(err)
		}
		e, err := f.Root.Entry(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	v.of(t, Retired, "churn")
	time.Sleep(3 * secondLook)
	told := v.all(func(e Event) bool { return e.Kind != Attached && e.Kind != Retired && e.Kind != Gone })
	for _, e := range told {
		t.Error(e.text())
	}
	attached := len(v.all(func(e Event) bool { return e.Kind == Attached }))
	gone := len(v.all(func(e Event) bool { return e.Kind == Gone }))
	if attached == 0 || attached != gone {
		t.Errorf("%d entries came and %d went", attached, gone)
	}
	t.Logf("%d of 200 were seen", attached)
}

// Whoever removes a whole entry by hand is seen, though nothing is left to compare.
func TestVanished(t *testing.T) {
	f := newFixture(t)
	c := newContainer(t, "web")
	f.attach(t, c, "meter")
	v := f.watch(t, func(o *Options) { o.Initial = true })
	v.of(t, Attached, "web")
	if err := os.RemoveAll(filepath.Join(f.Root.Path(), pin.ContainerEntry(c.key, "meter").String())); err != nil {
		t.Fatal(err)
	}
	v.find(t, "drift", func(e Event) bool {
		return e.Kind == Drift && (e.Problem == entry.ProblemVanished || e.Problem == entry.ProblemMissing)
	})
	v.of(t, Gone, "web")
}

// What becomes of an interface on the host is told without waiting for the next look,
// and so is what linkpin attaches and removes. The interval never passes here.
func TestHeardAtOnce(t *testing.T) {
	f := newFixture(t)
	v := f.watch(t, func(o *Options) { o.Interval = time.Hour })
	place, ns := f.add(t, "pod", "lpwatch0")
	if e := v.of(t, Attached, "pod"); e.Place != place {
		t.Errorf("%+v", e)
	}
	dev, err := netlink.LinkByName("lpwatch0")
	if err == nil {
		err = netlink.LinkDel(dev)
	}
	if err != nil {
		t.Fatal(err)
	}
	if e := v.of(t, Ended, "pod"); e.Place != place {
		t.Errorf("%+v", e)
	}
	ns.Kill(t)
	if err := f.DelInterface(context.Background(), entry.Deletion{ContainerID: "pod", Network: "net", Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	v.of(t, Gone, "pod")
}

// Only what is meant is told, also if it becomes known later whose it is.
func TestMatch(t *testing.T) {
	f := newFixture(t)
	v := f.watch(t, func(o *Options) {
		o.Match = func(it entry.Item) bool { return it.Record != nil && it.Record.Identity.ContainerID == "mine" }
	})
	mine, other := newContainer(t, "mine"), newContainer(t, "other")
	f.attach(t, other, "egress")
	f.attach(t, mine, "egress", "meter")
	other.dial(t, "192.0.2.1:443")
	f.withLink(t, pin.ContainerEntry(other.key, "egress"), "connect4", func(_ string, l *attach.Link) error { return l.Detach() })
	f.withLink(t, pin.ContainerEntry(mine.key, "egress"), "connect4", func(_ string, l *attach.Link) error { return l.Detach() })
	v.of(t, Drift, "mine")
	f.end(t, other)
	f.end(t, mine)
	v.of(t, Retired, "mine")
	for _, e := range v.all(func(e Event) bool { return e.Item.Record == nil || e.Item.Record.Identity.ContainerID != "mine" }) {
		t.Error(e.text())
	}
}

// While nobody takes its events, a watcher holds nothing: the file system can be
// unmounted, and what happened meanwhile is told afterwards, in few words.
func TestSlowReader(t *testing.T) {
	f := &fixture{bpffs: t.TempDir()}
	if err := unix.Mount("bpf", f.bpffs, "bpf", 0, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(f.bpffs, unix.MNT_DETACH) })
	f.open(t)
	c := newContainer(t, "web")
	f.attach(t, c, "egress")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	blocked, free := make(chan struct{}), make(chan struct{})
	var denied []Event
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Pins: pin.Options{Path: f.bpffs}, Interval: MinInterval, Initial: true}, func(e Event) error {
			if e.Kind == Attached {
				close(blocked)
				<-free
			}
			if e.Kind == Denied {
				denied = append(denied, e)
				cancel()
			}
			return nil
		})
	}()
	<-blocked
	for range 5 {
		c.dial(t, "192.0.2.1:443")
	}
	f.Root.Close()
	if open := openBelow(t, f.bpffs); len(open) > 0 {
		t.Errorf("open while nobody reads: %v", open)
	}
	close(free)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(denied) != 1 || denied[0].Denied.Attempts != 5 {
		t.Errorf("%+v", denied)
	}
	if err := unix.Unmount(f.bpffs, 0); err != nil {
		t.Error(err)
	}
}

// openBelow lists the descriptors of this process that lead below a directory, and
// those of eBPF objects.
func openBelow(t *testing.T, dir string) []string {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, fd := range fds {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && (strings.HasPrefix(to, dir) || strings.Contains(to, "bpf")) {
			found = append(found, fmt.Sprintf("%s -> %s", fd.Name(), to))
		}
	}
	return found
}
