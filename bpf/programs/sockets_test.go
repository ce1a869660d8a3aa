// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

// toListener is an allow list for all protocols and the ports of these listeners.
func toListeners(ls ...*listener) lists {
	allow := lists{}
	for _, l := range ls {
		prefix := netip.PrefixFrom(l.addr.Addr(), l.addr.Addr().BitLen()).String()
		allow[prefix] = append(allow[prefix], rule(protoAny, l.addr.Port()))
	}
	return allow
}

// TestCalls: connect and sendmsg give EPERM where the rules say so, and count it.
func TestCalls(t *testing.T) {
	eachFamily(t, bpftest.HostIPv4, bpftest.HostIPv6, func(t *testing.T, addr string) {
		c, allowed, other := newContainer(t), listen(t, addr), listen(t, addr)
		c.reaches(t, allowed)
		e := loadEgressTest(t, setup{allow: toListeners(allowed)})
		c.protectCgroup(t, e)
		calls := uint64(0)
		for _, do := range []string{"connect tcp", "connect mptcp", "connect udp", "sendto udp", "fast open", "mapped tcp", "mapped udp"} {
			if addr == bpftest.HostIPv6 && (do == "mapped tcp" || do == "mapped udp") {
				continue
			}
			if err := c.do(t, order{Do: do, To: allowed.addr, Payload: []byte("x")}); err != nil {
				t.Errorf("%s, allowed: %v", do, err)
			}
			if _, told := e.event(t); told {
				t.Errorf("%s, allowed: an event", do)
			}
			if err := c.do(t, order{Do: do, To: other.addr, Payload: []byte("x")}); !errors.Is(err, unix.EPERM) {
				t.Errorf("%s, not allowed: %v, want EPERM", do, err)
			}
			calls++
			ev, _ := e.event(t)
			if ev.Place != egressPlaceAtCall || ev.Reason != noRule || ev.Bytes != 0 || ev.To.Addr != other.addr.Addr().As16() || ev.To.Port != other.addr.Port() || ev.To.Ethertype == 0 || ev.To.Proto == 0 {
				t.Errorf("%s, not allowed: event %+v", do, ev)
			}
			if got := e.total(t, egressStatDeniedCalls); got != calls {
				t.Errorf("%s: %d calls refused, want %d", do, got, calls)
			}
		}
		if got := e.total(t, egressStatDeniedPackets); got != 0 {
			t.Errorf("%d packets refused: the calls should have been", got)
		}
	})
}

// eachFamily runs a test for an IPv4 and an IPv6 address.
func eachFamily(t *testing.T, ipv4, ipv6 string, test func(*testing.T, string)) {
	t.Helper()
	t.Run("IPv4", func(t *testing.T) { test(t, ipv4) })
	t.Run("IPv6", func(t *testing.T) { test(t, ipv6) })
}

// TestDenyAtCall: the deny list holds for calls, under either default.
func TestDenyAtCall(t *testing.T) {
	deny := func(t *testing.T, defaultAllow bool) {
		c, l := newContainer(t), listen(t, bpftest.HostIPv4)
		e := loadEgressTest(t, setup{defaultAllow: defaultAllow, allow: toListeners(l), deny: lists{bpftest.HostIPv4 + "/32": {rule(protoUDP)}}})
		c.protectCgroup(t, e)
		if err := c.do(t, order{Do: "connect tcp", To: l.addr}); err != nil {
			t.Errorf("TCP: %v", err)
		}
		for _, do := range []string{"connect udp", "sendto udp"} {
			if err := c.do(t, order{Do: do, To: l.addr}); !errors.Is(err, unix.EPERM) {
				t.Errorf("%s: %v, want EPERM", do, err)
			}
			if ev, _ := e.event(t); ev.Reason != denied {
				t.Errorf("%s: event %+v", do, ev)
			}
		}
	}
	t.Run("default deny", func(t *testing.T) { deny(t, false) })
	t.Run("default allow", func(t *testing.T) { deny(t, true) })
}

// TestPing: sockets of ICMP have no ports; a rule for their protocol covers them.
func TestPing(t *testing.T) {
	eachFamily(t, bpftest.HostIPv4, bpftest.HostIPv6, func(t *testing.T, addr string) {
		proto, message := egressIpProtoIcmp, icmpMessage(8, 1)
		to := netip.AddrPortFrom(netip.MustParseAddr(addr), 0)
		if to.Addr().Is6() {
			proto, message = egressIpProtoIcmpv6, icmpMessage(128, 1)
		}
		c := newContainer(t)
		e := loadEgressTest(t, setup{})
		c.protectCgroup(t, e)
		for _, do := range []string{"connect ping", "sendto ping", "sendto raw icmp"} {
			err := c.do(t, order{Do: do, To: to, Payload: message})
			// Ping sockets of IPv6 keep to themselves what became of a packet.
			if silent := do == "sendto ping" && to.Addr().Is6(); !silent && !errors.Is(err, unix.EPERM) {
				t.Errorf("%s, not allowed: %v, want EPERM", do, err)
			}
			if ev, _ := e.event(t); ev.Reason != noRule || ev.To.Proto != proto || ev.To.Port != 0 {
				t.Errorf("%s, not allowed: event %+v", do, ev)
			}
		}
		fill(t, e.Allow, lists{netip.PrefixFrom(to.Addr(), to.Addr().BitLen()).String(): {rule(proto)}})
		for _, do := range []string{"connect ping", "sendto ping", "sendto raw icmp"} {
			if err := c.do(t, order{Do: do, To: to, Payload: message}); err != nil {
				t.Errorf("%s, allowed: %v", do, err)
			}
		}
	})
}

// udpPacket is an IP packet to to, from the container, with a correct checksum.
func udpPacket(to netip.AddrPort) []byte {
	udp := udpDatagram(40000, to.Port())
	src, dst := ip(self(to.Addr().String())), to.Addr().AsSlice()
	sum := uint32(17 + len(udp))
	for _, b := range [][]byte{src, dst, udp} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], ^uint16(sum))
	if to.Addr().Is6() {
		return v6{src: ctr6, dst: to.Addr().String(), next: 17}.packet(udp)
	}
	packet := v4{src: ctr4, dst: to.Addr().String(), proto: 17}.packet(udp)
	binary.BigEndian.PutUint16(packet[10:], headerChecksum(packet[:20]))
	return packet
}

func headerChecksum(header []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// frameTo is udpPacket in a frame that the test's side of the wire accepts, with VLAN tags if there are any.
func (c *container) frameTo(t *testing.T, to netip.AddrPort, tags ...uint16) []byte {
	t.Helper()
	peer, err := net.InterfaceByIndex(c.peer)
	if err != nil {
		t.Fatal(err)
	}
	ethertype := uint16(typeIPv4)
	if to.Addr().Is6() {
		ethertype = typeIPv6
	}
	frame := eth(ethertype, udpPacket(to), tags...)
	copy(frame, peer.HardwareAddr)
	return frame
}

// outside makes a UDP socket in the container's namespace, but not in its cgroup.
func (c *container) outside(t *testing.T, to netip.AddrPort) *os.File {
	t.Helper()
	fd := -1
	c.ns.Do(t, func() {
		var err error
		if fd, err = socket(order{To: to}, unix.SOCK_DGRAM, 0); err != nil {
			t.Error(err)
		}
	})
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { f.Close() })
	return f
}

// reaches waits until datagrams of the container arrive at l: IPv6 takes a moment on
// a new interface, and what waits for neighbour discovery comes later.
func (c *container) reaches(t *testing.T, l *listener) {
	t.Helper()
	bpftest.Eventually(t, "the first datagram", func() error {
		if err := c.do(t, order{Do: "sendto udp", To: l.addr, Payload: []byte("x")}); err != nil {
			return err
		}
		if !l.got(t) {
			return errors.New("it did not arrive")
		}
		return nil
	})
	for l.got(t) {
	}
}

// TestBypasses: what goes around the calls is refused at the socket, what goes
// around the cgroup at the interface; without them it would arrive.
func TestBypasses(t *testing.T) {
	eachFamily(t, bpftest.HostIPv4, bpftest.HostIPv6, func(t *testing.T, addr string) {
		c, l := newContainer(t), listen(t, addr)
		sends := map[string]struct {
			order    order
			atSocket bool
		}{
			"raw":             {order{Do: "sendto raw", Payload: udpPacket(l.addr)}, true},
			"packet":          {order{Do: "packet", Payload: c.frameTo(t, l.addr), Device: "eth0"}, false},
			"packet, bypass":  {order{Do: "packet", Payload: c.frameTo(t, l.addr), Device: "eth0", Bypass: true}, false},
			"packet, tagged":  {order{Do: "packet", Payload: c.frameTo(t, l.addr, typeVLAN), Device: "eth0"}, false},
			"packet, 2 tags":  {order{Do: "packet", Payload: c.frameTo(t, l.addr, typeQinQ, typeVLAN), Device: "eth0"}, false},
			"inherited":       {order{Do: "inherited", Payload: []byte("x")}, false},
			"inherited, long": {order{Do: "inherited", Payload: make([]byte, 1900)}, false},
		}
		arrives := func(name string) (bool, error) {
			o := sends[name].order
			o.To = l.addr
			var files []*os.File
			if o.Do == "inherited" {
				files = append(files, c.outside(t, l.addr))
			}
			err := c.do(t, o, files...)
			return l.got(t), err
		}
		tagged := func(name string) bool { return name == "packet, tagged" || name == "packet, 2 tags" }
		c.reaches(t, l)
		for name := range sends {
			if got, err := arrives(name); err != nil || !got && !tagged(name) { // no VLAN device is there
				t.Fatalf("%s, without programs: %v, arrived: %v", name, err, got)
			}
		}

		e := loadEgressTest(t, setup{})
		c.protectCgroup(t, e)
		for name, send := range sends {
			got, err := arrives(name)
			_, told := e.event(t)
			switch {
			case send.atSocket && (got || !told || !errors.Is(err, unix.EPERM)):
				t.Errorf("%s, cgroup programs: %v, arrived: %v, told: %v", name, err, got, told)
			case !send.atSocket && (told || err != nil || !got && !tagged(name)):
				t.Errorf("%s: the cgroup programs see it, so docs and other tests are wrong (%v, arrived: %v, told: %v)", name, err, got, told)
			}
		}

		c.protectInterface(t, e)
		for name, send := range sends {
			if send.atSocket {
				continue
			}
			got, err := arrives(name)
			ev, _ := e.event(t)
			if got || err != nil || ev.Place != egressPlaceAtInterface || ev.Reason != noRule || ev.To.Addr != l.addr.Addr().As16() || ev.To.Proto != protoUDP {
				t.Errorf("%s, interface programs: %v, arrived: %v, event %+v", name, err, got, ev)
			}
			for told := true; told; { // fragments
				_, told = e.event(t)
			}
		}
		fill(t, e.Allow, toListeners(l))
		for name := range sends {
			if got, err := arrives(name); err != nil || !got && !tagged(name) && name != "inherited, long" {
				t.Errorf("%s, allowed: %v, arrived: %v", name, err, got)
			}
		}
	})
}

// TestLyingPacketSocket: on the container's own side, a packet socket decides what
// the kernel believes to be the protocol. The frame counts.
func TestLyingPacketSocket(t *testing.T) {
	bpftest.NeedKernel(t, 6, 6, "TCX")
	c, l := newContainer(t), listen(t, bpftest.HostIPv4)
	e := loadEgressTest(t, setup{})
	c.ns.Do(t, func() { c.protectInside(t, e) })
	frame := c.frameTo(t, l.addr)
	for _, protocol := range []uint16{0, typeIPv4, typeARP, typeIPv6, 0x0004, typeVLAN} {
		o := order{Do: "packet", Payload: frame, Device: "eth0", Local: protocol}
		if err := c.do(t, o); !errors.Is(err, unix.ENOBUFS) {
			t.Errorf("protocol %#x: %v, want ENOBUFS", protocol, err)
		}
		if ev, _ := e.event(t); l.got(t) || ev.Place != egressPlaceAtInterface {
			t.Errorf("protocol %#x: it passed; event %+v", protocol, ev)
		}
	}
	// Nor is it ARP because the frame says so: the kernel would treat it as IPv4. On a
	// device without Ethernet headers, any address may look like a type.
	o := order{Do: "packet", Payload: eth(typeARP, udpPacket(l.addr)), Device: "eth0", Local: typeIPv4}
	if err := c.do(t, o); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("ARP that claims to be IPv4: %v, want ENOBUFS", err)
	}
	if ev, _ := e.event(t); ev.Reason != badFrame {
		t.Errorf("ARP that claims to be IPv4: event %+v", ev)
	}
}

// TestContainerSideIsWeaker: on the container's own side a packet socket gets around
// the program. It is why policies should name the host's side, and why docs say so.
func TestContainerSideIsWeaker(t *testing.T) {
	bpftest.NeedKernel(t, 6, 6, "TCX")
	c, l := newContainer(t), listen(t, bpftest.HostIPv4)
	e := loadEgressTest(t, setup{})
	c.ns.Do(t, func() { c.protectInside(t, e) })
	if err := c.do(t, order{Do: "packet", Payload: c.frameTo(t, l.addr), Device: "eth0", Bypass: true}); err != nil || !l.got(t) {
		t.Errorf("the frame did not arrive (%v): this kernel is better than the docs say", err)
	}
}

// TestStaysInside: loopback and Unix sockets work under rules that deny everything.
func TestStaysInside(t *testing.T) {
	c := newContainer(t)
	e, none := loadEgressTest(t, setup{}), setup{deny: lists{"0.0.0.0/0": everything, "::/0": everything}}
	c.protectCgroup(t, e)
	c.protectCgroup(t, loadEgressTest(t, none))
	c.protectInterface(t, loadEgressTest(t, none))
	for _, addr := range []string{"127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"} {
		if err := c.do(t, order{Do: "loopback", To: netip.AddrPortFrom(netip.MustParseAddr(addr), 0)}); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := c.do(t, order{Do: "unix"}); err != nil {
		t.Errorf("Unix socket: %v", err)
	}
	if n := entries(t, e); n != 0 {
		t.Errorf("%d flows were learned on lo", n)
	}
}

// TestOwnAddress: the container's own address is one like any other at the call; one
// rule is enough to talk to it, since lo carries the answers.
func TestOwnAddress(t *testing.T) {
	eachFamily(t, ctr4, ctr6, func(t *testing.T, addr string) {
		c := newContainer(t)
		e := loadEgressTest(t, setup{})
		c.protectCgroup(t, e)
		o := order{Do: "loopback", To: netip.AddrPortFrom(netip.MustParseAddr(addr), 0)}
		if err := c.do(t, o); !errors.Is(err, unix.EPERM) {
			t.Errorf("not allowed: %v, want EPERM", err)
		}
		fill(t, e.Allow, lists{netip.PrefixFrom(o.To.Addr(), o.To.Addr().BitLen()).String(): {rule(protoTCP), rule(protoUDP)}})
		if err := c.do(t, o); err != nil {
			t.Errorf("allowed: %v", err)
		}
	})
}

// TestLoopbackAddressOnTheWire: 127.0.0.1 is loopback on lo only. A host with
// route_localnet would take it from eth0.
func TestLoopbackAddressOnTheWire(t *testing.T) {
	e := loadEgressTest(t, setup{})
	if got := e.sendFromSocket(t, tcpTo("127.0.0.1", 80), device(t)); got != noRule {
		t.Errorf("%d, want %d", got, noRule)
	}
	if got := e.send(t, tcpTo("127.0.0.1", 80)); got != noRule {
		t.Errorf("at the interface: %d, want %d", got, noRule)
	}
}

// TestInheritedTCP: the opening segment of a socket from outside ends at the interface.
func TestInheritedTCP(t *testing.T) {
	c, l := newContainer(t), listen(t, bpftest.HostIPv4)
	e := loadEgressTest(t, setup{})
	c.protectCgroup(t, e)
	c.protectInterface(t, e)
	var err error
	c.ns.Do(t, func() { err = connect(order{To: l.addr}, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0) })
	if !errors.Is(err, unix.EINPROGRESS) {
		t.Errorf("%v, want EINPROGRESS", err)
	}
	bpftest.Eventually(t, "refusing the opening segment", func() error {
		if ev, _ := e.event(t); ev.Place != egressPlaceAtInterface || ev.To.Proto != protoTCP || ev.To.Port != l.addr.Port() {
			return fmt.Errorf("event %+v", ev)
		}
		return nil
	})
}
