// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Addresses of the tests. ctr is the container; the others are outside of it.
const (
	ctr4, ctr6     = "192.0.2.2", "2001:db8::2"
	peer4, peer6   = "192.0.2.1", "2001:db8::1"
	other4, other6 = "198.51.100.7", "2001:db8:7::7"
)

const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeVLAN = 0x8100
	typeIPv6 = 0x86dd
	typeQinQ = 0x88a8
)

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// eth is an Ethernet header. tags are VLAN tag types, the outermost first.
func eth(ethertype uint16, payload []byte, tags ...uint16) []byte {
	b := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	for i, tag := range tags {
		b = append(append(b, be16(tag)...), be16(uint16(100+i))...)
	}
	return slices.Concat(b, be16(ethertype), payload)
}

// v4 is an IPv4 header; fields that are zero get what an ordinary packet has.
type v4 struct {
	src, dst string
	proto    byte
	ttl      byte
	fragment uint16 // flags and offset
	options  []byte // padded to 4 bytes
	version  byte   // first byte of the header
}

func (h v4) packet(payload []byte) []byte {
	for len(h.options)%4 != 0 {
		h.options = append(h.options, 0)
	}
	length := 20 + len(h.options)
	first := h.version
	if first == 0 {
		first = 0x40 | byte(length/4)
	}
	ttl := h.ttl
	if ttl == 0 {
		ttl = 64
	}
	b := slices.Concat([]byte{first, 0}, be16(uint16(length+len(payload))), be16(1), be16(h.fragment), []byte{ttl, h.proto, 0, 0})
	return slices.Concat(b, ip(h.src), ip(h.dst), h.options, payload)
}

func (h v4) frame(payload []byte) []byte { return eth(typeIPv4, h.packet(payload)) }

// v6 is an IPv6 header with extension headers.
type v6 struct {
	src, dst   string
	next       byte  // of what follows the extensions
	hops       byte  // 0: 64
	extensions []ext // in their order
	version    byte  // first byte of the header; 0: 0x60
}

// ext is an extension header: its own number, and its bytes after the first.
type ext struct {
	kind byte
	data []byte
}

func (h v6) packet(payload []byte) []byte {
	next, chain := h.next, []byte(nil)
	for _, x := range slices.Backward(h.extensions) {
		chain = slices.Concat([]byte{next}, x.data, chain)
		next = x.kind
	}
	hops, first := h.hops, h.version
	if hops == 0 {
		hops = 64
	}
	if first == 0 {
		first = 0x60
	}
	b := slices.Concat([]byte{first, 0, 0, 0}, be16(uint16(len(chain)+len(payload))), []byte{next, hops})
	return slices.Concat(b, ip(h.src), ip(h.dst), chain, payload)
}

func (h v6) frame(payload []byte) []byte { return eth(typeIPv6, h.packet(payload)) }

func ip(text string) []byte { return netip.MustParseAddr(text).AsSlice() }

// mapped returns an address as the maps hold it.
func mapped(text string) [16]byte { return netip.MustParseAddr(text).As16() }

// Flags of TCP.
const (
	syn = 0x02
	rst = 0x04
	ack = 0x10
)

func tcpSegment(sport, dport uint16, flags byte) []byte {
	return slices.Concat(be16(sport), be16(dport), make([]byte, 8), []byte{0x50, flags}, make([]byte, 6))
}

func udpDatagram(sport, dport uint16) []byte {
	return slices.Concat(be16(sport), be16(dport), be16(12), []byte{0, 0}, []byte("data"))
}

// icmpMessage is ICMP or ICMPv6, with id where echo messages have it.
func icmpMessage(kind byte, id uint16, payload ...byte) []byte {
	return slices.Concat([]byte{kind, 0, 0, 0}, be16(id), []byte{0, 1}, payload)
}

// Frames that a container sends to an address, IPv4 or IPv6.
func tcpTo(dst string, port uint16) []byte { return transportTo(dst, 6, tcpSegment(40000, port, syn)) }
func udpTo(dst string, port uint16) []byte { return transportTo(dst, 17, udpDatagram(40000, port)) }
func pingTo(dst string) []byte {
	if netip.MustParseAddr(dst).Is4() {
		return transportTo(dst, 1, icmpMessage(8, 7, make([]byte, 8)...))
	}
	return transportTo(dst, 58, icmpMessage(128, 7, make([]byte, 8)...))
}

func transportTo(dst string, proto byte, payload []byte) []byte {
	return between(self(dst), dst, proto, payload)
}

// between is an ordinary frame from src to dst.
func between(src, dst string, proto byte, payload []byte) []byte {
	if netip.MustParseAddr(dst).Is4() {
		return v4{src: src, dst: dst, proto: proto}.frame(payload)
	}
	return v6{src: src, dst: dst, next: proto}.frame(payload)
}

// self is the container's address of the same family.
func self(other string) string {
	if netip.MustParseAddr(other).Is4() {
		return ctr4
	}
	return ctr6
}
