// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/linkpin/linkpin/specs/fault"
)

// containerdSet is one value to be in a file. A table that is to be there as a whole
// has a containerdTree as its value, and is not there yet.
type containerdSet struct {
	path  []string
	value any
}

// errContainerdEdit means that a text is written in a way that edits can't keep.
var errContainerdEdit = errors.New("is written in a way that can't be edited safely")

// containerdEdit returns data, which holds none of our blocks, with sets made in
// blocks of ours; comments stand first in the block at the end. The result is checked:
// it decodes to what data does, but for sets, and without the blocks it is data again.
func containerdEdit(path string, data []byte, sets []containerdSet, comments []string, quote byte) ([]byte, error) {
	if len(sets) == 0 {
		return data, nil
	}
	want, err := containerdDecode(path, data)
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		if err := containerdAssign(want, s.path, s.value); err != nil {
			return nil, containerdUnsafe(path, sets, err)
		}
	}
	doc, err := newContainerdDoc(data)
	if err != nil {
		return nil, containerdUnsafe(path, sets, err)
	}
	out, err := doc.apply(sets, comments, quote)
	if err != nil {
		return nil, containerdUnsafe(path, sets, err)
	}
	got, err := containerdDecode(path, out)
	if err != nil {
		return nil, containerdUnsafe(path, sets, err)
	}
	if !reflect.DeepEqual(got, containerdPlain(want)) {
		return nil, containerdUnsafe(path, sets, errors.New("the edit would change something else"))
	}
	back, _, err := containerdStrip(path, out)
	if err != nil || !bytes.Equal(back, data) {
		return nil, containerdUnsafe(path, sets, errors.New("the edit could not be undone"))
	}
	return out, nil
}

func containerdUnsafe(path string, sets []containerdSet, err error) error {
	return fault.New(path, fmt.Errorf("%w: %w", errContainerdEdit, err),
		fmt.Sprintf("write [%s] as a table of its own; the file was not changed", containerdKeys(sets[len(sets)-1].path[:len(sets[len(sets)-1].path)-1], '"')))
}

// containerdPlain gives lists the type that decoding gives them.
func containerdPlain(v any) any {
	switch v := v.(type) {
	case containerdTree:
		out := make(containerdTree, len(v))
		for k, e := range v {
			out[k] = containerdPlain(e)
		}
		return out
	case []string:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = e
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = containerdPlain(e)
		}
		return out
	}
	return v
}

// containerdAssign sets a value in a tree.
func containerdAssign(tree containerdTree, path []string, v any) error {
	for _, k := range path[:len(path)-1] {
		switch sub := tree[k].(type) {
		case nil:
			next := containerdTree{}
			tree[k] = next
			tree = next
		case containerdTree:
			tree = sub
		default:
			return fmt.Errorf("%s is not a table", k)
		}
	}
	tree[path[len(path)-1]] = v
	return nil
}

// containerdChange replaces a range within an expression's lines.
type containerdChange struct {
	start, end int
	text       string
}

// containerdChanges is what is to happen to a document.
type containerdChanges struct {
	within map[int][]containerdChange // by expression
	after  map[int][]string           // lines behind an expression
	tail   []string                   // lines at the end
	tables map[string]bool            // headers opened in tail
}

// apply makes sets; where each goes depends on how its table is written.
func (d *containerdDoc) apply(sets []containerdSet, comments []string, quote byte) ([]byte, error) {
	c := &containerdChanges{within: map[int][]containerdChange{}, after: map[int][]string{}, tables: map[string]bool{}, tail: comments}
	for _, s := range sets {
		if err := d.place(c, s, quote); err != nil {
			return nil, err
		}
	}
	w := newContainerdWriter(d.data)
	at := 0
	for i, e := range d.exprs {
		w.out.Write(d.data[at:e.start])
		raw := d.data[e.start:e.end]
		indent := string(raw[:len(raw)-len(bytes.TrimLeft(raw, " \t"))])
		if changes := c.within[i]; len(changes) > 0 {
			slices.SortStableFunc(changes, func(a, b containerdChange) int { return cmp.Compare(a.start, b.start) })
			w.block(indent, raw, containerdSplit(d.data, e, changes))
		} else {
			w.out.Write(raw)
		}
		if lines := c.after[i]; len(lines) > 0 {
			for j := range lines {
				lines[j] = indent + lines[j]
			}
			w.block(indent, nil, lines)
		}
		at = e.end
	}
	w.out.Write(d.data[at:])
	if len(c.tail) > 0 {
		w.block("", nil, c.tail)
	}
	return w.out.Bytes(), nil
}

// containerdSplit returns the lines of an expression after changes.
func containerdSplit(data []byte, e containerdExpr, changes []containerdChange) []string {
	var b bytes.Buffer
	at := e.start
	for _, ch := range changes {
		b.Write(data[at:ch.start])
		b.WriteString(ch.text)
		at = ch.end
	}
	b.Write(data[at:e.end])
	var lines []string
	for line := range bytes.Lines(b.Bytes()) {
		lines = append(lines, string(containerdChomp(line)))
	}
	return lines
}

// place finds where a value goes: it replaces the one that is there, or goes into the
// inline table it belongs to, or below the header of its table, or beside a key that
// is written with dots, or into a new table at the end.
func (d *containerdDoc) place(c *containerdChanges, s containerdSet, quote byte) error {
	parent, name := s.path[:len(s.path)-1], s.path[len(s.path)-1:]
	tree, isTable := s.value.(containerdTree)
	text := ""
	if !isTable || d.inlineAbove(s.path) {
		var err error
		if text, err = containerdValue(s.value); err != nil {
			return err
		}
	}
	for i, e := range d.exprs {
		if e.array && containerdWithin(s.path, e.table) {
			return fmt.Errorf("%s is an array of tables", containerdKeys(e.table, quote))
		}
		for _, v := range e.entries {
			switch {
			case slices.Equal(v.path, s.path):
				c.within[i] = append(c.within[i], containerdChange{v.start, v.end, text})
				return nil
			case v.inline && containerdWithin(s.path, v.path) && !d.inlineBelow(s.path, v.path):
				ch := v.insert(containerdNest(s.path[len(v.path):], text, quote))
				if slices.ContainsFunc(c.within[i], func(o containerdChange) bool { return v.last == 0 && o.start == ch.start }) {
					ch.text = ", " + ch.text // not the first in a table that was empty
				}
				c.within[i] = append(c.within[i], ch)
				return nil
			}
		}
	}
	if isTable {
		c.table(s.path, tree, quote)
		return nil
	}
	if i, table := d.beside(parent); i >= 0 {
		c.after[i] = append(c.after[i], containerdKeys(s.path[len(table):], quote)+" = "+text)
		return nil
	}
	if len(parent) == 0 {
		if len(d.exprs) > 0 {
			return errors.New("no key stands before the first table")
		}
		c.tail = append(c.tail, containerdKeys(name, quote)+" = "+text)
		return nil
	}
	header := "[" + containerdKeys(parent, quote) + "]"
	if !c.tables[header] {
		c.tables[header] = true
		c.tail = append(c.tail, header)
	}
	c.tail = append(c.tail, containerdKeys(name, quote)+" = "+text)
	return nil
}

// beside returns the expression behind which keys of a table go, and the table that
// they are relative to: its header, or a key of it that is written with dots. It is
// -1 if there is neither.
func (d *containerdDoc) beside(table []string) (expr int, from []string) {
	expr = -1
	for i, e := range d.exprs {
		switch {
		case e.header && slices.Equal(e.table, table):
			return i, e.table
		case len(table) == 0:
			if !e.header && len(e.table) == 0 {
				expr = i
			}
		case !e.header && len(e.table) < len(table) && len(table) < len(e.entries[0].path) && containerdWithin(e.entries[0].path, table):
			expr, from = i, e.table
		}
	}
	return expr, from
}

// insert returns the change that adds key = value to an inline table.
func (v containerdEntry) insert(text string) containerdChange {
	if v.last > 0 {
		return containerdChange{v.last, v.last, ", " + text}
	}
	return containerdChange{v.start + 1, v.start + 1, text}
}

// containerdNest writes path = text with inline tables for all but the first key.
func containerdNest(path []string, text string, quote byte) string {
	for i := len(path) - 1; i > 0; i-- {
		text = "{ " + containerdKeys(path[i:i+1], quote) + " = " + text + " }"
	}
	return containerdKeys(path[:1], quote) + " = " + text
}

// inlineAbove reports whether path lies in an inline table.
func (d *containerdDoc) inlineAbove(path []string) bool {
	for _, e := range d.exprs {
		for _, v := range e.entries {
			if v.inline && containerdWithin(path, v.path) {
				return true
			}
		}
	}
	return false
}

// inlineBelow reports whether a deeper inline table than at holds path, or a value.
func (d *containerdDoc) inlineBelow(path, at []string) bool {
	for _, e := range d.exprs {
		for _, v := range e.entries {
			if len(v.path) > len(at) && (v.inline && containerdWithin(path, v.path) || slices.Equal(v.path, path)) {
				return true
			}
		}
	}
	return false
}

// containerdWithin reports whether path is table or lies in it.
func containerdWithin(path, table []string) bool {
	return len(path) >= len(table) && slices.Equal(path[:len(table)], table)
}

// table appends a table with those in it.
func (c *containerdChanges) table(path []string, tree containerdTree, quote byte) {
	var sub []string
	for _, k := range slices.Sorted(maps.Keys(tree)) {
		if _, ok := tree[k].(containerdTree); ok {
			sub = append(sub, k)
		}
	}
	if len(sub) == 0 || len(sub) < len(tree) {
		c.tail = append(c.tail, "["+containerdKeys(path, quote)+"]")
	}
	for _, k := range slices.Sorted(maps.Keys(tree)) {
		if slices.Contains(sub, k) {
			continue
		}
		text, err := containerdValue(tree[k])
		if err != nil {
			continue // the check of the result finds it missing
		}
		c.tail = append(c.tail, containerdKeys([]string{k}, quote)+" = "+text)
	}
	for _, k := range sub {
		t, _ := tree[k].(containerdTree)
		c.table(append(slices.Clone(path), k), t, quote)
	}
}
