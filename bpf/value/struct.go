// SPDX-License-Identifier: Apache-2.0

package value

import (
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/specs/policy"
)

// field is a member of a struct or union, or of an anonymous member of it.
type field struct {
	name    string
	typ     btf.Type
	off     btf.Bits // from the start of the outermost struct or union
	bits    btf.Bits // of a bitfield, else 0
	choices []choice // the unions it is in, from the outside, and its member of each
}

// choice is one member of one union.
type choice struct{ union, member int }

// start and end return which bytes f touches.
func (f field) start() int { return int(f.off / 8) }

func (f field) end() int {
	if f.bits > 0 {
		return int((f.off + f.bits + 7) / 8)
	}
	return f.start() + sizeof(f.typ)
}

// fieldsOf returns the fields of a struct or union in their order.
func fieldsOf(t btf.Type) []field {
	var w fieldWalk
	w.walk(t, 0, nil)
	return w.fields
}

type fieldWalk struct {
	fields []field
	unions int
}

func (w *fieldWalk) walk(t btf.Type, off btf.Bits, choices []choice) {
	ms, _ := members(t)
	_, isUnion := underlying(t).(*btf.Union)
	union := w.unions
	if isUnion {
		w.unions++
	}
	for i, m := range ms {
		in := choices
		if isUnion {
			in = append(slices.Clone(choices), choice{union, i})
		}
		if m.Name != "" {
			w.fields = append(w.fields, field{m.Name, m.Type, off + m.Offset, m.BitfieldSize, in})
		} else if _, ok := members(m.Type); ok {
			w.walk(m.Type, off+m.Offset, in)
		}
	}
}

func fieldNames(fields []field) []string {
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	return names
}

func fieldByName(fields []field, name string) (field, bool) {
	i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
	if i < 0 {
		return field{}, false
	}
	return fields[i], true
}

// composite encodes v as the struct or union at p.
func (e *encoder) composite(p place, v *policy.Value) error {
	fields := fieldsOf(p.typ)
	switch v.Kind {
	case policy.ScalarValue:
		if done, err := e.address(p, v); done || err != nil {
			return err
		}
		return fail(v, mappingRemedy(fields), "%s does not fit %s", quote(v.Text), TypeName(p.typ))
	case policy.ListValue:
		return fail(v, mappingRemedy(fields), "a list does not fit %s", TypeName(p.typ))
	}
	if _, ok := underlying(p.typ).(*btf.Union); ok && len(v.Keys) == 0 {
		return fail(v, "write one of "+list(fieldNames(fields)), "%s needs exactly one member", TypeName(p.typ))
	}
	taken := make(map[int]claim)
	for i, key := range v.Keys {
		f, ok := fieldByName(fields, key.Text)
		if !ok || key.Kind != policy.ScalarValue {
			return fail(key, "its fields: "+list(fieldNames(fields)), "%s is no field of %s", quote(key.Text), TypeName(p.typ))
		}
		if slices.ContainsFunc(v.Keys[:i], func(k *policy.Value) bool { return k.Text == key.Text }) {
			return fail(key, "write it once", "field %s stands twice", quote(key.Text))
		}
		for _, c := range f.choices {
			if first, ok := taken[c.union]; ok && first.member != c.member {
				return fail(key, "leave one of them out", "%s and %s of %s share their bytes", first.name, f.name, TypeName(p.typ))
			}
			taken[c.union] = claim{c.member, f.name}
		}
		if err := e.field(p, f, v.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

func mappingRemedy(fields []field) string {
	if len(fields) == 0 {
		return "write hex:…"
	}
	return "write a mapping of its fields: " + list(fieldNames(fields))
}

// claim remembers which member of a union a value has used, and by which field.
type claim struct {
	member int
	name   string
}

// field encodes v into field f of the struct or union at p.
func (e *encoder) field(p place, f field, v *policy.Value) error {
	if f.bits > 0 {
		return e.bitfield(p, f, v)
	}
	if sizeof(f.typ) == 0 {
		return fail(v, "leave it out", "%s has no size: %w", strings.TrimSpace(TypeName(f.typ)+" "+f.name), ErrUnsupported)
	}
	return e.value(place{typ: f.typ, off: p.off + f.start(), name: f.name}, v)
}
