// SPDX-License-Identifier: Apache-2.0

package value

import (
	"math/big"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/specs/policy"
)

// enumeration says what an enum's text may be.
type enumeration struct {
	typ   *btf.Enum
	bits  uint
	field string // the field's name
	name  string // what messages call the type
}

// limits takes numbers of either sign where BTF says that there is none: clang
// before version 15 says so of every enum.
func (c enumeration) limits() limits {
	if c.typ.Signed {
		return signedLimits(c.bits)
	}
	return eitherLimits(c.bits)
}

// value returns the number that ev stands for; ok is false if it does not fit.
func (c enumeration) value(ev btf.EnumValue) (n *big.Int, ok bool) {
	if c.typ.Signed {
		n = big.NewInt(int64(ev.Value))
	} else if n = new(big.Int).SetUint64(ev.Value); !c.limits().contain(n) {
		n = asSigned(n, uint(c.typ.Size)*8)
	}
	return n, c.limits().contain(n)
}

// enum encodes v as t, the underlying type at p.
func (e *encoder) enum(p place, t *btf.Enum, v *policy.Value) error {
	if v.Kind != policy.ScalarValue {
		return fail(v, "write one name or number", "a %s does not fit %s", kindName(v), TypeName(p.typ))
	}
	order := orderOf(p)
	text, forced := strings.CutPrefix(v.Text, bePrefix)
	if forced {
		order = network
	}
	n, err := enumNumber(enumeration{typ: t, bits: uint(t.Size) * 8, field: p.name, name: TypeName(p.typ)}, v, text)
	if err != nil {
		return err
	}
	putInt(e.at(p), n, order)
	return nil
}

// enumNumber returns the number that text, a name or a number, stands for.
func enumNumber(c enumeration, v *policy.Value, text string) (*big.Int, error) {
	if ev, ok := enumByName(c.typ, text); ok {
		n, ok := c.value(ev)
		if !ok {
			return nil, fail(v, "write a number from "+c.limits().String(), "%s, which is %d, does not fit %s", ev.Name, ev.Value, c.name)
		}
		return n, nil
	}
	n, ok := protocolNumber(text)
	if !ok || !isProtocolField(c.field, native) {
		var err error
		if n, err = parseNumber(text); err != nil {
			return nil, fail(v, "write one of "+list(enumNames(c)), "%s is no %s", quote(text), c.name)
		}
	}
	if l := c.limits(); !l.contain(n) {
		return nil, fail(v, "write a number from "+l.String(), "%s does not fit %s", quoteNumber(text), c.name)
	}
	return n, nil
}

// enumByName looks for the exact name, then for the only one that differs in
// nothing but case.
func enumByName(t *btf.Enum, name string) (found btf.EnumValue, ok bool) {
	for _, ev := range t.Values {
		if ev.Name == name {
			return ev, true
		}
	}
	for _, ev := range t.Values {
		if !strings.EqualFold(ev.Name, name) {
			continue
		}
		if ok && ev.Value != found.Value {
			return btf.EnumValue{}, false
		}
		found, ok = ev, true
	}
	return found, ok
}

func enumNames(c enumeration) []string {
	var names []string
	for _, ev := range c.typ.Values {
		names = append(names, ev.Name)
	}
	if len(names) == 0 {
		names = append(names, "the numbers from "+c.limits().String())
	}
	return names
}

// decodeEnum returns the name of unsigned, the bits of an enum, or its number.
func decodeEnum(t *btf.Enum, unsigned *big.Int, bits uint) any {
	c := enumeration{typ: t, bits: bits}
	for _, ev := range t.Values {
		if n, ok := c.value(ev); ok && ev.Name != "" && twosComplement(n, bits).Cmp(unsigned) == 0 {
			return ev.Name
		}
	}
	if t.Signed {
		return jsonNumber(asSigned(unsigned, bits))
	}
	return jsonNumber(unsigned)
}
