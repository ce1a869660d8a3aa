// SPDX-License-Identifier: Apache-2.0

package value

import (
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/specs/policy"
)

// protocols are the names that fields like isProtocolField take
// (IANA protocol numbers, include/uapi/linux/in.h).
var protocols = []struct {
	name   string
	number int64
}{{"tcp", 6}, {"udp", 17}, {"icmp", 1}, {"icmpv6", 58}, {"sctp", 132}}

// isProtocolField says whether a field of that name holds an IP protocol. A
// field in network order of such a name holds an ethertype instead.
func isProtocolField(name string, o byteOrder) bool {
	if o == network {
		return false
	}
	switch strings.ToLower(strings.Trim(name, "_")) {
	case "proto", "protocol", "ip_proto", "ip_protocol", "ipproto", "l4proto", "l4_proto", "nexthdr", "next_header":
		return true
	}
	return false
}

// orderOf returns the byte order of integers at p.
func orderOf(p place) byteOrder {
	if inNetworkOrder(p.typ, p.name) {
		return network
	}
	return native
}

// integer encodes v as t, the underlying type at p.
func (e *encoder) integer(p place, t *btf.Int, v *policy.Value) error {
	if v.Kind != policy.ScalarValue {
		return fail(v, "write one number", "a %s does not fit %s", kindName(v), TypeName(p.typ))
	}
	dst, order := e.at(p), orderOf(p)
	text, forced := strings.CutPrefix(v.Text, bePrefix)
	if forced {
		order = network
		if looksLikeAddress(text) {
			return fail(v, "write "+text, "an address is always in network order, so %s has one prefix too many", quote(v.Text))
		}
	} else if done, err := e.address(p, v); done || err != nil {
		return err
	}
	n, err := e.number(number{p: p, typ: t, bits: uint(t.Size) * 8, order: order}, v, text)
	if err != nil {
		return err
	}
	putInt(dst, n, order)
	return nil
}

// number says what an integer's text may be.
type number struct {
	p     place
	typ   *btf.Int
	bits  uint
	order byteOrder
	label string // what messages call a bitfield's type; empty for other integers
}

func (c number) String() string {
	if c.label != "" {
		return c.label
	}
	return TypeName(c.p.typ)
}

func (c number) isBool() bool {
	// Compilers make bool bitfields of one bit only; a wider one holds numbers.
	return isBool(c.typ) && (c.label == "" || c.bits == 1)
}

func (c number) limits(e *encoder) limits {
	switch {
	case c.isBool():
		return unsignedLimits(1)
	case e.anySign || isChar(c.typ): // whether char has a sign depends on the machine
		return eitherLimits(c.bits)
	case isSigned(c.typ):
		return signedLimits(c.bits)
	default:
		return unsignedLimits(c.bits)
	}
}

// number reads the text of v, from which `be:` has been taken.
func (e *encoder) number(c number, v *policy.Value, text string) (*big.Int, error) {
	if c.isBool() {
		switch text {
		case "true":
			return big.NewInt(1), nil
		case "false":
			return new(big.Int), nil
		}
	}
	known, isProtocol := protocolNumber(text)
	isProtocol = isProtocol && isProtocolField(c.p.name, c.order)
	if !isProtocol && isChar(c.typ) && (v.Quoted || len(text) == 1 && (text[0] < '0' || text[0] > '9')) {
		if len(text) != 1 || text[0] >= 0x80 {
			return nil, fail(v, "write one ASCII character in quotes, or a number without them", "%s does not fit %s", quote(text), c)
		}
		return big.NewInt(int64(text[0])), nil
	}
	n, err := parseNumber(text)
	if isProtocol {
		n, err = known, nil
	}
	if err != nil {
		return nil, e.noNumber(c, v, text, err)
	}
	if l := c.limits(e); !l.contain(n) {
		return nil, fail(v, "write a number from "+l.String(), "%s does not fit %s", quoteNumber(text), c)
	}
	return n, nil
}

// noNumber explains why text is no number for c.
func (e *encoder) noNumber(c number, v *policy.Value, text string, err error) error {
	if errors.Is(err, errLeadingZero) {
		return fail(v, "leave out the zero, or write 0o… for octal", "%s for %s: %w", quote(text), c, err)
	}
	if c.isBool() {
		return fail(v, "write true or false", "%s is no %s", quote(text), c)
	}
	if looksLikeAddress(text) && c.label == "" {
		return misfit(c.p, v)
	}
	remedy := "write a number from " + c.limits(e).String()
	switch {
	case text == "true":
		remedy = "write 1"
	case text == "false":
		remedy = "write 0"
	case isProtocolField(c.p.name, c.order):
		remedy += ", or one of " + list(protocolNames())
	case addressSize(c.p.typ) > 0 && c.label == "":
		remedy += ", or an IP address"
	}
	return fail(v, remedy, "%s is no number, which %s needs", quote(text), c)
}

func quoteNumber(text string) string {
	if len(text) > 60 {
		return quote(text)
	}
	return text
}

func protocolNumber(name string) (*big.Int, bool) {
	for _, p := range protocols {
		if strings.EqualFold(p.name, name) {
			return big.NewInt(p.number), true
		}
	}
	return nil, false
}

func protocolNames() []string {
	var names []string
	for _, p := range protocols {
		names = append(names, p.name)
	}
	return names
}

// bitfield encodes v into f, a bitfield.
func (e *encoder) bitfield(p place, f field, v *policy.Value) error {
	name := fmt.Sprintf("%s:%d", TypeName(f.typ), f.bits)
	if v.Kind != policy.ScalarValue {
		return fail(v, "write one number", "a %s does not fit %s", kindName(v), name)
	}
	switch {
	case v.Null:
		return fail(v, "write 0, or leave it out", "null is no value for %s", name)
	case isVariable(v.Text):
		return fail(v, "", "%s can't be written to %s: only whole bytes are filled at attach time", v.Text, name)
	case strings.HasPrefix(v.Text, hexPrefix), strings.HasPrefix(v.Text, bePrefix):
		return fail(v, "write a number", "%s has no bytes of its own, so %s does not fit", name, quote(v.Text))
	}
	var n *big.Int
	var err error
	switch t := underlying(f.typ).(type) {
	case *btf.Int:
		n, err = e.number(number{p: place{typ: f.typ, name: f.name}, typ: t, bits: uint(f.bits), label: name}, v, v.Text)
	case *btf.Enum:
		n, err = enumNumber(enumeration{typ: t, bits: uint(f.bits), field: f.name, name: name}, v, v.Text)
	}
	if err != nil {
		return err
	}
	putBits(e.data, uint(p.off)*8+uint(f.off), uint(f.bits), n)
	return nil
}
