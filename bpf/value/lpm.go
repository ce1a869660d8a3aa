// SPDX-License-Identifier: Apache-2.0

package value

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/policy"
)

// A key of an LPM trie is a __u32 in native order, the number of leading bits
// that count, and the data they are counted from (struct bpf_lpm_trie_key_u8 in
// include/uapi/linux/bpf.h). Whatever stands before the address in the data is
// thus part of every prefix.

const (
	prefixLenSize = 4 // bytes
	prefixKey     = "prefix"
	ipVariableRef = "${" + string(specs.VarIP) + "}"
	mappedBits    = 96 // of an IPv4-mapped address before the IPv4 address
)

// lpmKeyType is the type of LPM trie keys of which only the size is known.
func lpmKeyType(size uint32) btf.Type {
	if size <= prefixLenSize {
		return sizedType(size)
	}
	return &btf.Struct{
		Name: "bpf_lpm_trie_key_u8", Size: size,
		Members: []btf.Member{
			{Name: "prefixlen", Type: &btf.Int{Name: "__u32", Size: prefixLenSize}},
			{Name: "data", Type: byteArray(size - prefixLenSize), Offset: prefixLenSize * 8},
		},
	}
}

// lpmPrefix is a key that is written as a prefix.
type lpmPrefix struct {
	text *policy.Value // 10.0.0.0/8, 10.0.0.1, ${ip}
	rest *policy.Value // of {prefix: …, other fields}, without prefix; nil if text stands alone
}

// findPrefix returns the prefix that v is written as, if it is.
func findPrefix(t btf.Type, v *policy.Value) (lpmPrefix, bool) {
	_, isStruct := members(t)
	switch v.Kind {
	case policy.ScalarValue:
		literal := v.Null || strings.HasPrefix(v.Text, hexPrefix) || isVariable(v.Text) && v.Text != ipVariableRef
		return lpmPrefix{text: v}, !literal && (isStruct || v.Text == ipVariableRef || looksLikeAddress(v.Text))
	case policy.MapValue:
		rest := *v
		rest.Keys, rest.Items = nil, nil
		var found *policy.Value
		for i, key := range v.Keys {
			if key.Text == prefixKey && found == nil {
				found = v.Items[i]
				continue
			}
			rest.Keys, rest.Items = append(rest.Keys, key), append(rest.Items, v.Items[i])
		}
		if found == nil || found.Kind != policy.ScalarValue || found.Null {
			return lpmPrefix{}, false
		}
		// A field of that name may be there: then only a prefix is one.
		_, isField := fieldByName(fieldsOf(t), prefixKey)
		return lpmPrefix{text: found, rest: &rest}, !isField || strings.Contains(found.Text, "/")
	}
	return lpmPrefix{}, false
}

// lpmKey encodes v as the key at p: as a prefix, or as any other value.
func (e *encoder) lpmKey(p place, v *policy.Value) error {
	if len(e.data) <= prefixLenSize {
		return fail(v, "", "the map's keys have %d bytes, but those of LPM tries have more than %d", len(e.data), prefixLenSize)
	}
	prefix, ok := findPrefix(p.typ, v)
	if !ok {
		if err := e.value(p, v); err != nil {
			return err
		}
		return e.checkPrefixLen(v)
	}
	if prefix.rest != nil && len(prefix.rest.Keys) > 0 {
		if err := e.value(p, prefix.rest); err != nil {
			return err
		}
	}
	l := layoutOf(p.typ, len(e.data))
	if prefix.text.Text == ipVariableRef {
		at := l.ipv4 // whatever takes IPv6 takes IPv4
		if l.ipv6 != (span{}) && l.ipv6 != at {
			return fail(prefix.text, "write the fields, the prefix length too", "%s could go to two places in %s", prefix.text.Text, TypeName(p.typ))
		}
		if err := e.lpmLength(p, prefix, at, at.size()*8); err != nil {
			return err
		}
		e.holes = append(e.holes, specs.Hole{Offset: at.start, Size: at.size(), Variable: specs.VarIP})
		return nil
	}
	cidr, err := parsePrefix(prefix.text)
	if err != nil {
		return err
	}
	at, bits := l.ipv6, cidr.Bits()
	if cidr.Addr().Is4() {
		if at = l.ipv4; at.size() == ipv6Size {
			bits += mappedBits
		}
	}
	if err := e.lpmLength(p, prefix, at, bits); err != nil {
		return err
	}
	raw, _ := parseAddress(cidr.Addr().String(), at.size())
	copy(e.data[at.start:], raw)
	return nil
}

// parsePrefix reads a prefix; an address alone is all of its bits.
func parsePrefix(v *policy.Value) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(v.Text); err == nil && ip.Zone() == "" {
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	cidr, err := netip.ParsePrefix(v.Text)
	if err != nil {
		return cidr, fail(v, "write one like 10.0.0.0/8 or 2001:db8::/32", "%s is no prefix", quote(v.Text))
	}
	if masked := cidr.Masked(); masked != cidr {
		return cidr, fail(v, "write "+masked.String(), "%s has bits after its first %d", quote(v.Text), cidr.Bits())
	}
	return cidr, nil
}

// lpmLength writes the prefix length for an address at `at` of which that many
// bits count, after checking what has been written beside it.
func (e *encoder) lpmLength(p place, prefix lpmPrefix, at span, bits int) error {
	if at == (span{}) {
		return fail(prefix.text, "write the fields, the prefix length too, or hex:…", "%s has no room for %s", TypeName(p.typ), prefix.text.Text)
	}
	if others := besideAddress(p.typ, at); prefix.rest == nil && len(others) > 0 {
		return fail(prefix.text, fmt.Sprintf("write {%s: %s, %s: …}", prefixKey, prefix.text.Text, others[0].name),
			"%s has more than an address: %s", TypeName(p.typ), list(fieldNames(others)))
	}
	for i, b := range e.data {
		if (i < prefixLenSize || i >= at.start) && b != 0 || e.inHole(i) && (i < prefixLenSize || i >= at.start) {
			return fail(prefix.rest, "leave it out", "byte %d of %s belongs to the prefix or comes after it, but another field sets it", i, TypeName(p.typ))
		}
	}
	binary.NativeEndian.PutUint32(e.data, uint32((at.start-prefixLenSize)*8+bits))
	return nil
}

func (e *encoder) inHole(i int) bool {
	for _, h := range e.holes {
		if i >= h.Offset && i < h.Offset+h.Size {
			return true
		}
	}
	return false
}

// checkPrefixLen refuses what the kernel would refuse (trie_update_elem).
func (e *encoder) checkPrefixLen(v *policy.Value) error {
	for i := range prefixLenSize {
		if e.inHole(i) {
			return fail(v, "write a number", "the prefix length can't come from a variable")
		}
	}
	most := (len(e.data) - prefixLenSize) * 8
	if n := binary.NativeEndian.Uint32(e.data); int64(n) > int64(most) {
		return fail(v, fmt.Sprintf("write at most %d", most), "a prefix of %d bits is longer than the key", n)
	}
	return nil
}
