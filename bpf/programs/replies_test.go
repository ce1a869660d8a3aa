// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a packet that arrives and one that goes out.
type pair struct {
	in, out []byte
	want    egressReason
}

// TestReplies: under default deny, what answers a packet from outside passes.
func TestReplies(t *testing.T) {
	tcpPair := func(in, out byte, want egressReason) pair {
		return pair{between(other4, ctr4, 6, tcpSegment(5555, 80, in)), between(ctr4, other4, 6, tcpSegment(80, 5555, out)), want}
	}
	echo := func(request, reply byte, id uint16, want egressReason) pair {
		return pair{between(other4, ctr4, 1, icmpMessage(request, 7)), between(ctr4, other4, 1, icmpMessage(reply, id)), want}
	}
	echo6 := func(request, reply byte, id uint16, want egressReason) pair {
		return pair{between(other6, ctr6, 58, icmpMessage(request, 7)), between(ctr6, other6, 58, icmpMessage(reply, id)), want}
	}
	syn4 := between(other4, ctr4, 6, tcpSegment(5555, 80, syn))
	udp4 := between(other4, ctr4, 17, udpDatagram(5555, 53))
	tests := map[string]pair{
		"TCP answered":                {in: syn4, out: between(ctr4, other4, 6, tcpSegment(80, 5555, syn|ack)), want: passed},
		"TCP later":                   tcpPair(syn, ack, passed),
		"TCP reset":                   tcpPair(syn, rst|ack, passed),
		"TCP called back":             tcpPair(syn, syn, noRule),
		"TCP without opening":         tcpPair(ack, ack, noRule),
		"TCP answer to our opening":   tcpPair(syn|ack, ack, noRule),
		"TCP to another port":         {syn4, between(ctr4, other4, 6, tcpSegment(80, 5556, ack)), noRule},
		"TCP from another port":       {syn4, between(ctr4, other4, 6, tcpSegment(81, 5555, ack)), noRule},
		"TCP to another address":      {syn4, between(ctr4, peer4, 6, tcpSegment(80, 5555, ack)), noRule},
		"TCP answered by UDP":         {syn4, between(ctr4, other4, 17, udpDatagram(80, 5555)), noRule},
		"TCP over IPv6":               {between(other6, ctr6, 6, tcpSegment(5555, 80, syn)), between(ctr6, other6, 6, tcpSegment(80, 5555, syn|ack)), passed},
		"TCP, tagged":                 {eth(typeIPv4, syn4[14:], typeVLAN), between(ctr4, other4, 6, tcpSegment(80, 5555, ack)), passed},
		"TCP, cut off":                {between(other4, ctr4, 6, tcpSegment(5555, 80, syn)[:13]), between(ctr4, other4, 6, tcpSegment(80, 5555, ack)), noRule},
		"TCP, answer cut off":         {syn4, between(ctr4, other4, 6, tcpSegment(80, 5555, ack)[:13]), noRule},
		"UDP answered":                {udp4, between(ctr4, other4, 17, udpDatagram(53, 5555)), passed},
		"UDP to another port":         {udp4, between(ctr4, other4, 17, udpDatagram(53, 5556)), noRule},
		"UDP from another port":       {udp4, between(ctr4, other4, 17, udpDatagram(54, 5555)), noRule},
		"UDP over IPv6":               {between(other6, ctr6, 17, udpDatagram(5555, 53)), between(ctr6, other6, 17, udpDatagram(53, 5555)), passed},
		"UDP, later fragment":         {udp4, v4{src: ctr4, dst: other4, proto: 17, fragment: 1}.frame(udpDatagram(53, 5555)), noRule},
		"echo reply, cut off":         {between(other4, ctr4, 1, icmpMessage(8, 0)), between(ctr4, other4, 1, make([]byte, 7)), noRule},
		"UDP, fragment arrived":       {v4{src: other4, dst: ctr4, proto: 17, fragment: 1}.frame(udpDatagram(5555, 53)), between(ctr4, other4, 17, udpDatagram(53, 5555)), noRule},
		"echo answered":               echo(8, 0, 7, passed),
		"echo, another identifier":    echo(8, 0, 8, noRule),
		"echo, request back":          echo(8, 8, 7, noRule),
		"echo reply is no request":    echo(0, 0, 7, noRule),
		"timestamp is no echo":        echo(13, 0, 7, noRule),
		"echo6 answered":              echo6(128, 129, 7, passed),
		"echo6, another identifier":   echo6(128, 129, 8, noRule),
		"echo6, request back":         echo6(128, 128, 7, noRule),
		"echo6 reply is no request":   echo6(129, 129, 7, noRule),
		"SCTP is not tracked":         {between(other4, ctr4, 132, append(slices.Concat(be16(5555), be16(80)), make([]byte, 12)...)), between(ctr4, other4, 132, append(slices.Concat(be16(80), be16(5555)), make([]byte, 12)...)), noRule},
		"what arrived was not IP":     {eth(typeARP, make([]byte, 28)), between(ctr4, other4, 17, udpDatagram(0, 0)), noRule},
		"what arrived was unreadable": {v4{src: other4, dst: ctr4, proto: 17, version: 0x44}.frame(udpDatagram(5555, 53)), between(ctr4, other4, 17, udpDatagram(53, 5555)), noRule},
	}
	for name, test := range tests {
		e := loadEgressTest(t, setup{})
		if got := e.send(t, test.out); got != noRule {
			t.Errorf("%s, before anything arrived: %d, want %d", name, got, noRule)
		}
		e.receive(t, test.in)
		if got := e.send(t, test.out); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
		e = loadEgressTest(t, setup{noReplies: true})
		e.receive(t, test.in)
		if got := e.send(t, test.out); got != noRule {
			t.Errorf("%s, without allow_replies: %d, want %d", name, got, noRule)
		}
		if n := entries(t, e); n != 0 {
			t.Errorf("%s, without allow_replies: %d flows are kept", name, n)
		}
	}
}

// entries counts the flows that are remembered.
func entries(t *testing.T, e *egress) int {
	t.Helper()
	var flow egressFlow
	var last uint64
	n := 0
	for it := e.FlowsTcp.Iterate(); it.Next(&flow, &last); n++ {
	}
	for it := e.FlowsOther.Iterate(); it.Next(&flow, &last); n++ {
	}
	return n
}

// TestDenyBeatsReplies: who is denied gets no answer either.
func TestDenyBeatsReplies(t *testing.T) {
	e := loadEgressTest(t, setup{})
	answer := between(ctr4, other4, 6, tcpSegment(80, 5555, syn|ack))
	e.receive(t, between(other4, ctr4, 6, tcpSegment(5555, 80, syn)))
	if got := e.send(t, answer); got != passed {
		t.Errorf("before it is denied: %d, want passed", got)
	}
	fill(t, e.Deny, lists{other4 + "/32": {rule(protoTCP)}})
	if got := e.send(t, answer); got != denied {
		t.Errorf("%d, want %d", got, denied)
	}
}

// TestNoFlowForWhatTheListsDecide: answers of servers that the container asks must
// not fill the maps, nor must packets under default allow.
func TestNoFlowForWhatTheListsDecide(t *testing.T) {
	e := loadEgressTest(t, setup{allow: lists{other4 + "/32": {rule(protoUDP, 53)}}, deny: lists{peer4 + "/32": everything}})
	e.receive(t, between(other4, ctr4, 17, udpDatagram(53, 40000)))
	e.receive(t, between(peer4, ctr4, 17, udpDatagram(53, 40000)))
	e.receive(t, between(peer4, ctr4, 6, tcpSegment(5555, 80, syn)))
	if n := entries(t, e); n != 0 {
		t.Errorf("%d flows, want none", n)
	}
	e = loadEgressTest(t, setup{defaultAllow: true})
	e.receive(t, between(other4, ctr4, 17, udpDatagram(53, 40000)))
	if n := entries(t, e); n != 0 {
		t.Errorf("default allow: %d flows, want none", n)
	}
}

// TestNeverOpened: what looks like a flow, but is none.
func TestNeverOpened(t *testing.T) {
	e := loadEgressTest(t, setup{})
	// Ports 0, as where ports are unknown.
	e.receive(t, between(other4, ctr4, 17, udpDatagram(0, 0)))
	if got := e.send(t, v4{src: ctr4, dst: other4, proto: 17, fragment: 1}.frame(udpDatagram(0, 0))); got != noRule {
		t.Errorf("fragment to who sent from port 0: %d, want %d", got, noRule)
	}
	e.receive(t, between(peer4, ctr4, 17, udpDatagram(0, 0)[:3]))
	e.receive(t, v4{src: peer4, dst: ctr4, proto: 17, fragment: 1}.frame(udpDatagram(0, 0)))
	if got := e.send(t, between(ctr4, peer4, 17, udpDatagram(0, 0))); got != noRule {
		t.Errorf("UDP to port 0, after a fragment: %d, want %d", got, noRule)
	}
	// Echo identifiers, as where neighbours are.
	for _, id := range []uint16{0, 135} {
		e.receive(t, between(other6, ctr6, 58, icmpMessage(128, id)))
	}
	if got := e.send(t, v6{src: ctr6, dst: other6, next: 58, hops: 255}.frame(icmpMessage(136, 0, ip(other6)...))); got != noRule {
		t.Errorf("neighbour advertisement to who sent echo requests: %d, want %d", got, noRule)
	}
	// TCP flags, as where types are.
	e.receive(t, v6{src: other6, dst: ctr6, next: 6, hops: 255}.frame(tcpSegment(1, 2, 135)))
	if got := e.send(t, v6{src: ctr6, dst: other6, next: 58, hops: 255}.frame(icmpMessage(136, 0, ip(other6)...))); got != noRule {
		t.Errorf("neighbour advertisement to who sent odd TCP: %d, want %d", got, noRule)
	}
	// A neighbour that claims to be an IPv4 address.
	e.receive(t, v6{src: "::ffff:" + other4, dst: ctr6, next: 58, hops: 255}.frame(icmpMessage(135, 0, ip(ctr6)...)))
	if got := e.send(t, v4{src: ctr4, dst: other4, proto: 58, ttl: 255}.frame(icmpMessage(136, 0))); got != noRule {
		t.Errorf("neighbour advertisement in IPv4: %d, want %d", got, noRule)
	}
	// A flow from before allow_replies was switched off.
	e = loadEgressTest(t, setup{noReplies: true})
	if err := e.FlowsOther.Put(egressFlow{Remote: mapped(other4), RemotePort: 5555, LocalPort: 53, Proto: protoUDP}, monotonic(t)); err != nil {
		t.Fatal(err)
	}
	if got := e.send(t, between(ctr4, other4, 17, udpDatagram(53, 5555))); got != noRule {
		t.Errorf("old flow without allow_replies: %d, want %d", got, noRule)
	}
}

// TestFlowNotation: maps hold ports in host order and the packet's time.
func TestFlowNotation(t *testing.T) {
	e := loadEgressTest(t, setup{})
	e.receive(t, between(other6, ctr6, 17, udpDatagram(5555, 53)))
	var last uint64
	key := egressFlow{Remote: mapped(other6), RemotePort: 5555, LocalPort: 53, Proto: protoUDP}
	if err := e.FlowsOther.Lookup(key, &last); err != nil {
		t.Fatal(err)
	}
	if now := monotonic(t); last > now || now-last > uint64(time.Minute) {
		t.Errorf("time %d, now is %d", last, now)
	}
	e.receive(t, between(other4, ctr4, 6, tcpSegment(5555, 80, syn)))
	key = egressFlow{Remote: mapped(other4), RemotePort: 5555, LocalPort: 80, Proto: protoTCP}
	if err := e.FlowsTcp.Lookup(key, &last); err != nil {
		t.Error(err)
	}
}

func monotonic(t *testing.T) uint64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return uint64(now.Nano())
}

// TestReplyTime: UDP and ICMP are answered for reply_seconds after the last packet,
// TCP without limit; neighbours stay neighbours.
func TestReplyTime(t *testing.T) {
	e := loadEgressTest(t, setup{replySeconds: 10})
	ago := func(key egressFlow, age time.Duration) {
		m := e.FlowsOther
		if key.Proto == protoTCP {
			m = e.FlowsTcp
		}
		if err := m.Put(key, monotonic(t)-uint64(age)); err != nil {
			t.Fatal(err)
		}
	}
	key := egressFlow{Remote: mapped(other4), RemotePort: 5555, LocalPort: 53, Proto: protoUDP}
	answer := between(ctr4, other4, 17, udpDatagram(53, 5555))
	ago(key, 9*time.Second)
	if got := e.send(t, answer); got != passed {
		t.Errorf("after 9 s: %d, want passed", got)
	}
	ago(key, 11*time.Second)
	if got := e.send(t, answer); got != noRule {
		t.Errorf("after 11 s: %d, want %d", got, noRule)
	}
	e.receive(t, between(other4, ctr4, 17, udpDatagram(5555, 53)))
	if got := e.send(t, answer); got != passed {
		t.Errorf("after another packet: %d, want passed", got)
	}
	ago(key, -time.Second) // written by another CPU in the meantime
	if got := e.send(t, answer); got != passed {
		t.Errorf("packet of just now: %d, want passed", got)
	}
	ago(egressFlow{Remote: mapped(peer6), LocalPort: 135, Proto: egressIpProtoIcmpv6}, time.Hour)
	if got := e.send(t, v6{src: ctr6, dst: peer6, next: 58, hops: 255}.frame(icmpMessage(135, 0, ip(peer6)...))); got != passed {
		t.Errorf("solicitation of a neighbour after an hour: %d, want passed", got)
	}
	ago(egressFlow{Remote: mapped(other4), RemotePort: 5555, LocalPort: 80, Proto: protoTCP}, time.Hour)
	if got := e.send(t, between(ctr4, other4, 6, tcpSegment(80, 5555, ack))); got != passed {
		t.Errorf("TCP after an hour: %d, want passed", got)
	}
}

// TestFlowsOfOneNamespace: what a socket saw arrive, perhaps in a namespace that the
// container made for itself, counts neither at the interface nor for other sockets.
func TestFlowsOfOneNamespace(t *testing.T) {
	e := loadEgressTest(t, setup{})
	key := egressFlow{Remote: mapped(other4), RemotePort: 5555, LocalPort: 53, Proto: protoUDP, Netns: 4711}
	if err := e.FlowsOther.Put(key, monotonic(t)); err != nil {
		t.Fatal(err)
	}
	answer := between(ctr4, other4, 17, udpDatagram(53, 5555))
	if got := e.send(t, answer); got != noRule {
		t.Errorf("at the interface: %d, want %d", got, noRule)
	}
	// The socket of a test run has no namespace that was recorded.
	e.receive(t, between(other4, ctr4, 17, udpDatagram(5555, 53)))
	ifindex := device(t)
	if got := e.sendFromSocket(t, answer, ifindex); got != noRule {
		t.Errorf("at a socket that was made before its namespace could be recorded: %d, want %d", got, noRule)
	}
	if got := e.send(t, answer); got != passed {
		t.Errorf("at the interface, after it arrived there: %d, want passed", got)
	}
	before := entries(t, e)
	if ret := run(t, e.SkbIngress, between(peer4, ctr4, 17, udpDatagram(5555, 53)), ifindex); ret != 1 {
		t.Errorf("skb_ingress returned %d, want 1", ret)
	}
	if n := entries(t, e); n != before {
		t.Error("a socket without recorded namespace left a flow")
	}
}

// TestICMPErrors: an error passes where a packet to the sender of the quoted one would.
func TestICMPErrors(t *testing.T) {
	e := loadEgressTest(t, setup{
		allow: lists{other4 + "/32": {rule(protoUDP, 53)}, other6 + "/128": {rule(protoUDP, 53)}},
		deny:  lists{other4 + "/32": {rule(protoUDP, 5300)}},
	})
	e.receive(t, between(other4, ctr4, 17, udpDatagram(5555, 9)))
	e.receive(t, between(other4, ctr4, 6, tcpSegment(5555, 9, syn)))
	e.receive(t, between(other6, ctr6, 17, udpDatagram(5555, 9)))
	// Recorded before the deny rule was there, say.
	if err := e.FlowsOther.Put(egressFlow{Remote: mapped(other4), RemotePort: 5300, LocalPort: 9, Proto: protoUDP}, monotonic(t)); err != nil {
		t.Fatal(err)
	}

	unreachable := func(dst string, kind byte, quoted []byte) []byte {
		return v4{src: ctr4, dst: dst, proto: 1}.frame(icmpMessage(kind, 0, quoted...))
	}
	quote := func(proto byte, payload []byte) []byte {
		return v4{src: other4, dst: ctr4, proto: proto}.packet(payload)
	}
	unreachable6 := func(dst string, kind byte, quoted []byte) []byte {
		return v6{src: ctr6, dst: dst, next: 58}.frame(icmpMessage(kind, 0, quoted...))
	}
	quote6 := func(payload []byte) []byte { return v6{src: other6, dst: ctr6, next: 17}.packet(payload) }
	// A segment whose flags are the type of an error, and whose acknowledgement and
	// further bytes are a packet.
	segment := func(kind byte, quoted []byte) []byte {
		quoted[5] = kind // where its flags are
		return slices.Concat(be16(9), be16(9), make([]byte, 4), quoted)
	}
	for name, test := range map[string]struct {
		frame []byte
		want  egressReason
	}{
		"TCP that looks like it":           {between(ctr4, other4, 6, segment(3, quote(17, udpDatagram(53, 40000)))), noRule},
		"IPv6, TCP that looks like it":     {between(ctr6, other6, 6, segment(1, quote6(udpDatagram(53, 40000)))), noRule},
		"late answer of an allowed server": {unreachable(other4, 3, quote(17, udpDatagram(53, 40000))), passed},
		"time exceeded":                    {unreachable(other4, 11, quote(17, udpDatagram(53, 40000))), passed},
		"parameter problem":                {unreachable(other4, 12, quote(17, udpDatagram(53, 40000))), passed},
		"redirect":                         {unreachable(other4, 5, quote(17, udpDatagram(53, 40000))), noRule},
		"closed UDP port":                  {unreachable(other4, 3, quote(17, udpDatagram(5555, 9))), passed},
		"closed TCP port":                  {unreachable(other4, 3, quote(6, tcpSegment(5555, 9, syn))), passed},
		"nothing arrived":                  {unreachable(other4, 3, quote(17, udpDatagram(5556, 9))), noRule},
		"denied":                           {unreachable(other4, 3, quote(17, udpDatagram(5300, 9))), noRule},
		"to somebody else":                 {unreachable(peer4, 3, quote(17, udpDatagram(53, 40000))), noRule},
		"quoted packet cut off":            {unreachable(other4, 3, quote(17, udpDatagram(53, 40000))[:19]), noRule},
		"quoted header cut off":            {unreachable(other4, 3, quote(6, tcpSegment(5555, 9, syn))[:28]), noRule},
		"IPv6, late answer":                {unreachable6(other6, 1, quote6(udpDatagram(53, 40000))), passed},
		"IPv6, closed port":                {unreachable6(other6, 4, quote6(udpDatagram(5555, 9))), passed},
		"IPv6, nothing arrived":            {unreachable6(other6, 1, quote6(udpDatagram(5556, 9))), noRule},
		"IPv6, to somebody else":           {unreachable6(peer6, 1, quote6(udpDatagram(53, 40000))), noRule},
		"IPv6, type 0":                     {unreachable6(other6, 0, quote6(udpDatagram(53, 40000))), noRule},
		"IPv6, type 5":                     {unreachable6(other6, 5, quote6(udpDatagram(53, 40000))), noRule},
	} {
		if got := e.send(t, test.frame); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}
