// SPDX-License-Identifier: Apache-2.0

package value

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// span is a part of a key, in bytes.
type span struct{ start, end int }

// prefixLenSpan is where the kernel reads the prefix length.
var prefixLenSpan = span{0, prefixLenSize}

func (s span) size() int { return s.end - s.start }

func (s span) holds(f field) bool { return f.start() >= s.start && f.end() <= s.end }

func (s span) meets(f field) bool { return f.start() < s.end && f.end() > s.start }

// lpmLayout is where an address goes in a key; zero spans where it can't.
type lpmLayout struct{ ipv4, ipv6 span }

// candidate is a part of a key that could be its address.
type candidate struct {
	span
	named bool // its type or its name says that it is one
}

// better says whether c is more likely to be the address than o: because it is
// called one, since a prefix ends in its address, or as the one without mapping.
func (c candidate) better(o candidate) bool {
	switch {
	case c.named != o.named:
		return c.named
	case c.named && c.size() != o.size():
		return c.size() < o.size()
	case c.start != o.start:
		return c.start > o.start
	default:
		return c.size() < o.size()
	}
}

// layoutOf finds the places for addresses in a key of type t.
func layoutOf(t btf.Type, size int) lpmLayout {
	all := []candidate{{span: span{prefixLenSize, size}}}
	if s, ok := underlying(t).(*btf.Struct); ok {
		all = candidates(s)
	}
	var best4, best6 candidate
	for _, c := range all {
		if c.size() != ipv4Size && c.size() != ipv6Size {
			continue
		}
		if best4 == (candidate{}) || c.better(best4) {
			best4 = c
		}
		if c.size() == ipv6Size && (best6 == (candidate{}) || c.better(best6)) {
			best6 = c
		}
	}
	return lpmLayout{best4.span, best6.span}
}

// candidates returns what could be an address after the prefix length.
func candidates(t *btf.Struct) []candidate {
	var all []candidate
	named := false
	for _, f := range leaves(t) {
		if size := addressSize(f.typ); f.bits > 0 || prefixLenSpan.meets(f) || size != ipv4Size && size != ipv6Size {
			continue
		}
		c := candidate{span{f.start(), f.end()}, isAddressName(f.name) || isAddressType(f.typ)}
		all, named = append(all, c), named || c.named
	}
	if whole, ok := spread(t); ok && !named {
		return []candidate{whole}
	}
	return all
}

// spread finds an address that is spread over all members after the prefix
// length: __u8 a, b, c, d or __u64 high, low. Two __u16 are more likely ports.
func spread(t *btf.Struct) (candidate, bool) {
	var ms []btf.Member
	for _, m := range t.Members {
		if m.Offset >= prefixLenSize*8 {
			ms = append(ms, m)
		}
	}
	if len(ms) == 0 {
		return candidate{}, false
	}
	start := int(ms[0].Offset / 8)
	size := int(t.Size) - start
	if leaf := leafSizeOf(ms, size); leaf == 0 || leaf == 2 || size != ipv4Size && size != ipv6Size {
		return candidate{}, false
	}
	return candidate{span: span{start, start + size}}, true
}

// leaves returns the fields of t and of the structs in it, down to what can hold
// an address, with a "." in the names of inner ones.
func leaves(t btf.Type) []field {
	var all []field
	for _, f := range fieldsOf(t) {
		if _, ok := members(f.typ); !ok || addressSize(f.typ) > 0 {
			if f.bits > 0 || sizeof(f.typ) > 0 {
				all = append(all, f)
			}
			continue
		}
		for _, inner := range leaves(f.typ) {
			inner.name = f.name + "." + inner.name // no field of C has a dot in its name
			inner.off += f.off
			all = append(all, inner)
		}
	}
	return all
}

// besideAddress returns the fields of a key that are neither its prefix length
// nor in its address.
func besideAddress(t btf.Type, at span) []field {
	var others []field
	for _, f := range leaves(t) {
		if !prefixLenSpan.holds(f) && !at.holds(f) {
			others = append(others, f)
		}
	}
	return others
}

// decodePrefix returns a key of an LPM trie as a prefix, alone or with the
// fields before the address; ok is false if it can't be written as one. plain
// is the key as any other value.
func decodePrefix(t btf.Type, data []byte, plain any) (v any, ok bool) {
	l := layoutOf(t, len(data))
	at := l.ipv4 // whatever takes IPv6 takes IPv4
	if at == (span{}) || l.ipv6 != (span{}) && l.ipv6 != at {
		return nil, false // two families, and only the program knows which one it is
	}
	bits := int64(binary.NativeEndian.Uint32(data)) - int64(at.start-prefixLenSize)*8
	ip, _ := netip.AddrFromSlice(data[at.start:at.end])
	if ip.Is4In6() && bits >= mappedBits {
		ip, bits = ip.Unmap(), bits-mappedBits
	}
	cidr := netip.PrefixFrom(ip, int(bits))
	if !zero(data[at.end:]) || cidr.Masked() != cidr { // Masked of an invalid prefix is another one
		return nil, false
	}
	if len(besideAddress(t, at)) == 0 {
		return cidr.String(), true
	}
	fields, ok := plain.(Struct)
	if !ok {
		return nil, false
	}
	out := Struct{{prefixKey, cidr.String()}}
	for _, m := range fields {
		f, _ := fieldByName(fieldsOf(t), m.Name)
		switch {
		case prefixLenSpan.holds(f), at.holds(f), f.start() >= at.end:
		case prefixLenSpan.meets(f), at.meets(f), f.name == prefixKey:
			return nil, false
		default:
			out = append(out, m)
		}
	}
	return out, true
}

// looksLikePrefix says whether a key that is no prefix would be read as one: an
// address alone, or a field called prefix with a "/" in its text.
func looksLikePrefix(plain any) bool {
	if _, ok := plain.(string); ok {
		return true
	}
	fields, _ := plain.(Struct)
	for _, m := range fields {
		if text, ok := m.Value.(string); ok && m.Name == prefixKey && strings.Contains(text, "/") {
			return true
		}
	}
	return false
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
