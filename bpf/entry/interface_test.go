// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// another is the session of another process: its locks are others than ours.
func (f *fixture) another(t testing.TB) *Session {
	t.Helper()
	root, err := pin.Open(pin.Options{Path: strings.TrimSuffix(f.Root.Path(), "/linkpin/v1")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &Session{Root: root, By: pin.ByCNI, Warn: f.Warn}
}

// The sandboxes of others may be locked for seconds: a DEL waits for none of them.
func TestDelWaitsForNobodyElse(t *testing.T) {
	ps := interfacePlans(t)
	ps["cg"] = plan(t, "cg", program("connect4", "cgroup/connect4"))
	f := newFixture(t, ps)
	ctx := context.Background()
	// Sandboxes that hooks made, of which DEL can't tell by the name whose they are:
	// CNI comes to the same namespace under its own id. One is free, the others busy.
	mine := newSandbox(t, "mine", "lpdw0")
	f.joined(t, mine, newContainer(t, "ctr-mine"), onInterface(mine, "tcx"))
	f.mustAdd(t, mine, "tcx")
	var held []*pin.Lock
	for _, host := range []string{"lpdw1", "lpdw2", "lpdw3"} {
		other := newSandbox(t, host, host)
		f.By = pin.ByHook
		f.joined(t, other, newContainer(t, "ctr-"+host), onInterface(other, "tcx"))
		f.mustAdd(t, other, "tcx")
		held = append(held, f.lock(t, pin.Sandbox(other.sub.Sandbox)))
	}
	s := f.another(t)
	own := pin.InterfaceEntry(mine.sub.Sandbox, "net", "eth0", "tcx")
	for _, netns := range []string{"", "/run/netns/gone"} {
		f.mustAdd(t, mine, "tcx")
		start := time.Now()
		if err := s.DelInterface(ctx, Deletion{ContainerID: "mine", Network: "net", Interface: "eth0", Netns: netns}); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > LoadTimeout/2 {
			t.Errorf("it took %v", took)
		}
		if _, ok := f.Look(own); ok {
			t.Error("its own entry is left")
		}
	}
	for i, host := range []string{"lpdw1", "lpdw2", "lpdw3"} {
		if err := held[i].Release(); err != nil {
			t.Fatal(err)
		}
		// Now that it is free DEL of its own id takes it.
		if err := s.DelInterface(ctx, Deletion{ContainerID: host, Network: "net", Interface: "eth0"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Walk(func(it Item) error {
		if it.Retired == nil && it.Place.Kind() == pin.InterfacePlace {
			t.Errorf("left: %s", it.Place)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// The id's own sandbox may be busy until the deadline: the one that a hook made for
// its namespace, where somebody is at work for a moment, is reached nevertheless.
func TestDelHasADeadlineForEachSandbox(t *testing.T) {
	ps := interfacePlans(t)
	ps["cg"] = plan(t, "cg", program("connect4", "cgroup/connect4"))
	f := newFixture(t, ps)
	first, second := newSandbox(t, "pod", "lpdl0"), newSandbox(t, "pod", "lpdl1")
	f.joined(t, second, newContainer(t, "ctr"), onInterface(second, "tcx"))
	f.mustAdd(t, second, "tcx")
	f.mustAdd(t, first, "tcx") // the same id in two namespaces
	s := f.another(t)
	held, brief := f.lock(t, pin.Sandbox(first.sub.Sandbox)), f.lock(t, pin.Sandbox(second.sub.Sandbox))
	defer held.Release()
	released := make(chan error)
	go func() {
		time.Sleep(LoadTimeout + LoadTimeout/4)
		released <- brief.Release()
	}()
	if err := s.DelInterface(context.Background(), Deletion{ContainerID: "pod", Network: "net", Interface: "eth0"}); !errors.Is(err, pin.ErrDeadline) {
		t.Errorf("%v is no word of the sandbox that was busy", err)
	}
	if err := <-released; err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Look(pin.InterfaceEntry(second.sub.Sandbox, "net", "eth0", "tcx")); ok {
		t.Error("the sandbox that was free was not reached")
	}
}

// What another sandbox records badly is reported, and keeps nobody's DEL from its work.
func TestDelBesideADamagedRecord(t *testing.T) {
	ps := interfacePlans(t)
	ps["cg"] = plan(t, "cg", program("connect4", "cgroup/connect4"))
	f := newFixture(t, ps)
	mine, other := newSandbox(t, "mine", "lpdd0"), newSandbox(t, "other", "lpdd1")
	for _, s := range []*sandbox{mine, other} {
		f.By = pin.ByHook
		f.joined(t, s, newContainer(t, "ctr-"+s.id), onInterface(s, "tcx"))
		f.mustAdd(t, s, "tcx")
	}
	if err := os.Remove(f.Root.Path() + "/" + pin.InterfaceEntry(other.sub.Sandbox, "net", "eth0", "tcx").String() + "/meta"); err != nil {
		t.Fatal(err)
	}
	_ = f.DelInterface(context.Background(), Deletion{ContainerID: "mine", Network: "net", Interface: "eth0"})
	if _, ok := f.Look(pin.InterfaceEntry(mine.sub.Sandbox, "net", "eth0", "tcx")); ok {
		t.Error("its own entry is left")
	}
}

// twoInterfaces has entries of CNI for eth0 and net1, and what belongs to the whole
// pod was made for eth0.
func (f *fixture) twoInterfaces(t testing.TB, host, dir string) (s *sandbox, shared []pin.Place) {
	t.Helper()
	ctx := context.Background()
	s = newSandbox(t, "pod", host)
	f.mustAdd(t, s, "tcx", "nf")
	if err := f.addPod(t, s, openPod(t, dir)); err != nil {
		t.Fatal(err)
	}
	bpftest.Veth(t, s.ns, host+"n", "net1")
	net1, err := s.sub.Netns.Interface("net1")
	if err != nil {
		t.Fatal(err)
	}
	lock := f.lock(t, pin.Sandbox(s.sub.Sandbox))
	defer lock.Release()
	sub := *s.sub
	sub.Identity.Network = "other"
	if _, err := f.Attach(ctx, &sub, []Want{{
		Policy: "tcx", OnError: specs.Deny, Kind: specs.TargetInterface, Interface: net1,
		Place: pin.InterfaceEntry(s.sub.Sandbox, "other", "net1", "tcx"),
	}}); err != nil {
		t.Fatal(err)
	}
	return s, []pin.Place{pin.NetnsEntry(s.sub.Sandbox, "nf"), pin.PodCgroupEntry(s.sub.Sandbox, "pod")}
}

// What was made for the first interface of a pod goes with the last one, in whatever
// order they are deleted, as long as the first is really over.
func TestTheLastInterfaceTakesWhatIsShared(t *testing.T) {
	ctx := context.Background()
	plans := podPlans(t)
	plans["nf"] = netfilterPlan(t, "nf")
	eth0 := Deletion{ContainerID: "pod", Network: "net", Interface: "eth0"}
	net1 := Deletion{ContainerID: "pod", Network: "other", Interface: "net1"}
	unplug := func(t *testing.T, s *sandbox) { // as its plugin does, after we were called
		s.ns.Do(t, func() {
			l, err := netlink.LinkByName("eth0")
			if err == nil {
				err = netlink.LinkDel(l)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	setUp := func(t *testing.T, host string) (f *fixture, s *sandbox, is func(want bool, when string), del func(Deletion)) {
		f = newFixture(t, plans)
		s, shared := f.twoInterfaces(t, host, bpftest.Cgroup(t))
		is = func(want bool, when string) {
			t.Helper()
			for _, p := range shared {
				if _, ok := f.Look(p); ok != want {
					t.Errorf("%s: %s is there: %v, want %v", when, p, ok, want)
				}
			}
		}
		del = func(d Deletion) {
			t.Helper()
			if err := f.DelInterface(ctx, d); err != nil {
				t.Fatal(err)
			}
		}
		is(true, "ADD")
		return f, s, is, del
	}
	t.Run("the first one first", func(t *testing.T) {
		f, s, is, del := setUp(t, "lpla0")
		eth0.Netns, net1.Netns = s.ns.Path(), s.ns.Path()
		del(eth0)
		is(true, "DEL of eth0, net1 is left")
		unplug(t, s)
		other := net1
		other.ContainerID = "another"
		del(other)
		is(true, "DEL of another id")
		del(net1)
		is(false, "DEL of the last one")
		if live, _ := f.entries(t); live != 0 {
			t.Errorf("%d live entries", live)
		}
	})
	t.Run("the namespace is gone", func(t *testing.T) {
		_, s, is, del := setUp(t, "lplb0")
		eth0.Netns, net1.Netns = "", ""
		del(eth0)
		is(true, "DEL of eth0, net1 is left")
		s.kill(t)
		bpftest.Eventually(t, "the namespace is gone", func() error {
			_, err := os.Stat(s.ns.Path())
			if err == nil {
				return os.ErrExist
			}
			return nil
		})
		del(net1)
		is(false, "DEL of the last one")
	})
	t.Run("called again after a crash", func(t *testing.T) {
		f, s, is, del := setUp(t, "lplc0")
		eth0.Netns, net1.Netns = s.ns.Path(), s.ns.Path()
		del(eth0)
		unplug(t, s)
		lock := f.lock(t, pin.Sandbox(s.sub.Sandbox))
		if err := f.retire(pin.InterfaceEntry(s.sub.Sandbox, "other", "net1", "tcx"), reasonDeleted); err != nil {
			t.Fatal(err)
		}
		if err := lock.Release(); err != nil {
			t.Fatal(err)
		}
		del(net1)
		is(false, "DEL of the last one")
	})
	// An interface without entries of its own shows in the namespace only: it may be
	// what the programs of the pod are for.
	t.Run("the first one is still there", func(t *testing.T) {
		f, s, is, del := setUp(t, "lpld0")
		eth0.Netns, net1.Netns = s.ns.Path(), s.ns.Path()
		lock := f.lock(t, pin.Sandbox(s.sub.Sandbox))
		if err := f.Withdraw([]pin.Place{pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "tcx")}); err != nil {
			t.Fatal(err)
		}
		if err := lock.Release(); err != nil {
			t.Fatal(err)
		}
		del(net1)
		is(true, "DEL of net1, eth0 is left")
		s.ns.Do(t, func() {
			l, err := netlink.LinkByName("eth0")
			if err == nil {
				err = netlink.LinkSetDown(l)
			}
			if err == nil {
				err = netlink.LinkSetName(l, "renamed")
			}
			if err != nil {
				t.Error(err)
			}
		})
		del(net1)
		is(true, "DEL of net1, eth0 has another name")
		del(eth0)
		is(false, "DEL of eth0")
	})
}

// An interface is gone if neither its name nor its index is in its namespace.
func TestInterfaceGone(t *testing.T) {
	s := newSandbox(t, "pod", "lpig0")
	rec := func(change func(*pin.Record)) *pin.Record {
		r := &pin.Record{
			Netns:     &pin.NetnsRecord{Path: s.ns.Path(), Cookie: s.sub.Netns.Cookie},
			Interface: &pin.InterfaceRecord{Name: "eth0", Index: s.iface.Index},
		}
		change(r)
		return r
	}
	for name, tc := range map[string]struct {
		change func(*pin.Record)
		gone   bool
	}{
		"it is there":       {func(*pin.Record) {}, false},
		"another index":     {func(r *pin.Record) { r.Interface.Index = 1 << 20 }, false},
		"another name":      {func(r *pin.Record) { r.Interface.Name = "old" }, false},
		"neither":           {func(r *pin.Record) { r.Interface.Name, r.Interface.Index = "old", 1<<20 }, true},
		"another namespace": {func(r *pin.Record) { r.Netns.Cookie++ }, true},
		"no namespace":      {func(r *pin.Record) { r.Netns.Path = "/proc/self/nothing" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			gone, err := interfaceGone(rec(tc.change))
			if gone != tc.gone || err != nil {
				t.Errorf("got %v, %v", gone, err)
			}
		})
	}
}
