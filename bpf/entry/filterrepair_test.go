// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// stolen is a filter that is in force, with what is needed to take it off.
type stolen struct {
	f     *fixture
	s     *sandbox
	place pin.Place
	index int
	row   pin.ProgramRecord
}

// theirs is the filter as its thief sees it.
func (x stolen) theirs() *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: x.index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: x.row.Filter.Priority, Handle: x.row.Filter.Handle, Protocol: unix.ETH_P_ALL},
		Name:        x.row.Filter.Name, DirectAction: true,
	}
}

// Every ordinary way to take a filter off is seen, and mended; what is foreign stays.
func TestFilterRepair(t *testing.T) {
	thieves := map[string]struct {
		steal func(t *testing.T, x stolen)
		want  Problem
		left  []string // the filters after the repair, if not ours alone
	}{
		"delete": {steal: func(t *testing.T, x stolen) {
			if err := netlink.FilterDel(x.theirs()); err != nil {
				t.Fatal(err)
			}
		}, want: ProblemSevered},
		"delete the qdisc": {steal: func(t *testing.T, x stolen) {
			if err := netlink.QdiscDel(clsact(t, "lpfil7")); err != nil {
				t.Fatal(err)
			}
		}, want: ProblemSevered},
		"replace the program": {steal: func(t *testing.T, x stolen) {
			other := foreign(t, "lpfil7", "other", 1, 1)
			mine := x.theirs()
			mine.Fd = other.Fd
			if err := errors.Join(netlink.FilterDel(other), netlink.FilterReplace(mine)); err != nil {
				t.Fatal(err)
			}
		}, want: ProblemProgram},
		"take the place": {steal: func(t *testing.T, x stolen) {
			if err := netlink.FilterDel(x.theirs()); err != nil {
				t.Fatal(err)
			}
			foreign(t, "lpfil7", "thief", x.row.Filter.Priority, x.row.Filter.Handle)
		}, want: ProblemSevered, left: []string{"thief", "linkpin:drop/read_limit"}},
		"give it another name": {steal: func(t *testing.T, x stolen) {
			other := foreign(t, "lpfil7", "other", 1, 1)
			mine := x.theirs()
			mine.Fd, mine.Name = other.Fd, "thief"
			if err := errors.Join(netlink.FilterDel(other), netlink.FilterReplace(mine)); err != nil {
				t.Fatal(err)
			}
		}, want: ProblemSevered, left: []string{"thief", "linkpin:drop/read_limit"}},
	}
	for name, thief := range thieves {
		t.Run(name, func(t *testing.T) {
			p := filterPlan(t, "drop", actShot, onHost)
			p.Teardown = specs.Detach
			ps := plans{"drop": p}
			f := newOldKernel(t, ps)
			s := newSandbox(t, "pod", "lpfil7")
			f.mustAdd(t, s, "drop")
			item, _ := f.Look(s.place("drop"))
			x := stolen{f, s, s.place("drop"), s.iface.Peer.Index, item.Record.Programs[0]}
			thief.steal(t, x)
			if !s.gets(t) {
				t.Fatal("nothing was stolen")
			}
			delete(ps, "drop") // the program is pinned: nobody has to load it again
			item, _ = f.Look(x.place)
			if found := f.Verify(item); len(found) != 1 || found[0].Problem != thief.want || !found[0].Problem.Drift() || !strings.Contains(found[0].Detail, "unowned") {
				t.Fatalf("verify: %+v", found)
			}
			lock := f.lock(t, pin.Sandbox(s.sub.Sandbox))
			mended, err := f.mend(context.Background(), x.place)
			if err := errors.Join(err, lock.Release()); err != nil || !mended {
				t.Fatalf("mended: %v, %v", mended, err)
			}
			if s.arrives(t) {
				t.Error("the mended filter lets the packet through")
			}
			want := thief.left
			if want == nil {
				want = []string{"linkpin:drop/read_limit"}
			}
			if got := filters(t, "lpfil7", netlink.HANDLE_MIN_INGRESS); !slices.Equal(got, want) {
				t.Errorf("filters %q, want %q", got, want)
			}
			item, _ = f.Look(x.place)
			if found := f.Verify(item); len(found) != 0 {
				t.Errorf("verify after repair: %+v", found)
			}
			if err := f.DelInterface(context.Background(), Deletion{ContainerID: "pod", Network: "net", Interface: "eth0"}); err != nil {
				t.Fatal(err)
			}
			want = slices.DeleteFunc(want, func(n string) bool { return strings.HasPrefix(n, "linkpin:") })
			if got := filters(t, "lpfil7", netlink.HANDLE_MIN_INGRESS); !slices.Equal(got, want) {
				t.Errorf("after DEL: %q, want %q", got, want)
			}
			emptyState(t, f)
		})
	}
}

// A repair that was killed after it had made the filter, and before it recorded that,
// leaves no second one behind.
func TestFilterRepairAgain(t *testing.T) {
	f := newOldKernel(t, plans{"drop": filterPlan(t, "drop", actShot, onHost)})
	s := newSandbox(t, "pod", "lpfil8")
	f.mustAdd(t, s, "drop")
	before, _ := f.Look(s.place("drop"))
	old := *before.Record
	old.Programs = slices.Clone(old.Programs)
	x := stolen{f, s, s.place("drop"), s.iface.Peer.Index, old.Programs[0]}
	if err := netlink.FilterDel(x.theirs()); err != nil {
		t.Fatal(err)
	}
	foreign(t, "lpfil8", "thief", x.row.Filter.Priority, x.row.Filter.Handle)
	for range 2 {
		if found, err := f.Repair(context.Background(), x.place); err != nil || len(found) != 1 || found[0].Err != nil {
			t.Fatalf("%+v, %v", found, err)
		}
		if got, want := filters(t, "lpfil8", netlink.HANDLE_MIN_INGRESS), []string{"thief", "linkpin:drop/read_limit"}; !slices.Equal(got, want) {
			t.Fatalf("filters %q, want %q", got, want)
		}
		lock := f.lock(t, pin.Sandbox(s.sub.Sandbox))
		e, err := f.Root.Entry(x.place)
		if err == nil {
			err = e.ReplaceRecord(old)
		}
		if err := errors.Join(err, lock.Release()); err != nil {
			t.Fatal(err)
		}
	}
}

// The filters of a device go when it is moved, and are not there when it comes back.
func TestFilterOfAMovedDevice(t *testing.T) {
	f := newOldKernel(t, plans{"drop": filterPlan(t, "drop", actShot), "host": filterPlan(t, "host", actNext, onHost)})
	s := newSandbox(t, "pod", "lpfil9")
	f.mustAdd(t, s, "drop", "host")
	other := bpftest.NetNS(t)
	away, err := target.OpenNetns(other.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	move := func(device string, to *target.Netns) {
		t.Helper()
		l, err := netlink.LinkByName(device)
		if err == nil {
			err = netlink.LinkSetNsFd(l, int(to.File.Fd()))
		}
		if err != nil {
			t.Error(err)
		}
	}
	is := func(policy, when string) {
		t.Helper()
		item, _ := f.Look(s.place(policy))
		if found := f.Verify(item); len(found) != 1 || found[0].Problem != ProblemSevered {
			t.Errorf("%s: %+v", when, found)
		}
	}
	s.ns.Do(t, func() { move("eth0", away) })
	is("drop", "moved away")
	other.Do(t, func() { move("eth0", s.sub.Netns) })
	is("drop", "and back")
	if _, err := f.Repair(context.Background(), s.place("drop")); err != nil {
		t.Fatal(err)
	}
	item, _ := f.Look(s.place("drop"))
	if found := f.Verify(item); len(found) != 0 {
		t.Errorf("after the repair: %+v", found)
	}
	move("lpfil9", away)
	is("host", "the host side moved away")
}

// Filters of others in front of ours are reported; our own are not.
func TestFilterInFront(t *testing.T) {
	f := newOldKernel(t, plans{"one": filterPlan(t, "one", actNext, onHost), "two": filterPlan(t, "two", actNext, onHost)})
	s := newSandbox(t, "pod", "lpfila")
	f.mustAdd(t, s, "one", "two")
	look := func() []Finding {
		t.Helper()
		item, _ := f.Look(s.place("two"))
		return f.Examine().Entry(item)
	}
	f.Plans.(plans)["two"].TCFallback = specs.FallbackClsact // applied as attached
	for _, found := range look() {
		if found.Problem == ProblemInFront {
			t.Errorf("our own: %+v", found)
		}
	}
	foreign(t, "lpfila", "thief", 5, 1)
	foreign(t, "lpfila", "behind", 0xfff0, 1)
	n := 0
	for _, found := range look() {
		if found.Problem == ProblemInFront {
			n++
			if !strings.Contains(found.Detail, `filter "thief" of program`) || !strings.Contains(found.Detail, "at priority 5 at tcx/ingress") || strings.Contains(found.Detail, "behind") {
				t.Errorf("%+v", found)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d findings", n)
	}
}

// A retired entry with filters says nothing about another one.
func TestFilterVanished(t *testing.T) {
	f := newOldKernel(t, plans{"one": filterPlan(t, "one", actNext, onHost), "two": filterPlan(t, "two", actNext, onHost)})
	s := newSandbox(t, "pod", "lpfilb")
	f.mustAdd(t, s, "one", "two")
	var known []Known
	if err := f.Walk(func(it Item) error {
		if k, ok := Know(it); ok {
			known = append(known, k)
		}
		return nil
	}); err != nil || len(known) != 2 {
		t.Fatalf("%d known, %v", len(known), err)
	}
	lock := f.lock(t, pin.Sandbox(s.sub.Sandbox))
	defer lock.Release()
	if err := f.retire(s.place("one"), reasonDeleted); err != nil {
		t.Fatal(err)
	}
	e, err := f.Root.Entry(s.place("two"))
	if err == nil {
		err = e.Remove() // somebody emptied it by hand
	}
	if err != nil {
		t.Fatal(err)
	}
	var now []Item
	if err := f.Walk(func(it Item) error { now = append(now, it); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, found := f.Vanished(known, now); len(found) != 1 || !strings.HasSuffix(found[0].Path, "/two") || found[0].Problem != ProblemVanished {
		t.Errorf("%+v", found)
	}
}
