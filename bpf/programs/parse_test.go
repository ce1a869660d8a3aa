// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"bytes"
	"slices"
	"testing"
)

// fragment is an IPv6 fragment header: offset in units of 8 bytes, more fragments to come.
func fragment(offset uint16, more bool) ext {
	v := offset << 3
	if more {
		v |= 1
	}
	return ext{44, slices.Concat([]byte{0}, be16(v), []byte{0, 0, 0, 1})}
}

// padding is a hop-by-hop (0) or destination options (60) header of 8*(1+more) bytes.
func padding(kind byte, more byte) ext {
	return ext{kind, slices.Concat([]byte{more, 1, 4 + more*8}, make([]byte, 4+int(more)*8))}
}

func routing(segmentsLeft byte) ext { return ext{43, []byte{0, 4, segmentsLeft, 0, 0, 0, 0}} }

func repeat(x ext, n int) []ext {
	xs := make([]ext, n)
	for i := range xs {
		xs[i] = x
	}
	return xs
}

// TestReading has frames of which the rules need more than the fixed headers say.
// allowed is judged with a rule for TCP port 443 under default deny, refused with
// the same rule as a deny rule under default allow: what can't be read counts
// against the packet in both.
func TestReading(t *testing.T) {
	https := tcpSegment(40000, 443, syn)
	to4 := v4{src: ctr4, dst: other4, proto: 6}
	to6 := v6{src: ctr6, dst: other6, next: 6}
	with4 := func(change func(*v4)) v4 { h := to4; change(&h); return h }
	options := func(b ...byte) []byte { return with4(func(h *v4) { h.options = b }).frame(https) }
	extended := func(xs ...ext) []byte { return v6{src: ctr6, dst: other6, next: 6, extensions: xs}.frame(https) }
	tests := map[string]struct {
		frame         []byte
		allow, refuse egressReason
	}{
		"plain IPv4":             {to4.frame(https), passed, denied},
		"plain IPv6":             {to6.frame(https), passed, denied},
		"another port, IPv4":     {to4.frame(tcpSegment(443, 444, syn)), noRule, passed},
		"another protocol, IPv4": {v4{src: ctr4, dst: other4, proto: 17}.frame(udpDatagram(1, 443)), noRule, passed},

		"VLAN tag":             {eth(typeIPv4, to4.packet(https), typeVLAN), passed, denied},
		"two VLAN tags":        {eth(typeIPv6, to6.packet(https), typeQinQ, typeVLAN), passed, denied},
		"three VLAN tags":      {eth(typeIPv4, to4.packet(https), typeQinQ, typeVLAN, typeVLAN), badFrame, badFrame},
		"VLAN tag, cut off":    {eth(typeIPv4, nil, typeVLAN, typeVLAN)[:20], badFrame, badFrame},
		"VLAN tag, other port": {eth(typeIPv4, to4.packet(tcpSegment(1, 444, syn)), typeVLAN), noRule, passed},

		"options: padding":                  {options(1, 1, 1, 0), passed, denied},
		"options: router alert":             {options(148, 4, 0, 0), passed, denied},
		"options: record route":             {options(7, 7, 4, 0, 0, 0, 0, 0), passed, denied},
		"options: 40 bytes":                 {options(append([]byte{7, 39, 4}, make([]byte, 36)...)...), passed, denied},
		"options: data like a source route": {options(7, 7, 131, 137, 131, 137, 131, 0), passed, denied},
		"options: source route after end":   {options(0, 131, 3, 4), passed, denied},
		"options: eight":                    {options(1, 1, 1, 1, 1, 1, 1, 1), passed, denied},
		"options: nine":                     {options(1, 1, 1, 1, 1, 1, 1, 1, 1), badFrame, badFrame},
		"options: loose source route":       {options(131, 7, 4, 203, 0, 113, 1), badFrame, badFrame},
		"options: strict source route":      {options(1, 137, 7, 4, 203, 0, 113, 1), badFrame, badFrame},
		"options: source route behind 1":    {options(7, 3, 4, 131, 7, 4, 203, 0, 113, 1), badFrame, badFrame},
		"options: without length":           {options(7, 1, 0, 0), badFrame, badFrame},
		"options: cut off":                  {options(148, 4, 0, 0)[:14+21], badFrame, badFrame},
		"header length too small":           {with4(func(h *v4) { h.version = 0x44 }).frame(https), badFrame, badFrame},
		"version 6 where 4 is said":         {with4(func(h *v4) { h.version = 0x65 }).frame(https), badFrame, badFrame},
		"version 4 where 6 is said":         {v6{src: ctr6, dst: other6, next: 6, version: 0x45}.frame(https), badFrame, badFrame},
		// BPF_PROG_TEST_RUN refuses a cut off IP header, unless it is behind a tag.
		"IPv4 header cut off":                {eth(typeIPv4, to4.packet(https), typeVLAN)[:18+19], badFrame, badFrame},
		"IPv6 header cut off":                {eth(typeIPv6, to6.packet(https), typeVLAN)[:18+39], badFrame, badFrame},
		"TCP header cut off, IPv4":           {to4.frame(https[:13]), noRule, denied},
		"TCP header cut off, IPv6":           {to6.frame(https[:13]), noRule, denied},
		"TCP header missing, IPv6":           {to6.frame(nil), noRule, denied},
		"UDP header cut off":                 {v4{src: ctr4, dst: other4, proto: 17}.frame(be16(1)), noRule, passed},
		"ICMP header cut off":                {v4{src: ctr4, dst: other4, proto: 1}.frame(make([]byte, 7)), noRule, passed},
		"first fragment, IPv4":               {with4(func(h *v4) { h.fragment = 0x2000 }).frame(https), passed, denied},
		"don't fragment, IPv4":               {with4(func(h *v4) { h.fragment = 0x4000 }).frame(https), passed, denied},
		"second fragment, IPv4":              {with4(func(h *v4) { h.fragment = 0x2001 }).frame(https), noRule, denied},
		"last fragment, IPv4":                {with4(func(h *v4) { h.fragment = 0x1000 }).frame(https), noRule, denied},
		"later fragment of UDP, IPv4":        {v4{src: ctr4, dst: other4, proto: 17, fragment: 1}.frame(https), noRule, passed},
		"atomic fragment, IPv6":              {extended(fragment(0, false)), passed, denied},
		"first fragment, IPv6":               {extended(fragment(0, true)), passed, denied},
		"second fragment, IPv6":              {extended(fragment(1, true)), noRule, denied},
		"last fragment, IPv6":                {extended(fragment(185, false)), noRule, denied},
		"later fragment of UDP, IPv6":        {v6{src: ctr6, dst: other6, next: 17, extensions: []ext{fragment(1, false)}}.frame(https), noRule, passed},
		"later fragment of a header, IPv6":   {extended(fragment(1, false), padding(60, 0)), noRule, denied},
		"fragment header, reserved byte":     {extended(ext{44, []byte{9, 0, 1, 0, 0, 0, 1}}), passed, denied},
		"fragment header cut off":            {to6.frame(nil)[:54], noRule, denied},
		"hop-by-hop options":                 {extended(padding(0, 0)), passed, denied},
		"destination options of 24 bytes":    {extended(padding(60, 2)), passed, denied},
		"all kinds":                          {extended(padding(0, 1), padding(60, 0), routing(0), fragment(0, true), padding(60, 1)), passed, denied},
		"all kinds, other port":              {v6{src: ctr6, dst: other6, next: 6, extensions: []ext{padding(0, 1), routing(0)}}.frame(tcpSegment(1, 444, syn)), noRule, passed},
		"routing header, segments left":      {extended(routing(1)), badFrame, badFrame},
		"routing header behind another":      {extended(padding(0, 0), routing(2)), badFrame, badFrame},
		"eight extension headers":            {extended(repeat(padding(60, 0), 8)...), passed, denied},
		"nine extension headers":             {extended(repeat(padding(60, 0), 9)...), noRule, denied},
		"extension header cut off":           {extended(padding(60, 0))[:14+40+3], noRule, denied},
		"extension header longer than it is": {v6{src: ctr6, dst: other6, next: 6, extensions: []ext{{60, []byte{9, 1, 4, 0, 0, 0, 0}}}}.frame(https), noRule, denied},
	}
	list := lists{"0.0.0.0/0": {rule(protoTCP, 443)}, "::/0": {rule(protoTCP, 443)}}
	allow := loadEgressTest(t, setup{allow: list})
	deny := loadEgressTest(t, setup{defaultAllow: true, deny: list})
	ifindex := device(t)
	for name, test := range tests {
		if got := allow.send(t, test.frame); got != test.allow {
			t.Errorf("%s: allowed port at the interface: %d, want %d", name, got, test.allow)
		}
		if got := deny.send(t, test.frame); got != test.refuse {
			t.Errorf("%s: denied port at the interface: %d, want %d", name, got, test.refuse)
		}
		if tag := test.frame[12:14]; bytes.Equal(tag, be16(typeVLAN)) || bytes.Equal(tag, be16(typeQinQ)) {
			continue // sockets have no tags
		}
		if got := allow.sendFromSocket(t, test.frame, ifindex); got != test.allow {
			t.Errorf("%s: allowed port at the socket: %d, want %d", name, got, test.allow)
		}
		if got := deny.sendFromSocket(t, test.frame, ifindex); got != test.refuse {
			t.Errorf("%s: denied port at the socket: %d, want %d", name, got, test.refuse)
		}
	}
}

// TestUnknownPortsNeedNoPorts: what can't be read does no harm where no rule asks for it.
func TestUnknownPortsNeedNoPorts(t *testing.T) {
	second4 := v4{src: ctr4, dst: other4, proto: 6, fragment: 1}.frame(make([]byte, 8))
	second6 := v6{src: ctr6, dst: other6, next: 6, extensions: []ext{fragment(1, false)}}.frame(make([]byte, 8))
	long6 := v6{src: ctr6, dst: other6, next: 6, extensions: repeat(padding(60, 0), 9)}.frame(make([]byte, 20))

	e := loadEgressTest(t, setup{allow: lists{"0.0.0.0/0": {rule(protoTCP)}, "::/0": {rule(protoTCP)}}})
	for name, test := range map[string]struct {
		frame []byte
		want  egressReason
	}{"fragment 4": {second4, passed}, "fragment 6": {second6, passed}, "too many headers": {long6, noRule}} {
		if got := e.send(t, test.frame); got != test.want {
			t.Errorf("rule for a protocol, %s: %d, want %d", name, got, test.want)
		}
	}
	e = loadEgressTest(t, setup{allow: lists{"::/0": everything}})
	if got := e.send(t, long6); got != passed {
		t.Errorf("rule for everything: %d, want passed", got)
	}
	e = loadEgressTest(t, setup{defaultAllow: true, deny: lists{"::/0": {rule(protoUDP)}}})
	if got := e.send(t, long6); got != denied {
		t.Errorf("deny rule for a protocol, which the packet may have: %d, want denied", got)
	}
	e = loadEgressTest(t, setup{defaultAllow: true, deny: lists{"::/0": {rule(protoAny, 25)}}})
	gre := v6{src: ctr6, dst: other6, next: 47, extensions: []ext{fragment(1, false)}}.frame(make([]byte, 8))
	if got := e.send(t, gre); got != passed {
		t.Errorf("deny rule for a port, which the protocol has not: %d, want passed", got)
	}
	if got := e.send(t, long6); got != denied {
		t.Errorf("deny rule for a port, which the packet may have: %d, want denied", got)
	}
}

// TestNotIP: under default deny the interface lets ARP out, and nothing else that is not IP.
func TestNotIP(t *testing.T) {
	arp := make([]byte, 28)
	frames := map[string]struct {
		frame []byte
		deny  egressReason // under default deny
		allow egressReason // under default allow
	}{
		"ARP":                  {eth(typeARP, arp), passed, passed},
		"ARP in a VLAN":        {eth(typeARP, arp, typeVLAN), passed, passed},
		"EAPOL":                {eth(0x888e, arp), notIP, passed},
		"MPLS":                 {eth(0x8847, arp), notIP, passed},
		"RARP":                 {eth(0x8035, arp), notIP, passed},
		"802.3 with LLC":       {eth(46, append([]byte{0x42, 0x42, 3}, make([]byte, 43)...)), notIP, passed},
		"no payload, MPLS":     {eth(0x8847, nil), notIP, passed},
		"an IPv4 packet, MPLS": {eth(0x8847, v4{src: ctr4, dst: other4, proto: 6}.packet(nil)), notIP, passed},
	}
	deny := loadEgressTest(t, setup{})
	allow := loadEgressTest(t, setup{defaultAllow: true, deny: lists{"0.0.0.0/0": everything, "::/0": everything}})
	for name, f := range frames {
		if got := deny.send(t, f.frame); got != f.deny {
			t.Errorf("%s, default deny: %d, want %d", name, got, f.deny)
		}
		if got := allow.send(t, f.frame); got != f.allow {
			t.Errorf("%s, default allow: %d, want %d", name, got, f.allow)
		}
	}
}
