// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

// eachProtection runs a test under the cgroup programs, the interface programs, and
// both with maps of their own, as hook and CNI plugin attach them.
func eachProtection(t *testing.T, s setup, test func(*testing.T, *container)) {
	t.Helper()
	for name, parts := range map[string]struct{ cgroup, iface bool }{
		"cgroup": {true, false}, "interface": {false, true}, "both": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t)
			if parts.cgroup {
				c.protectCgroup(t, loadEgressTest(t, s))
			}
			if parts.iface {
				c.protectInterface(t, loadEgressTest(t, s))
			}
			test(t, c)
		})
	}
}

// TestServers: a container that may call nobody can be called.
func TestServers(t *testing.T) {
	eachProtection(t, setup{}, func(t *testing.T, c *container) {
		port := uint16(8000)
		for _, addr := range []string{bpftest.CtrIPv4, bpftest.CtrIPv6} {
			to := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
			for do, network := range map[string]string{"serve tcp": "tcp", "serve mptcp": "tcp", "serve udp": "udp"} {
				port++ // the last server may not be quite gone
				to = netip.AddrPortFrom(to.Addr(), port)
				server := c.start(t, order{Do: do, Local: port})
				if err := server.answer(t); err != nil {
					t.Fatalf("%s: %v", do, err)
				}
				if err := call(network, to); err != nil {
					t.Errorf("%s at %s: %v", do, to, err)
				}
				if err := server.answer(t); err != nil {
					t.Errorf("%s at %s, the server: %v", do, to, err)
				}
			}
			if err := call("udp", netip.AddrPortFrom(to.Addr(), 9)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("closed port of %s: %v, want ECONNREFUSED", addr, err)
			}
			if err := call("tcp", netip.AddrPortFrom(to.Addr(), 9)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("closed TCP port of %s: %v, want ECONNREFUSED", addr, err)
			}
		}
	})
}

// TestAnswerFromAnotherSocket: the reply rule is about ports, not about sockets, and
// lets nobody call back.
func TestAnswerFromAnotherSocket(t *testing.T) {
	const port = 8001
	eachFamily(t, bpftest.CtrIPv4, bpftest.CtrIPv6, func(t *testing.T, addr string) {
		c := newContainer(t)
		c.protectCgroup(t, loadEgressTest(t, setup{}))
		to := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
		server := c.start(t, order{Do: "serve and call", Local: port, To: to})
		if err := server.answer(t); err != nil {
			t.Fatal(err)
		}
		if err := call("udp", to); err != nil {
			t.Error(err)
		}
		if err := server.answer(t); err != nil {
			t.Errorf("the server: %v", err)
		}
	})
}

// TestFlowAtCall: a flow lets a datagram socket name whom it answers, unless he is
// denied. It never lets a connection be opened.
func TestFlowAtCall(t *testing.T) {
	const port = 8005
	c, l := newContainer(t), listen(t, bpftest.HostIPv4)
	e := loadEgressTest(t, setup{})
	c.protectCgroup(t, e)
	var cookie uint64
	f := c.outside(t, l.addr)
	c.ns.Do(t, func() {
		var err error
		if cookie, err = unix.GetsockoptUint64(int(f.Fd()), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
			t.Error(err)
		}
	})
	flow := egressFlow{Remote: l.addr.Addr().As16(), RemotePort: l.addr.Port(), LocalPort: port, Proto: protoUDP, Netns: cookie}
	if err := e.FlowsOther.Put(flow, monotonic(t)); err != nil {
		t.Fatal(err)
	}
	flow.Proto = protoTCP
	if err := e.FlowsTcp.Put(flow, monotonic(t)); err != nil {
		t.Fatal(err)
	}
	for do, want := range map[string]error{"sendto udp": nil, "connect udp": nil, "connect tcp": unix.EPERM} {
		if err := c.do(t, order{Do: do, Local: port, To: l.addr}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", do, err, want)
		}
	}
	e.event(t) // of the connection
	fill(t, e.Deny, lists{bpftest.HostIPv4 + "/32": everything})
	for _, do := range []string{"sendto udp", "connect udp"} {
		if err := c.do(t, order{Do: do, Local: port, To: l.addr}); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s, denied: %v, want EPERM", do, err)
		}
		if ev, _ := e.event(t); ev.Place != egressPlaceAtCall || ev.Reason != denied {
			t.Errorf("%s, denied: event %+v", do, ev)
		}
	}
}

// TestNoRepliesAtAll: without allow_replies nobody gets an answer.
func TestNoRepliesAtAll(t *testing.T) {
	const port = 8002
	eachProtection(t, setup{noReplies: true}, func(t *testing.T, c *container) {
		// IPv4: ARP is quick. TestServers shows that an answer would come.
		to := netip.AddrPortFrom(netip.MustParseAddr(bpftest.CtrIPv4), port)
		server := c.start(t, order{Do: "serve udp", Local: port})
		if err := server.answer(t); err != nil {
			t.Fatal(err)
		}
		if err := callFor("udp", to, 500*time.Millisecond); err == nil {
			t.Error("an answer came")
		}
		// The server read the packet: that there is no answer is the rule's doing.
		if err := server.answer(t); err != nil && !errors.Is(err, unix.EPERM) {
			t.Errorf("the server: %v", err)
		}
	})
}

// call says something and waits for the answer, longer than neighbour discovery
// needs for a second try.
func call(network string, to netip.AddrPort) error { return callFor(network, to, 5*time.Second) }

func callFor(network string, to netip.AddrPort, limit time.Duration) error {
	c, err := net.DialTimeout(network, to.String(), limit)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 10))
	return err
}

// TestIPv6Neighbours: both sides can find each other after their caches are lost.
func TestIPv6Neighbours(t *testing.T) {
	const port = 8003
	c := newContainer(t)
	e := loadEgressTest(t, setup{})
	c.protectInterface(t, e)
	flush := func() {
		ns, err := netlink.NeighList(0, netlink.FAMILY_V6)
		if err != nil {
			t.Error(err)
		}
		for _, n := range ns {
			_ = netlink.NeighDel(&n) // permanent ones stay
		}
	}
	flush()
	c.ns.Do(t, flush)
	to := netip.AddrPortFrom(netip.MustParseAddr(bpftest.CtrIPv6), port)
	server := c.start(t, order{Do: "serve udp", Local: port})
	if err := server.answer(t); err != nil {
		t.Fatal(err)
	}
	if err := call("udp", to); err != nil {
		t.Error(err)
	}
}

// TestForgedFlow: a process that makes a namespace of its own can let any packet
// arrive there. That must not open its way out of the container's namespace.
func TestForgedFlow(t *testing.T) {
	const port = 5000
	c, l := newContainer(t), listen(t, bpftest.HostIPv4)
	e := loadEgressTest(t, setup{})
	c.protectCgroup(t, e)

	own := bpftest.NetNS(t)
	own.Do(t, func() {
		if err := wire("fake0", "fake1", ctr4+"/24"); err != nil {
			t.Error(err)
		}
	})
	victim := c.start(t, order{Do: "receive udp", Netns: own.Path(), Local: port, To: netip.AddrPortFrom(netip.MustParseAddr(ctr4), 0)})
	if err := victim.answer(t); err != nil {
		t.Fatal(err)
	}
	packet := v4{src: bpftest.HostIPv4, dst: ctr4, proto: 17}.packet(udpDatagram(l.addr.Port(), port))
	packet[10], packet[11] = byte(headerChecksum(packet[:20])>>8), byte(headerChecksum(packet[:20]))
	frame := eth(typeIPv4, packet)
	for i := range 6 {
		frame[i] = 0xff
	}
	if err := c.do(t, order{Do: "packet", Netns: own.Path(), Device: "fake1", Payload: frame}); err != nil {
		t.Fatal(err)
	}
	if err := victim.answer(t); err != nil {
		t.Fatalf("the forged packet did not arrive: %v", err)
	}
	if n := entries(t, e); n != 1 {
		t.Fatalf("%d flows, want the forged one", n)
	}
	for _, do := range []string{"sendto udp", "connect udp"} {
		if err := c.do(t, order{Do: do, Local: port, To: l.addr, Payload: []byte("x")}); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %v, want EPERM", do, err)
		}
	}
	raw := v4{src: ctr4, dst: bpftest.HostIPv4, proto: 17}.packet(udpDatagram(port, l.addr.Port()))
	if err := c.do(t, order{Do: "sendto raw", To: l.addr, Payload: raw}); !errors.Is(err, unix.EPERM) {
		t.Errorf("raw: %v, want EPERM", err)
	}
	// In the namespace where it arrived, it may be answered: it goes nowhere from there.
	if err := c.do(t, order{Do: "sendto udp", Netns: own.Path(), Local: port, To: l.addr, Payload: []byte("x")}); err != nil {
		t.Errorf("answer in its own namespace: %v", err)
	}
}

// wire makes a veth pair within one namespace.
func wire(a, b, addr string) error {
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a}, PeerName: b}); err != nil {
		return err
	}
	for _, name := range []string{a, b} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if name == a {
			parsed, err := netlink.ParseAddr(addr)
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(l, parsed); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	return nil
}

// TestMeterSockets: real traffic of a cgroup's sockets is counted to the byte.
func TestMeterSockets(t *testing.T) {
	eachFamily(t, bpftest.CtrIPv4, bpftest.CtrIPv6, func(t *testing.T, addr string) {
		const port = 8004
		header, kinds := 40, []meterTraffic{meterTrafficSentIpv6, meterTrafficReceivedIpv6}
		if addr == bpftest.CtrIPv4 {
			header, kinds = 20, []meterTraffic{meterTrafficSentIpv4, meterTrafficReceivedIpv4}
		}
		c, m := newContainer(t), loadMeterTest(t)
		c.attachCgroup(t, map[*ebpf.Program]ebpf.AttachType{m.SkbIngress: ebpf.AttachCGroupInetIngress, m.SkbEgress: ebpf.AttachCGroupInetEgress})
		server := c.start(t, order{Do: "serve udp", Local: port})
		if err := server.answer(t); err != nil {
			t.Fatal(err)
		}
		if err := call("udp", netip.AddrPortFrom(netip.MustParseAddr(addr), port)); err != nil {
			t.Fatal(err)
		}
		want := meterAmount{Packets: 1, Bytes: uint64(header + 8 + len("hello"))}
		for _, kind := range kinds {
			if got := m.amount(t, kind); got != want {
				t.Errorf("kind %d: %+v, want %+v", kind, got, want)
			}
		}
	})
}
