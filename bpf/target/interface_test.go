// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

func TestInterfacesOfVeth(t *testing.T) {
	ns := bpftest.NetNS(t)
	bpftest.Veth(t, ns, "lptarget0", "eth0")
	n := openNetns(t, ns.Path())
	noLeaks(t)
	is, err := n.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	if len(is) != 1 {
		t.Fatalf("%d interfaces, want eth0 alone: %+v", len(is), is)
	}
	host, err := netlink.LinkByName("lptarget0")
	if err != nil {
		t.Fatal(err)
	}
	one, err := n.Interface("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []Interface{is[0], *one} {
		if i.Netns != n || i.Name != "eth0" || i.Index == 0 || i.Kind != "veth" || i.MTU != 1500 || !i.Up || i.XDP || len(i.MAC) != 6 || !i.DiesWithNetns {
			t.Errorf("inside: %+v", i)
		}
		p := i.Peer
		if p == nil || p.Name != "lptarget0" || p.Index != host.Attrs().Index || p.Kind != "veth" || p.MAC.String() != host.Attrs().HardwareAddr.String() {
			t.Errorf("peer: %+v", p)
		}
		for _, want := range []string{bpftest.CtrIPv4 + "/24", bpftest.CtrIPv6 + "/64"} {
			if !slices.Contains(i.Addresses, netip.MustParsePrefix(want)) {
				t.Errorf("addresses %v lack %s", i.Addresses, want)
			}
		}
	}
}

func TestAddressesKeepTheirOrder(t *testing.T) {
	ns := bpftest.NetNS(t)
	n := openNetns(t, ns.Path())
	want := []string{"198.51.100.9/32", "10.0.0.1/8", "198.51.100.1/24"}
	err := n.Do(func() error {
		d := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		if err := netlink.LinkAdd(d); err != nil {
			return err
		}
		for _, a := range want {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(d, addr); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	i, err := n.Interface("br0")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range i.Addresses {
		if a.Addr().Is4() {
			got = append(got, a.String())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("addresses %v, want %v", got, want)
	}
	if i.Peer != nil || i.Kind != "bridge" || i.Up {
		t.Errorf("a bridge: %+v", i)
	}
}

func TestInterfaceByName(t *testing.T) {
	ns := bpftest.NetNS(t)
	bpftest.Veth(t, ns, "lptarget1", "eth0")
	n := openNetns(t, ns.Path())
	err := n.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := netlink.LinkAddAltName(l, "other"); err != nil {
			return err
		}
		return netlink.LinkAddAltName(l, "a-name-that-is-longer-than-15")
	})
	if err != nil {
		t.Fatal(err)
	}
	noLeaks(t)
	for _, name := range []string{"eth1", "lptarget1", "other", "a-name-that-is-longer-than-15", ""} {
		if i, err := n.Interface(name); !errors.Is(err, ErrGone) {
			t.Errorf("%q: %+v, %v, want ErrGone", name, i, err)
		}
	}
}

// makeVeth makes a pair, one end of it in namespace at with an index of the test's choice.
func makeVeth(t *testing.T, at *Netns, name string, index int, peerAt *Netns, peer string) {
	t.Helper()
	link := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: name, Index: index},
		PeerName:      peer,
		PeerNamespace: netlink.NsFd(int(peerAt.File.Fd())),
	}
	if err := at.Do(func() error { return netlink.LinkAdd(link) }); err != nil {
		t.Fatalf("veth %s: %v", name, err)
	}
	t.Cleanup(func() { _ = at.Do(func() error { return netlink.LinkDel(link) }) })
}

// Two pairs with the same indexes: only the ids of the namespaces tell them apart.
func TestPeerOfAnotherNamespaceIsNotOurs(t *testing.T) {
	own, err := HostNetns()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close() })
	a, b, c := openNetns(t, bpftest.NetNS(t).Path()), openNetns(t, bpftest.NetNS(t).Path()), openNetns(t, bpftest.NetNS(t).Path())
	makeVeth(t, own, "lptarget2", 7777, a, "eth0")
	makeVeth(t, c, "lptarget2", 7777, b, "eth0")
	ours, err := a.Interface("eth0")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := b.Interface("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if ours.Index != theirs.Index {
		t.Fatalf("indexes %d and %d: the test needs the same", ours.Index, theirs.Index)
	}
	if ours.Peer == nil || ours.Peer.Index != 7777 {
		t.Errorf("peer of ours: %+v", ours.Peer)
	}
	if theirs.Peer != nil {
		t.Errorf("interface of another pair got our device for a peer: %+v", theirs.Peer)
	}
}

// A pair between our namespace and the container's is the peer of one interface there only.
func TestPeerOfAnotherInterfaceIsNotOurs(t *testing.T) {
	own, err := HostNetns()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close() })
	b, c := openNetns(t, bpftest.NetNS(t).Path()), openNetns(t, bpftest.NetNS(t).Path())
	makeVeth(t, own, "lptarget5", 8888, b, "eth0")
	makeVeth(t, c, "lptarget5", 8888, b, "eth1")
	is, err := b.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range is {
		if got, want := i.Peer != nil, i.Name == "eth0"; got != want {
			t.Errorf("%s: peer %+v", i.Name, i.Peer)
		}
	}
}

func TestInterfacesWithoutPeer(t *testing.T) {
	n := openNetns(t, bpftest.NetNS(t).Path())
	other := openNetns(t, bpftest.NetNS(t).Path())
	makeVeth(t, n, "inner0", 0, n, "inner1")
	makeVeth(t, n, "third", 0, other, "third")
	err := n.Do(func() error {
		if err := netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tap0"}, Mode: netlink.TUNTAP_MODE_TAP}); err != nil {
			return err
		}
		parent, err := netlink.LinkByName("inner0")
		if err != nil {
			return err
		}
		return netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "mv0", ParentIndex: parent.Attrs().Index}})
	})
	if err != nil {
		t.Fatal(err)
	}
	noLeaks(t)
	is, err := n.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for _, i := range is {
		kinds[i.Name] = i.Kind
		if i.Peer != nil {
			t.Errorf("%s has a peer in our namespace: %+v", i.Name, i.Peer)
		}
	}
	want := map[string]string{"inner0": "veth", "inner1": "veth", "third": "veth", "tap0": "tun", "mv0": "macvlan"}
	if !maps.Equal(kinds, want) {
		t.Errorf("interfaces %v, want %v", kinds, want)
	}
}

func TestDiesWithNetns(t *testing.T) {
	for kind, want := range map[string]bool{"": false, "can": false, "veth": true, "macvlan": true, "ipvlan": true, "dummy": true, "tun": true, "vlan": true} {
		if got := diesWithNetns(kind); got != want {
			t.Errorf("kind %q: dies %v, want %v", kind, got, want)
		}
	}
	// The claim itself, for what any kernel has: the other end goes as well.
	ns := bpftest.NetNS(t)
	bpftest.Veth(t, ns, "lptarget3", "eth0")
	ns.Kill(t)
	bpftest.Eventually(t, "end of the pair", func() error {
		if _, err := netlink.LinkByName("lptarget3"); errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil
		}
		return errors.New("it is still there")
	})
}

func TestDeviceShowsXDP(t *testing.T) {
	ns := bpftest.NetNS(t)
	bpftest.Veth(t, ns, "lptarget4", "eth0")
	n := openNetns(t, ns.Path())
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	host, err := netlink.LinkByName("lptarget4")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetXdpFd(host, prog.FD()); err != nil {
		t.Fatal(err)
	}
	i, err := n.Interface("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if i.Peer == nil || !i.Peer.XDP || i.XDP {
		t.Errorf("XDP on the peer alone: %+v, peer %+v", i, i.Peer)
	}
}

func TestDumpIsReadAgain(t *testing.T) {
	calls := 0
	got, err := dump(func() ([]int, error) {
		calls++
		if calls < 3 {
			return []int{1}, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := dump(func() ([]int, error) { return []int{1}, netlink.ErrDumpInterrupted }); err == nil {
		t.Errorf("%v of a list that never stops changing", got)
	}
}
