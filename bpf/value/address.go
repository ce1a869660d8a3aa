// SPDX-License-Identifier: Apache-2.0

package value

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/specs/policy"
)

// Sizes of addresses in bytes.
const (
	ipv4Size = 4
	ipv6Size = 16
	macSize  = 6
)

// addressSize returns the size of t if it can hold an address of that size,
// otherwise 0: t consists of nothing but integers of one size.
func addressSize(t btf.Type) int {
	size := sizeof(t)
	switch size {
	case ipv4Size, ipv6Size, macSize:
		if leafSize(t) > 0 {
			return size
		}
	}
	return 0
}

// leafSize returns the size of the integers that t consists of, 0 if it
// consists of something else, of integers of different sizes, or has padding.
func leafSize(t btf.Type) int {
	switch t := underlying(t).(type) {
	case *btf.Int:
		if !isBool(t) {
			return int(t.Size)
		}
	case *btf.Array:
		if elem, ok := underlying(t.Type).(*btf.Int); ok && t.Nelems > 0 && !isBool(elem) {
			return int(elem.Size)
		}
	case *btf.Struct:
		return leafSizeOf(t.Members, int(t.Size))
	case *btf.Union:
		for _, m := range t.Members {
			if n := leafSize(m.Type); n > 0 && sizeof(m.Type) == int(t.Size) {
				return n
			}
		}
	}
	return 0
}

// leafSizeOf is leafSize for members that fill size bytes one after the other.
func leafSizeOf(ms []btf.Member, size int) int {
	if len(ms) == 0 {
		return 0
	}
	next, leaf := int(ms[0].Offset), 0
	end := next + size*8
	for _, m := range ms {
		n := leafSize(m.Type)
		if n == 0 || m.BitfieldSize > 0 || int(m.Offset) != next || leaf != 0 && n != leaf {
			return 0
		}
		leaf, next = n, next+sizeof(m.Type)*8
	}
	if next != end {
		return 0
	}
	return leaf
}

// parseAddress returns the bytes of an address in text that has size bytes; an
// IPv4 address in 16 bytes is IPv4-mapped (RFC 4291, 2.5.5.2).
func parseAddress(text string, size int) ([]byte, bool) {
	if size == macSize {
		return parseMAC(text)
	}
	ip, err := netip.ParseAddr(text)
	switch {
	case err != nil || ip.Zone() != "":
		return nil, false
	case size == ipv4Size && ip.Is4():
		return ip.AsSlice(), true
	case size == ipv6Size:
		b := ip.As16()
		return b[:], true
	}
	return nil, false
}

// parseMAC wants separators: to net.ParseMAC, 206966894640 is an address too.
func parseMAC(text string) (net.HardwareAddr, bool) {
	if !strings.ContainsAny(text, ":-.") {
		return nil, false
	}
	mac, err := net.ParseMAC(text)
	return mac, err == nil && len(mac) == macSize
}

// addressKind names the kind of address that text is; empty if it is none.
func addressKind(text string) string {
	if _, ok := parseMAC(text); ok {
		return "a MAC address"
	}
	if _, err := netip.ParsePrefix(text); err == nil {
		return "a prefix"
	}
	ip, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return ""
	case ip.Zone() != "":
		return "an address with a zone"
	case ip.Is4():
		return "an IPv4 address"
	default:
		return "an IPv6 address"
	}
}

func looksLikeAddress(text string) bool { return addressKind(text) != "" }

// address writes v if it is an address; done is false if it is none, or if the
// type at p can't hold any.
func (e *encoder) address(p place, v *policy.Value) (done bool, err error) {
	size := addressSize(p.typ)
	if size == 0 || !looksLikeAddress(v.Text) {
		return false, nil
	}
	raw, ok := parseAddress(v.Text, size)
	if !ok {
		return false, misfit(p, v)
	}
	copy(e.at(p), raw)
	return true, nil
}

// misfit explains why the address v does not fit p.
func misfit(p place, v *policy.Value) error {
	kind := addressKind(v.Text)
	var remedy string
	switch kind {
	case "a prefix":
		remedy = "prefixes are for keys of LPM tries; write an address"
	case "an address with a zone":
		remedy = "leave out the zone"
	case "a MAC address":
		remedy = "it needs 6 bytes"
	case "an IPv4 address":
		remedy = "it needs 4 or 16 bytes"
	default:
		remedy = "it needs 16 bytes"
	}
	return fail(v, remedy, "%s is %s, which does not fit %s (%s)", quote(v.Text), kind, TypeName(p.typ), countBytes(sizeof(p.typ)))
}

// isAddressName says whether what has that name is likely to be an IP address:
// saddr, remote_ip4, ip_src, in6_addr, but not ip_proto.
func isAddressName(name string) bool {
	name = name[strings.LastIndexByte(name, '.')+1:] // of leaves
	words := strings.Split(strings.Trim(strings.ToLower(name), "_"), "_")
	if n := len(words) - 1; n > 0 && words[n] == "t" { // of typedefs
		words = words[:n]
	}
	word := func(i int) string { return strings.TrimRight(words[i], "46") }
	ip := func(w string) bool { return w == "ip" || w == "ipv" || w == "sip" || w == "dip" }
	last := word(len(words) - 1)
	switch last {
	case "src", "dst", "source", "dest":
		return len(words) > 1 && ip(word(len(words)-2))
	}
	return ip(last) || strings.HasSuffix(last, "addr") || last == "address"
}

// showsAddress says whether a value of type t with 4 or 16 bytes is shown as an
// IP address: where the type or a name says so.
func showsAddress(t btf.Type, field string) bool {
	return hasAddressShape(t) && (isAddressName(field) || isAddressType(t))
}

// hasAddressShape leaves out what addressSize lets through, but what is more
// likely to be a number of unrelated fields, and text.
func hasAddressShape(t btf.Type) bool {
	switch u := underlying(t).(type) {
	case *btf.Int:
		return !isBool(u)
	case *btf.Array:
		elem, ok := underlying(u.Type).(*btf.Int)
		return ok && u.Nelems > 0 && !isChar(elem) && !isBool(elem)
	case *btf.Struct:
		if len(u.Members) == 1 {
			return leafSize(u) > 0 && hasAddressShape(u.Members[0].Type)
		}
		return u.Size == ipv6Size && leafSize(u) >= 4
	case *btf.Union:
		for _, m := range u.Members {
			if sizeof(m.Type) == int(u.Size) && leafSize(m.Type) > 0 && hasAddressShape(m.Type) {
				return true
			}
		}
	}
	return false
}

// isAddressType says whether t is made for addresses: by its name (in_addr,
// in6_addr, v6addr), or because it is one or more __be32.
func isAddressType(t btf.Type) bool {
	if slices.ContainsFunc(typedefs(t), isAddressName) {
		return true
	}
	switch u := underlying(t).(type) {
	case *btf.Int:
		return u.Size == ipv4Size && inNetworkOrder(t, "")
	case *btf.Array:
		return isAddressType(u.Type)
	case *btf.Struct:
		return isAddressName(u.Name) || len(u.Members) == 1 && isAddressType(u.Members[0].Type)
	case *btf.Union:
		return isAddressName(u.Name)
	}
	return false
}

// formatAddress returns the text of an address of 4, 6 or 16 bytes.
func formatAddress(b []byte) string {
	if len(b) == macSize {
		return net.HardwareAddr(b).String()
	}
	ip, _ := netip.AddrFromSlice(b)
	return ip.Unmap().String()
}
