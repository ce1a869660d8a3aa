// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// sandbox is a namespace with one veth, as bridge would have made it.
type sandbox struct {
	ns    *bpftest.NS
	id    string
	sub   *Subject
	iface *target.Interface
}

func newSandbox(t testing.TB, id, host string) *sandbox {
	t.Helper()
	ns := bpftest.NetNS(t)
	bpftest.Veth(t, ns, host, "eth0")
	n, err := target.OpenNetns(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	iface, err := n.Interface("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return &sandbox{
		ns: ns, id: id, iface: iface,
		sub: &Subject{Identity: specs.Identity{ContainerID: id, Network: "net"}, Netns: n},
	}
}

// kill ends the namespace: nothing of ours holds it any more.
func (s *sandbox) kill(t testing.TB) {
	t.Helper()
	s.sub.Netns.Close()
	s.ns.Kill(t)
}

// add does what CNI ADD does.
func (f *fixture) add(t testing.TB, s *sandbox, policies ...string) error {
	t.Helper()
	f.By = pin.ByCNI
	ctx := context.Background()
	key, lock, err := f.LockSandbox(ctx, s.sub.Netns, s.id)
	if err != nil {
		return err
	}
	defer lock.Release()
	s.sub.Sandbox = key
	if _, err := f.ClaimSandbox(key, s.sub); err != nil {
		return err
	}
	var wants []Want
	for _, p := range policies {
		w := Want{Policy: p, OnError: specs.Deny, Kind: specs.TargetInterface, Interface: s.iface, Place: pin.InterfaceEntry(key, "net", "eth0", p)}
		if hook := f.Plans.(plans)[p].Programs[0].Hook; hook.Target() == specs.TargetNetns {
			w.Kind, w.Place = specs.TargetNetns, pin.NetnsEntry(key, p)
		}
		covered, err := f.Covered(ctx, w.Place)
		if err != nil {
			return err
		}
		if !covered {
			wants = append(wants, w)
		}
	}
	_, err = f.Attach(ctx, s.sub, wants)
	return err
}

func (f *fixture) mustAdd(t testing.TB, s *sandbox, policies ...string) {
	t.Helper()
	if err := f.add(t, s, policies...); err != nil {
		t.Fatal(err)
	}
}

func interfacePlans(t testing.TB) plans {
	return plans{
		"tcx": plan(t, "tcx", program("read_ifindex", specs.HookTCXIngress, onHost)),
		"xdp": plan(t, "xdp", program("pass", specs.HookXDP)),
	}
}

func TestAddAndDel(t *testing.T) {
	f := newFixture(t, interfacePlans(t))
	s := newSandbox(t, "pod", "lpadd0")
	f.mustAdd(t, s, "tcx", "xdp")
	f.mustAdd(t, s, "tcx", "xdp") // nothing twice
	item, ok := f.Look(pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "tcx"))
	if !ok || item.Err != nil || item.Links[0].Info.State != attach.Live {
		t.Fatalf("%+v", item)
	}
	if got, want := item.Record.Programs[0].Ifindex, s.iface.Peer.Index; got != want {
		t.Errorf("attached to ifindex %d, want the peer %d", got, want)
	}
	key, ok, err := f.Root.SandboxByCookie(s.sub.Netns.Cookie)
	if err != nil || !ok || key != pin.SandboxKey("pod") {
		t.Errorf("index: %s %v %v", key, ok, err)
	}

	ctx := context.Background()
	if err := f.DelInterface(ctx, Deletion{ContainerID: "pod", Network: "net", Interface: "eth1"}); err != nil {
		t.Fatal(err)
	}
	if live, _ := f.entries(t); live != 2 {
		t.Fatalf("DEL of another interface left %d", live)
	}
	for range 2 {
		if err := f.DelInterface(ctx, Deletion{ContainerID: "pod", Network: "net", Interface: "eth0"}); err != nil {
			t.Fatal(err)
		}
	}
	// They run to the end: the veth goes with its namespace.
	if live, retired := f.entries(t); live != 0 || retired != 2 {
		t.Fatalf("%d live, %d retired; want 0 and 2", live, retired)
	}
	s.kill(t)
	if r, err := f.GC(ctx, GCOptions{Wait: 5e9}); err != nil || r.Draining != 0 {
		t.Fatalf("%+v %v", r, err)
	}
	emptyState(t, f)
}

// What outlives its namespace is detached when it is deleted.
func TestDelDetachesWhatLivesOn(t *testing.T) {
	f := newFixture(t, interfacePlans(t))
	s := newSandbox(t, "pod", "lpout0")
	s.iface.DiesWithNetns = false
	f.mustAdd(t, s, "tcx")
	if err := f.DelInterface(context.Background(), Deletion{ContainerID: "pod", Network: "net", Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	emptyState(t, f)
}

func TestSandboxIDOfAnotherNamespace(t *testing.T) {
	f := newFixture(t, interfacePlans(t))
	first, second := newSandbox(t, "pod", "lpid0"), newSandbox(t, "pod", "lpid1")
	f.mustAdd(t, first, "tcx", "xdp")
	if err := f.add(t, second, "tcx"); !errors.Is(err, ErrInUse) {
		t.Fatalf("got %v, want ErrInUse", err)
	}
	first.kill(t)
	bpftest.Eventually(t, "the id is free", func() error { return f.add(t, second, "tcx") })
	item, _ := f.Look(pin.InterfaceEntry(second.sub.Sandbox, "net", "eth0", "tcx"))
	if item.Record == nil || item.Record.Netns.Cookie != second.sub.Netns.Cookie {
		t.Errorf("record %+v, %v", item.Record, item.Err)
	}
	if live, _ := f.entries(t); live != 1 {
		t.Errorf("%d live entries, want none of the old namespace", live)
	}
}

// A netfilter link holds its namespace: the recorded path tells when it has ended.
func TestNetfilterDoesNotHoldTheNamespace(t *testing.T) {
	bpftest.NeedKernel(t, 6, 4, "netfilter links")
	p := plan(t, "nf", program("connect4", specs.HookNetfilter, func(a *specs.Attachment) {
		a.Netfilter = &specs.Netfilter{Family: "ipv4", Hook: "input", Priority: 10}
	}))
	f := newFixture(t, plans{"nf": p})
	s := newSandbox(t, "pod", "lpnf0")
	f.mustAdd(t, s, "nf")
	if _, err := f.GC(context.Background(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	if live, _ := f.entries(t); live != 1 {
		t.Fatalf("gc took the entry of a running sandbox")
	}
	s.kill(t)
	bpftest.Eventually(t, "gc", func() error {
		_, err := f.GC(context.Background(), GCOptions{})
		if live, retired := f.entries(t); live+retired != 0 {
			err = errors.Join(err, fmt.Errorf("%d live, %d retired", live, retired))
		}
		return err
	})
}

// The first container of a shared namespace may end before the others: its netfilter
// programs stay.
func TestNetfilterStaysForTheOtherMembers(t *testing.T) {
	bpftest.NeedKernel(t, 6, 4, "netfilter links")
	f := newFixture(t, plans{
		"cg": plan(t, "cg", program("connect4", "cgroup/connect4")),
		"nf": plan(t, "nf", program("connect4", specs.HookNetfilter, func(a *specs.Attachment) {
			a.Netfilter = &specs.Netfilter{Family: "ipv4", Hook: "input", Priority: 10}
		})),
	})
	s := newSandbox(t, "", "lpnfm0")
	ctx := context.Background()
	first, second := newContainer(t, "first"), newContainer(t, "second")
	for _, c := range []*container{first, second} {
		key, lock, err := f.LockSandbox(ctx, s.sub.Netns, "")
		if err != nil {
			t.Fatal(err)
		}
		c.sub.Netns, c.sub.Sandbox = s.sub.Netns, key
		wants := c.wants("cg")
		if c == first {
			wants = append(wants, Want{Policy: "nf", OnError: specs.Deny, Kind: specs.TargetNetns, Place: pin.NetnsEntry(key, "nf")})
		}
		cl := f.lock(t, pin.Container(c.key))
		if err := f.JoinSandbox(key, c.key); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Attach(ctx, c.sub, wants); err != nil {
			t.Fatal(err)
		}
		cl.Release()
		lock.Release()
	}
	nf := pin.NetnsEntry(first.sub.Sandbox, "nf")
	first.end(t)
	if _, err := f.EndContainer(ctx, first.key); err != nil {
		t.Fatal(err)
	}
	if _, err := f.GC(ctx, GCOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Look(nf); !ok {
		t.Fatal("the netfilter entry went with the first container")
	}
	second.end(t)
	if _, err := f.EndContainer(ctx, second.key); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Look(nf); ok {
		t.Error("the netfilter entry outlived the last container")
	}
}

// The hook's interface entries stay until the last container of the sandbox ends.
func TestLastMemberRetiresTheSandbox(t *testing.T) {
	ps := interfacePlans(t)
	ps["cg"] = plan(t, "cg", program("connect4", "cgroup/connect4"))
	f := newFixture(t, ps)
	s := newSandbox(t, "", "lpmem0")
	ctx := context.Background()
	var members []*container
	for _, id := range []string{"one", "two"} {
		c := newContainer(t, id)
		key, lock, err := f.LockSandbox(ctx, s.sub.Netns, "")
		if err != nil {
			t.Fatal(err)
		}
		c.sub.Netns, c.sub.Sandbox = s.sub.Netns, key
		if err := f.JoinSandbox(key, c.key); err != nil {
			t.Fatal(err)
		}
		place := pin.HookInterfaceEntry(key, "eth0", "tcx")
		covered, err := f.Covered(ctx, place)
		if err != nil || covered != (id == "two") {
			t.Fatalf("%s: covered %v, %v", id, covered, err)
		}
		wants := c.wants("cg")
		if !covered {
			wants = append([]Want{{Policy: "tcx", OnError: specs.Deny, Kind: specs.TargetInterface, Interface: s.iface, Place: place}}, wants...)
		}
		cl := f.lock(t, pin.Container(c.key))
		if _, err := f.Attach(ctx, c.sub, wants); err != nil {
			t.Fatal(err)
		}
		cl.Release()
		lock.Release()
		members = append(members, c)
	}
	for i, c := range members {
		// A sweep in between must not take what a running member needs.
		if _, err := f.GC(ctx, GCOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, ok := f.Look(pin.HookInterfaceEntry(pin.CookieKey(s.sub.Netns.Cookie), "eth0", "tcx")); !ok {
			t.Fatalf("the interface's entry is gone with %d members left", len(members)-i)
		}
		c.end(t)
		if _, err := f.EndContainer(ctx, c.key); err != nil {
			t.Fatal(err)
		}
	}
	if live, _ := f.entries(t); live != 0 {
		t.Errorf("%d live entries after the last member ended", live)
	}
}
