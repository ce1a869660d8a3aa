// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// Who shares a map.
const (
	ShareContainer = "container" // one map for all objects of the policy
	ShareNobody    = "nobody"    // each object of the policy has its own
)

// Types whose maps hold maps or programs, for checks that need no object.
var (
	mapsOfMaps = []string{"array_of_maps", "hash_of_maps"}
	progArray  = "prog_array"
)

// constants reads `constants:`.
func (d *decoder) constants(f field, p *Policy) []Constant {
	pairs, ok := d.pairs(f)
	if ok && len(f.node.Content) == 0 {
		d.fail(f.pos, "set a constant, or remove the key", "is empty")
	}
	var out []Constant
	for _, pair := range pairs {
		d.checkSymbol(pair.pos, pair.key.Value, p)
		out = append(out, Constant{Pos: pair.pos, Name: pair.key.Value, Value: d.value(pair.field)})
	}
	return out
}

// maps reads `maps:`.
func (d *decoder) maps(f field, p *Policy) []Map {
	pairs, ok := d.pairs(f)
	if ok && len(f.node.Content) == 0 {
		d.fail(f.pos, "name a map, or remove the key", "is empty")
	}
	var out []Map
	for _, pair := range pairs {
		d.checkSymbol(pair.pos, pair.key.Value, p)
		out = append(out, d.oneMap(pair.field, pair.key.Value, p))
	}
	return out
}

// oneMap reads what is said of one map.
func (d *decoder) oneMap(f field, name string, p *Policy) Map {
	m := Map{Pos: f.pos, Name: name, Share: ShareContainer}
	o, ok := d.object(f, mapKeys)
	if !ok {
		return m
	}
	if len(o.fields) == 0 && o.whole {
		d.fail(f.pos, "say something of the map, or remove it", "is empty")
	}
	m.Type = optional(d, o, "type", "", mapTypeNames())
	m.MaxEntries = d.size(o, "maxEntries", 1)
	m.KeySize = d.size(o, "keySize", 0)
	m.ValueSize = d.size(o, "valueSize", 0)
	m.Share = optional(d, o, "share", ShareContainer, []string{ShareContainer, ShareNobody}, "pod", "node")
	if f, ok := o.get("flags"); ok {
		m.Flags = d.flags(f)
	}
	if f, ok := o.get("inner"); ok {
		m.Inner = d.inner(f)
	}
	if f, ok := o.get("entries"); ok {
		m.Entries = d.entries(f)
	}
	if f, ok := o.get("programs"); ok {
		m.Slots = d.slots(f, p)
	}
	d.checkMap(o, m)
	return m
}

// checkMap refuses what contradicts itself whatever the object says.
func (d *decoder) checkMap(o *object, m Map) {
	entries, hasEntries := o.get("entries")
	slots, hasSlots := o.get("programs")
	inner, hasInner := o.get("inner")
	ofMaps := slices.Contains(mapsOfMaps, m.Type)
	switch {
	case hasEntries && hasSlots:
		d.fail(slots.pos, "keep one of them", "entries stands at line %d already, and a map holds programs or values", entries.pos.Line)
	case hasEntries && (hasInner || ofMaps):
		d.fail(entries.pos, "remove it, and put the maps in once the container runs", "filling a map of maps is not supported yet")
	case hasEntries && m.Type == progArray:
		d.fail(entries.pos, "write programs: {0: name}", "does not go with type prog_array")
	case hasSlots && m.Type != "" && m.Type != progArray:
		d.fail(slots.pos, "remove it, or correct type", "is for program arrays, and the type is %s", m.Type)
	}
	if hasInner && m.Type != "" && !ofMaps {
		d.fail(inner.pos, "remove it, or correct type", "is for maps of maps, and the type is %s", m.Type)
	}
	if m.MaxEntries != nil && uint64(*m.MaxEntries) < uint64(len(m.Entries)) {
		d.fail(entries.pos, "raise maxEntries", "has %d entries, and maxEntries is %d", len(m.Entries), *m.MaxEntries)
	}
}

// flags reads a list of flags, which may be empty to clear those of the object.
func (d *decoder) flags(f field) []string {
	items, ok := d.list(f)
	if !ok {
		return nil
	}
	out := []string{}
	for _, item := range items {
		s, ok := choice(d, item, mapFlagNames())
		if ok && slices.Contains(out, s) {
			d.fail(item.pos, "remove one of them", "%s stands twice", s)
		}
		out = append(out, s)
	}
	return out
}

// inner reads the template of inner maps. Nothing in it has a default.
func (d *decoder) inner(f field) *InnerMap {
	o, ok := d.object(f, innerKeys)
	if !ok {
		return nil
	}
	m := &InnerMap{Pos: f.pos}
	if f, ok := d.required(o, "type", "say which type the inner maps have"); ok {
		if m.Type, ok = choice(d, f, mapTypeNames()); ok && slices.Contains(mapsOfMaps, m.Type) {
			d.fail(f.pos, "name another type", "the kernel nests maps only once")
		}
	}
	for _, size := range []struct {
		key string
		low int64
		to  *uint32
	}{{"keySize", 0, &m.KeySize}, {"valueSize", 0, &m.ValueSize}, {"maxEntries", 1, &m.MaxEntries}} {
		if _, ok := d.required(o, size.key, "write a number"); ok {
			if v := d.size(o, size.key, size.low); v != nil {
				*size.to = *v
			}
		}
	}
	if f, ok := o.get("flags"); ok {
		m.Flags = d.flags(f)
	}
	return m
}

// entries reads `entries:`. The same key twice is an error. Maps without keys have
// entries without them; bpf/prepare knows which these are.
func (d *decoder) entries(f field) []MapEntry {
	items := d.filled(f)
	lines := map[string]int{}
	var out []MapEntry
	for _, item := range items {
		o, ok := d.object(item, entryKeys)
		if !ok {
			continue
		}
		e := MapEntry{Pos: item.pos}
		if f, ok := o.get("key"); ok {
			before := len(d.problems)
			e.Key = d.value(f)
			key := canonical(e.Key)
			if line, ok := lines[key]; ok && len(d.problems) == before {
				d.fail(f.pos, "remove one of them", "the key stands at line %d already", line)
			}
			lines[key] = f.pos.Line
		}
		if f, ok := d.required(o, "value", "write {key: …, value: …}"); ok {
			e.Value = d.value(f)
		}
		out = append(out, e)
	}
	return out
}

// slots reads `programs:` of a program array.
func (d *decoder) slots(f field, p *Policy) []Slot {
	pairs, ok := d.pairs(f)
	if ok && len(f.node.Content) == 0 {
		d.fail(f.pos, "fill a slot, or remove the key", "is empty")
	}
	lines := map[int64]int{}
	var out []Slot
	for _, pair := range pairs {
		pos := pair.pos
		index := field{pair.key, pos}
		n, ok := d.integer(index, 0, 1<<32-1)
		if !ok {
			continue
		}
		if line, ok := lines[n]; ok {
			d.fail(pos, "remove one of them", "the slot stands at line %d already", line)
		}
		lines[n] = pos.Line
		if name, ok := d.text(pair.field); ok {
			d.checkSymbol(pos, name, p)
			out = append(out, Slot{Pos: pos, Key: d.value(index), Program: name})
		}
	}
	return out
}

// value takes over a value as it stands. There is no type to which null could
// belong, and a key without a value is the trace of an editor or a cut.
func (d *decoder) value(f field) *Value {
	n := f.node
	v := &Value{Pos: f.pos}
	switch {
	case d.refused[n]:
	case isNull(n):
		d.fail(f.pos, `write 0, "" or what is meant`, "has no value")
	case n.Kind == yaml.SequenceNode:
		v.Kind = ListValue
		items, _ := d.list(f)
		for _, item := range items {
			v.Items = append(v.Items, d.value(item))
		}
	case n.Kind == yaml.MappingNode:
		v.Kind = MapValue
		pairs, _ := d.pairs(f)
		for _, p := range pairs {
			v.Keys = append(v.Keys, d.value(field{p.key, p.pos}))
			v.Items = append(v.Items, d.value(p.field))
		}
	default:
		v.Text, v.Quoted = n.Value, quoted(n)
		d.checkVariable(f.pos, v.Text)
	}
	return v
}

// checkVariable refuses a text that is written like a variable and is none.
func (d *decoder) checkVariable(pos Pos, s string) {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(s, "be:"), "${")
	if !ok {
		return
	}
	name, closed := strings.CutSuffix(rest, "}")
	if closed && slices.Contains(Variables, name) {
		return
	}
	remedy := "the variables are " + strings.Join(Variables, ", ")
	if near := nearest(name, Variables); near != "" {
		remedy = "did you mean ${" + near + "}?"
	}
	d.fail(pos, remedy, "%q is not a variable", shorten(s))
}

// canonical writes values that stand for the same thing in the same way, as far
// as that can be told without a type.
func canonical(v *Value) string {
	var b strings.Builder
	switch v.Kind {
	case ListValue:
		for _, item := range v.Items {
			b.WriteString("[" + canonical(item) + "]")
		}
	case MapValue:
		var parts []string
		for i, key := range v.Keys {
			parts = append(parts, "{"+canonical(key)+":"+canonical(v.Items[i])+"}")
		}
		slices.Sort(parts)
		b.WriteString(strings.Join(parts, ""))
	case ScalarValue:
		if n, err := parseInteger(v.Text); err == nil && !v.Quoted {
			return strconv.FormatInt(n, 10)
		}
		return strconv.Quote(v.Text)
	}
	return b.String()
}
