// SPDX-License-Identifier: Apache-2.0

package value

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// ErrSize is in the chain of errors about data that is not as long as its type.
var ErrSize = errors.New("wrong size")

// Struct is a struct or union with its members in their order, which
// encoding/json keeps. A union has one member.
type Struct []Member

// Member is one member of a Struct.
type Member struct {
	Name  string
	Value any
}

// MarshalJSON writes an object.
func (s Struct) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		name, nameErr := json.Marshal(m.Name)
		value, err := json.Marshal(m.Value)
		if err := errors.Join(nameErr, err); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// Decode returns data, a value of type t, in the notation that Encode takes:
// nothing but bool, int64, uint64 (where int64 is too small), json.Number (where
// both are), float32, float64, string, []any and Struct. A *btf.Var stands for its type.
func Decode(t btf.Type, data []byte) (any, error) {
	d, p, err := newDecoder(t, data)
	if err != nil {
		return nil, err
	}
	return d.value(p), nil
}

// DecodeKey is Decode for the key of a map of type m; t may be nil as for
// EncodeKey.
func DecodeKey(t btf.Type, m ebpf.MapType, data []byte) (any, error) {
	if noType(t) {
		if m != ebpf.LPMTrie || len(data) <= prefixLenSize {
			return DecodeSized(data), nil
		}
		t = lpmKeyType(uint32(len(data)))
	}
	d, p, err := newDecoder(t, data)
	if err != nil {
		return nil, err
	}
	plain := d.value(p)
	if m != ebpf.LPMTrie || len(data) <= prefixLenSize {
		return plain, nil
	}
	if v, ok := decodePrefix(p.typ, data, plain); ok {
		return v, nil
	}
	tooLong := int64(binary.NativeEndian.Uint32(data)) > int64(len(data)-prefixLenSize)*8 // the kernel has no such keys
	if tooLong || looksLikePrefix(plain) {
		return formatHex(data), nil
	}
	return plain, nil
}

// DecodeSized returns data without BTF: an unsigned integer if it has 1, 2, 4 or
// 8 bytes, else hex:….
func DecodeSized(data []byte) any {
	switch len(data) {
	case 1, 2, 4, 8:
		return jsonNumber(getInt(data, native))
	}
	return formatHex(data)
}

// decoder reads one value.
type decoder struct{ data []byte }

func newDecoder(t btf.Type, data []byte) (*decoder, place, error) {
	p := place{typ: t}
	if variable, ok := t.(*btf.Var); ok {
		p.typ, p.name = variable.Type, variable.Name
	}
	size, err := check(p.typ)
	if err != nil {
		return nil, place{}, err
	}
	if size != len(data) {
		return nil, place{}, fmt.Errorf("%s has %s, not %d: %w", TypeName(t), countBytes(size), len(data), ErrSize)
	}
	return &decoder{data}, p, nil
}

func (d *decoder) value(p place) any {
	b := d.data[p.off : p.off+sizeof(p.typ)]
	switch addressSize(p.typ) {
	case ipv4Size, ipv6Size:
		if showsAddress(p.typ, p.name) {
			return formatAddress(b)
		}
	case macSize:
		if showsMAC(p.typ) {
			return formatAddress(b)
		}
	}
	switch t := underlying(p.typ).(type) {
	case *btf.Int:
		order := orderOf(p)
		return decodeInt(t, getInt(b, order), uint(t.Size)*8, naming{p.name, order}, b)
	case *btf.Enum:
		return decodeEnum(t, getInt(b, orderOf(p)), uint(t.Size)*8)
	case *btf.Float:
		return decodeFloat(b)
	case *btf.Array:
		return d.array(p, t, b)
	case *btf.Struct:
		return d.members(p, t.Members, Struct{})
	case *btf.Union:
		return d.union(p, t, b)
	default:
		return formatHex(b)
	}
}

func (d *decoder) array(p place, t *btf.Array, b []byte) any {
	if elem, ok := byteElement(t); ok {
		if isChar(elem) {
			return decodeText(b)
		}
		return formatHex(b)
	}
	out := make([]any, 0, t.Nelems)
	size := sizeof(t.Type)
	for i := range int(t.Nelems) {
		out = append(out, d.value(place{typ: t.Type, off: p.off + i*size, name: p.name}))
	}
	return out
}

// members appends the members of the struct at p to s. What takes no value, and
// pointers that are not set, are left out.
func (d *decoder) members(p place, ms []btf.Member, s Struct) Struct {
	for _, m := range ms {
		s = d.member(p, m, s)
	}
	return s
}

func (d *decoder) member(p place, m btf.Member, s Struct) Struct {
	in := place{typ: m.Type, off: p.off + int(m.Offset/8), name: m.Name}
	switch u := underlying(m.Type).(type) {
	case *btf.Struct:
		if m.Name == "" {
			return d.members(in, u.Members, s)
		}
	case *btf.Union:
		if m.Name == "" {
			if chosen, ok := choose(u); ok {
				return d.member(in, chosen, s)
			}
			return s
		}
	case *btf.Pointer:
		if zero(d.data[in.off : in.off+sizeof(m.Type)]) {
			return s
		}
	}
	if m.Name == "" {
		return s
	}
	if m.BitfieldSize > 0 {
		return append(s, Member{m.Name, d.bitfield(p, m)})
	}
	if sizeof(m.Type) == 0 {
		return s
	}
	return append(s, Member{m.Name, d.value(in)})
}

func (d *decoder) bitfield(p place, m btf.Member) any {
	bits := uint(m.BitfieldSize)
	n := getBits(d.data, uint(p.off)*8+uint(m.Offset), bits)
	switch t := underlying(m.Type).(type) {
	case *btf.Enum:
		return decodeEnum(t, n, bits)
	case *btf.Int:
		if isBool(t) && bits > 1 {
			return jsonNumber(n)
		}
		return decodeInt(t, n, bits, naming{m.Name, native}, nil)
	}
	return jsonNumber(n)
}

// naming is what else an integer's meaning depends on.
type naming struct {
	name  string
	order byteOrder
}

// decodeInt returns n, the bits of an integer, as t means them. raw are its
// bytes, for a bool that is neither true nor false.
func decodeInt(t *btf.Int, n *big.Int, bits uint, f naming, raw []byte) any {
	if isBool(t) {
		switch {
		case n.Sign() == 0:
			return false
		case n.IsInt64() && n.Int64() == 1:
			return true
		}
		return formatHex(raw)
	}
	if isSigned(t) {
		n = asSigned(n, bits)
	}
	if isProtocolField(f.name, f.order) && n.IsInt64() {
		for _, p := range protocols {
			if p.number == n.Int64() {
				return p.name
			}
		}
	}
	return jsonNumber(n)
}

// union returns the union at p as the member that shows most of it.
func (d *decoder) union(p place, t *btf.Union, b []byte) any {
	s := Struct{}
	if chosen, ok := choose(t); ok {
		s = d.member(p, chosen, s)
	}
	if len(s) == 0 {
		return formatHex(b)
	}
	return s
}

// choose returns the member that covers most bits, the first of several: what a
// value really is, only its program knows.
func choose(t *btf.Union) (btf.Member, bool) {
	var best btf.Member
	most := -1
	for _, m := range t.Members {
		if n, ok := covered(m); ok && n > most {
			best, most = m, n
		}
	}
	return best, most >= 0
}

// covered returns how many bits of m are always shown; ok is false if m can't be.
func covered(m btf.Member) (bits int, ok bool) {
	if _, ok := members(m.Type); m.Name == "" && !ok || sizeof(m.Type) == 0 {
		return 0, false
	}
	if m.BitfieldSize > 0 {
		return int(m.BitfieldSize), true
	}
	return coveredType(m.Type), true
}

func coveredType(t btf.Type) int {
	u := underlying(t)
	switch t := u.(type) {
	case *btf.Pointer:
		return 0
	case *btf.Array:
		return int(t.Nelems) * coveredType(t.Type)
	case *btf.Struct, *btf.Union:
		ms, _ := members(u)
		sum := 0
		for _, m := range ms {
			n, _ := covered(m)
			if _, isUnion := u.(*btf.Union); isUnion {
				sum = max(sum, n)
			} else {
				sum += n
			}
		}
		return sum
	default:
		return sizeof(u) * 8
	}
}

// showsMAC says whether a value of type t with 6 bytes is shown as a MAC
// address: an array of bytes, alone or as the only member of structs.
func showsMAC(t btf.Type) bool {
	switch u := underlying(t).(type) {
	case *btf.Array:
		elem, ok := byteElement(u)
		return ok && !isChar(elem)
	case *btf.Struct:
		return len(u.Members) == 1 && showsMAC(u.Members[0].Type)
	}
	return false
}
