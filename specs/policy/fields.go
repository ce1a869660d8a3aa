// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// wrongKind notes that f is not what it must be ("a list").
func (d *decoder) wrongKind(f field, want, remedy string) {
	if d.refused[f.node] {
		return
	}
	if isNull(f.node) {
		d.fail(f.pos, "give it one, or remove the key", "has no value")
		return
	}
	d.fail(f.pos, remedy, "must be %s, not %s", want, describe(f.node))
}

// object reads a mapping with known keys.
func (d *decoder) object(f field, k keys) (*object, bool) {
	pairs, ok := d.pairs(f)
	if !ok {
		return nil, false
	}
	o := &object{pos: f.pos, fields: map[string]field{}, whole: len(pairs)*2 == len(f.node.Content)}
	for _, p := range pairs {
		if slices.Contains(k.names, p.key.Value) {
			o.fields[p.key.Value] = p.field
		} else {
			o.whole = false
			d.unknownKey(p, k)
		}
	}
	return o, true
}

func (d *decoder) unknownKey(p pair, k keys) {
	key := p.key.Value
	if remedy, ok := k.later[key]; ok {
		d.fail(p.pos, remedy, "not supported yet")
		return
	}
	if remedy, ok := k.hints[key]; ok {
		d.fail(p.pos, remedy, "this key does not belong here")
		return
	}
	remedy := "the keys here are " + strings.Join(k.names, ", ")
	if near := nearest(key, k.names); near != "" {
		remedy = "did you mean " + near + "? " + strings.ToUpper(remedy[:1]) + remedy[1:]
	}
	d.fail(p.pos, remedy, "unknown key")
}

// pair is a key of a mapping with its value.
type pair struct {
	key *yaml.Node
	field
}

// pairs reads a mapping, leaving out keys that check refused.
func (d *decoder) pairs(f field) ([]pair, bool) {
	if d.refused[f.node] {
		return nil, false
	}
	if f.node.Kind != yaml.MappingNode {
		d.wrongKind(f, "a mapping", "")
		return nil, false
	}
	var pairs []pair
	for i := 0; i+1 < len(f.node.Content); i += 2 {
		key, value := f.node.Content[i], f.node.Content[i+1]
		if !d.refused[key] {
			pairs = append(pairs, pair{key, field{value, under(f.pos, key.Value, key.Line)}})
		}
	}
	return pairs, true
}

// list reads a list, which may be empty.
func (d *decoder) list(f field) ([]field, bool) {
	if d.refused[f.node] {
		return nil, false
	}
	if f.node.Kind != yaml.SequenceNode {
		remedy := ""
		if f.node.Kind == yaml.ScalarNode {
			remedy = "write [" + shorten(f.node.Value) + "]"
		}
		d.wrongKind(f, "a list", remedy)
		return nil, false
	}
	items := make([]field, len(f.node.Content))
	for i, n := range f.node.Content {
		items[i] = field{n, item(f.pos, i, n.Line)}
	}
	return items, true
}

// filled is list for lists that say nothing when they are empty.
func (d *decoder) filled(f field) []field {
	items, ok := d.list(f)
	if ok && len(items) == 0 {
		d.fail(f.pos, "fill it, or remove the key", "is empty")
	}
	return items
}

// text reads a scalar that is neither a number nor a boolean.
func (d *decoder) text(f field) (string, bool) {
	n := f.node
	if d.refused[n] {
		return "", false
	}
	if n.Kind == yaml.ScalarNode {
		if tag := n.ShortTag(); quoted(n) || tag == "!!str" || tag == "!!timestamp" {
			return n.Value, true
		}
	}
	remedy := ""
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		remedy = "put it in quotes"
	}
	d.wrongKind(f, "a text", remedy)
	return "", false
}

// word is text for names of which there is a list, which is the better remedy
// where the file has a number or a boolean instead.
func (d *decoder) word(f field) (string, bool) {
	if n := f.node; n.Kind == yaml.ScalarNode && !isNull(n) && !d.refused[n] {
		return n.Value, true
	}
	return d.text(f)
}

// boolean reads true or false.
func (d *decoder) boolean(f field) (value, ok bool) {
	n := f.node
	if n.Kind == yaml.ScalarNode && !quoted(n) && (n.Value == "true" || n.Value == "false") {
		return n.Value == "true", !d.refused[n]
	}
	remedy := ""
	if n.Kind == yaml.ScalarNode && quoted(n) {
		remedy = "remove the quotes"
	}
	d.wrongKind(f, "true or false", remedy)
	return false, false
}

// integer reads a number between low and high, in decimal or as 0x….
func (d *decoder) integer(f field, low, high int64) (int64, bool) {
	n := f.node
	if d.refused[n] {
		return 0, false
	}
	huge := strings.Trim(n.Value, "0123456789") == "" && n.ShortTag() == "!!float"
	if n.Kind != yaml.ScalarNode || quoted(n) || n.ShortTag() != "!!int" && !huge {
		remedy := ""
		if n.Kind == yaml.ScalarNode && quoted(n) {
			remedy = "remove the quotes"
		}
		d.wrongKind(f, "a whole number", remedy)
		return 0, false
	}
	v, err := parseInteger(n.Value)
	if errors.Is(err, strconv.ErrSyntax) {
		d.fail(f.pos, "write it in decimal, or in hexadecimal with 0x", "%s can be read in more than one way", shorten(n.Value))
		return 0, false
	}
	if err != nil || v < low || v > high {
		d.fail(f.pos, "", "%s is not between %d and %d", shorten(n.Value), low, high)
		return 0, false
	}
	return v, true
}

// parseInteger leaves out the notations on which YAML's versions disagree: 010,
// 0o10, 0b10, 1_000, +1. The error is strconv's.
func parseInteger(s string) (int64, error) {
	sign, digits := "", s
	if rest, ok := strings.CutPrefix(s, "-"); ok {
		sign, digits = "-", rest
	}
	base := 10
	if hex, ok := strings.CutPrefix(digits, "0x"); ok {
		digits, base = hex, 16
	}
	if digits == "" || digits[0] == '+' || digits[0] == '-' || base == 10 && len(digits) > 1 && digits[0] == '0' {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseInt(sign+digits, base, 64)
}

// size reads an optional 32-bit number of at least low.
func (d *decoder) size(o *object, key string, low int64) *uint32 {
	f, ok := o.get(key)
	if !ok {
		return nil
	}
	v, ok := d.integer(f, low, 1<<32-1)
	if !ok {
		return nil
	}
	u := uint32(v)
	return &u
}

// choice reads one of allowed. What is in later is not supported yet.
func choice[T ~string](d *decoder, f field, allowed []T, later ...T) (T, bool) {
	s, ok := d.word(f)
	if !ok {
		return "", false
	}
	if slices.Contains(allowed, T(s)) {
		return T(s), true
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	remedy := "write " + oneOf(names)
	if slices.Contains(later, T(s)) {
		d.fail(f.pos, remedy, "%s is not supported yet", s)
		return "", false
	}
	if near := nearest(s, names); near != "" {
		remedy = "did you mean " + near + "? It can be " + oneOf(names)
		if len(names) > 10 {
			remedy = "did you mean " + near + "?"
		}
	}
	d.fail(f.pos, remedy, "%q is unknown", shorten(s))
	return "", false
}

// optional is choice for a key that may be missing; fallback stands for it.
func optional[T ~string](d *decoder, o *object, key string, fallback T, allowed []T, later ...T) T {
	f, ok := o.get(key)
	if !ok {
		return fallback
	}
	v, _ := choice(d, f, allowed, later...)
	return v
}

// required returns a key's value, or notes that it is missing.
func (d *decoder) required(o *object, key, remedy string) (field, bool) {
	f, ok := o.get(key)
	if !ok {
		d.fail(under(o.pos, key, o.pos.Line), remedy, "is missing")
	}
	return f, ok
}
