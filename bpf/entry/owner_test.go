// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

func netfilterPlan(t testing.TB, name string) *specs.Plan {
	bpftest.NeedKernel(t, 6, 4, "netfilter links")
	return plan(t, name, program("connect4", specs.HookNetfilter, func(a *specs.Attachment) {
		a.Netfilter = &specs.Netfilter{Family: "ipv4", Hook: "input", Priority: 10}
	}))
}

// The runtime deletes what it could not add: that must not hit the sandbox that has
// the id.
func TestDelAfterARefusedAdd(t *testing.T) {
	ps := interfacePlans(t)
	ps["nf"] = netfilterPlan(t, "nf")
	f := newFixture(t, ps)
	first, second := newSandbox(t, "pod", "lpref0"), newSandbox(t, "pod", "lpref1")
	f.mustAdd(t, first, "tcx", "nf")
	if err := f.add(t, second, "tcx", "nf"); !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v, want ErrInUse", err)
	}
	d := Deletion{ContainerID: "pod", Network: "net", Interface: "eth0", Netns: second.ns.Path()}
	if err := f.DelInterface(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	if live, retired := f.entries(t); live != 2 || retired != 0 {
		t.Fatalf("%d live, %d retired; want 2 and 0", live, retired)
	}
	d.Netns = first.ns.Path()
	if err := f.DelInterface(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	if live, _ := f.entries(t); live != 0 {
		t.Errorf("%d live entries after the right DEL", live)
	}
}

// Namespace programs belong to the interface whose ADD made them, whatever becomes
// of others, and stay while another interface has programs.
func TestNamespaceProgramsOfAnInterface(t *testing.T) {
	ctx := context.Background()
	f := newFixture(t, plans{"nf": netfilterPlan(t, "nf"), "tcx": interfacePlans(t)["tcx"]})
	s := newSandbox(t, "pod", "lpnsi0")
	f.mustAdd(t, s, "nf")
	nf := pin.NetnsEntry(s.sub.Sandbox, "nf")
	is := func(want bool, when string) {
		t.Helper()
		if _, ok := f.Look(nf); ok != want {
			t.Fatalf("%s: it is there: %v, want %v", when, ok, want)
		}
	}
	for _, network := range []string{"net", "other"} {
		valid := func(id, ifname string) bool { return network == "net" && id == "pod" && ifname == "eth0" }
		if err := f.GCNetwork(ctx, network, valid); err != nil {
			t.Fatal(err)
		}
		is(true, "GC of network "+network)
	}
	for _, d := range []Deletion{{"pod", "net", "net1", ""}, {"pod", "other", "eth0", ""}} {
		if err := f.DelInterface(ctx, d); err != nil {
			t.Fatal(err)
		}
		is(true, "DEL of another interface")
	}
	f.mustAdd(t, s, "nf", "tcx")
	if err := f.GCNetwork(ctx, "net", func(string, string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	is(false, "GC without any valid attachment")
	f.mustAdd(t, s, "nf")
	if err := f.DelInterface(ctx, Deletion{"pod", "net", "eth0", ""}); err != nil {
		t.Fatal(err)
	}
	is(false, "DEL of its interface")
	// Only the interface's drains: a netfilter link would hold the namespace.
	if live, retired := f.entries(t); live != 0 || retired != 1 {
		t.Errorf("%d live, %d retired; want 0 and 1", live, retired)
	}
}

// joined attaches wants in a sandbox for a container that joins it, as the hook does.
func (f *fixture) joined(t testing.TB, s *sandbox, c *container, wants func(pin.Key) []Want) {
	t.Helper()
	ctx := context.Background()
	cl := f.lock(t, pin.Container(c.key))
	defer cl.Release()
	if _, err := f.ClaimContainer(ctx, c.key, c.sub, nil); err != nil {
		t.Fatal(err)
	}
	key, lock, err := f.LockSandbox(ctx, s.sub.Netns, "")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	c.sub.Netns, c.sub.Sandbox = s.sub.Netns, key
	if err := f.JoinSandbox(key, c.key); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Attach(ctx, c.sub, append(wants(key), c.wants("cg")...)); err != nil {
		t.Fatal(err)
	}
}

func onInterface(s *sandbox, policy string) func(pin.Key) []Want {
	return func(key pin.Key) []Want {
		return []Want{{Policy: policy, OnError: specs.Deny, Kind: specs.TargetInterface, Interface: s.iface, Place: pin.HookInterfaceEntry(key, "eth0", policy)}}
	}
}

// A device that goes back to the host does not take the container's programs along.
func TestTheLastMemberDetachesWhatLivesOn(t *testing.T) {
	ps := interfacePlans(t)
	ps["cg"] = plan(t, "cg", program("connect4", "cgroup/connect4"))
	f := newFixture(t, ps)
	s, c := newSandbox(t, "", "lpliv0"), newContainer(t, "web")
	s.iface.DiesWithNetns = false
	f.joined(t, s, c, onInterface(s, "xdp"))
	place := pin.HookInterfaceEntry(c.sub.Sandbox, "eth0", "xdp")
	e, err := f.Root.Entry(place)
	if err != nil {
		t.Fatal(err)
	}
	l, err := attach.OpenPinned(e.LinkPath("pass"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := l.Info()
	l.Close()
	if err != nil {
		t.Fatal(err)
	}
	// A process that is killed right after the rename leaves it to a sweep.
	sl := f.lock(t, pin.Sandbox(c.sub.Sandbox))
	if _, err := f.Root.Retire(place, reasonLeft, 0); err != nil {
		t.Fatal(err)
	}
	if err := sl.Release(); err != nil {
		t.Fatal(err)
	}
	f.Sweep(context.Background())
	if linkExists(info.LinkID) {
		t.Error("the link is still there after a sweep")
	}

	f.joined(t, s, newContainer(t, "again"), onInterface(s, "xdp"))
	c.end(t)
	if _, err := f.EndContainer(context.Background(), c.key); err != nil {
		t.Fatal(err)
	}
	if live, _ := f.entries(t); live != 2 {
		t.Fatalf("%d live entries with one member left, want 2", live)
	}
}

// An id that came back in another namespace is no member of the old one any more,
// also if poststop never came.
func TestMembershipEndsWithTheContainer(t *testing.T) {
	f := newFixture(t, plans{
		"cg": plan(t, "cg", program("connect4", "cgroup/connect4")),
		"nf": netfilterPlan(t, "nf"),
	})
	old, next := newSandbox(t, "", "lpmb0"), newSandbox(t, "", "lpmb1")
	first, second := newContainer(t, "web"), newContainer(t, "web")
	nf := func(key pin.Key) []Want {
		return []Want{{Policy: "nf", OnError: specs.Deny, Kind: specs.TargetNetns, Place: pin.NetnsEntry(key, "nf")}}
	}
	f.joined(t, old, first, nf)
	first.end(t)
	busy := f.lock(t, pin.Sandbox(first.sub.Sandbox)) // so that nobody tidies up at once
	f.joined(t, next, second, nf)
	if err := busy.Release(); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Look(pin.NetnsEntry(first.sub.Sandbox, "nf")); !ok {
		t.Fatal("a busy sandbox was changed")
	}
	if _, err := f.GC(context.Background(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Look(pin.NetnsEntry(first.sub.Sandbox, "nf")); ok {
		t.Error("the old namespace is still held")
	}
	if _, ok := f.Look(pin.NetnsEntry(second.sub.Sandbox, "nf")); !ok {
		t.Error("the new one lost its program")
	}
}

// A sweep waits for nobody: a process that is stopped with a lock stops no others.
func TestSweepDoesNotWait(t *testing.T) {
	ps := interfacePlans(t)
	ps["cg"] = plan(t, "cg", program("connect4", "cgroup/connect4"))
	f := newFixture(t, ps)
	s, c := newSandbox(t, "", "lpsw0"), newContainer(t, "web")
	f.joined(t, s, c, onInterface(s, "tcx"))
	c.end(t)
	held := f.lock(t, pin.Sandbox(c.sub.Sandbox))
	start := time.Now()
	for range 10 {
		f.Sweep(context.Background())
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("sweeps took %v", took)
	}
	if _, ok := f.Look(pin.ContainerEntry(c.key, "cg")); ok {
		t.Error("the container's entry is left")
	}
	if err := held.Release(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		f.Sweep(context.Background())
	}
	if live, _ := f.entries(t); live != 0 {
		t.Errorf("%d live entries after the lock was free", live)
	}
}

// Killed after the interface's entry was published and before the container's.
func TestKilledBetweenTheEntries(t *testing.T) {
	f := newFixture(t, interfacePlans(t))
	s, c := newSandbox(t, "", "lpkb0"), newContainer(t, "web")
	key, lock, err := f.LockSandbox(context.Background(), s.sub.Netns, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.JoinSandbox(key, c.key); err != nil {
		t.Fatal(err)
	}
	s.sub.Sandbox = key
	if _, err := f.Attach(context.Background(), s.sub, onInterface(s, "tcx")(key)); err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.GC(context.Background(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	if live, retired := f.entries(t); live != 0 || retired != 1 {
		t.Errorf("%d live, %d retired; want 0 and 1", live, retired)
	}
	if _, known, err := f.Root.SandboxByCookie(s.sub.Netns.Cookie); known || err != nil {
		t.Errorf("the index still knows it, %v", err)
	}
}

// A cgroup's path says nothing if the container's process still runs.
func TestPathOfAnotherMountNamespace(t *testing.T) {
	f := newFixture(t, plans{"cg": plan(t, "cg", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	c.sub.Cgroup.Path = "/elsewhere" + c.sub.Cgroup.Path
	f.mustAttach(t, c, "cg")
	if _, err := f.GC(context.Background(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	if live, _ := f.entries(t); live != 1 {
		t.Fatal("gc took the entry of a running container")
	}
	c.end(t)
	if _, err := f.GC(context.Background(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	if live, _ := f.entries(t); live != 0 {
		t.Error("the entry outlived the container")
	}
}

// A record that can't be read refuses the container, and says what to do.
func TestDamagedRecord(t *testing.T) {
	f := newFixture(t, plans{"cg": plan(t, "cg", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	f.mustAttach(t, c, "cg")
	place := pin.ContainerEntry(c.key, "cg")
	if err := os.Remove(f.Root.Path() + "/" + place.String() + "/meta"); err != nil {
		t.Fatal(err)
	}
	err := f.attach(t, c, "cg")
	if err == nil || !errors.Is(err, pin.ErrNoRecord) && !errors.Is(err, pin.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	if want := "remove it by hand: rm -r " + f.Root.Path() + "/" + place.String(); !strings.Contains(err.Error(), want) {
		t.Errorf("%q does not say %q", err, want)
	}
}

// While the hook waits for the lock of a sandbox, that may end, and its id go to
// another namespace: the hook must not take that one.
func TestSandboxEndsWhileItIsWaitedFor(t *testing.T) {
	f := newFixture(t, interfacePlans(t))
	mine, other := newSandbox(t, "", "lpwt0"), newSandbox(t, "pod", "lpwt1")
	ctx := context.Background()
	key, lock, err := f.LockSandbox(ctx, mine.sub.Netns, "pod")
	if err != nil {
		t.Fatal(err)
	}
	root, err := pin.Open(pin.Options{Path: strings.TrimSuffix(f.Root.Path(), "/linkpin/v1")})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	waiter := &Session{Root: root}
	type answer struct {
		key  pin.Key
		lock *pin.Lock
		err  error
	}
	done := make(chan answer)
	go func() {
		key, lock, err := waiter.LockSandbox(ctx, mine.sub.Netns, "")
		done <- answer{key, lock, err}
	}()
	time.Sleep(50 * time.Millisecond) // it waits now; if not, the test proves less, but does not fail
	if err := f.AbandonSandbox(ctx, key, "", mine.sub.Netns.Cookie); err != nil {
		t.Fatal(err)
	}
	if err := f.Root.IndexNetns(ctx, other.sub.Netns.Cookie, key); err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	a := <-done
	if a.err != nil || a.key != pin.CookieKey(mine.sub.Netns.Cookie) {
		t.Fatalf("got %s, %v", a.key, a.err)
	}
	if err := a.lock.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestOn(t *testing.T) {
	want := []pin.Place{pin.InterfaceEntry("s", "a", "eth0", "p"), pin.InterfaceEntry("s", "b", "eth0", "p")}
	got := On(append(want, pin.InterfaceEntry("s", "a", "eth1", "p"), pin.InterfaceEntry("s", "a", "eth0", "q"),
		pin.HookInterfaceEntry("s", "eth0", "p"), pin.NetnsEntry("s", "p")), "eth0", "p")
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Without a cgroup it is the process that counts; another one with its pid is none.
func TestProcessTellsTheEnd(t *testing.T) {
	f := newFixture(t, plans{"cg": plan(t, "cg")})
	c := newContainer(t, "web")
	for _, tc := range []struct {
		change uint64
		ended  bool
	}{{0, false}, {1, true}} {
		rec := &pin.Record{PID: c.pid, Start: uint64(c.sub.Start) - tc.change}
		if ended, err := f.containerEnded(rec); err != nil || ended != tc.ended {
			t.Errorf("start time %d less: ended %v, %v", tc.change, ended, err)
		}
	}
}
