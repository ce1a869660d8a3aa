// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/linkpin/linkpin/specs/fault"
)

// containerdTree is a decoded TOML table.
type containerdTree = map[string]any

// containerdDecode decodes a file of containerd's. An error names path and line.
func containerdDecode(path string, data []byte) (containerdTree, error) {
	tree := containerdTree{}
	err := toml.Unmarshal(data, &tree)
	if err == nil {
		return tree, nil
	}
	object := path
	if at, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := at.Position()
		object = fmt.Sprintf("%s:%d", path, line)
	}
	return nil, fault.New(object, fmt.Errorf("is not valid TOML: %w", err), "mend the file; it was not changed").WithExit(fault.ExitInput)
}

// containerdDoc is where things stand in a TOML text that decodes.
type containerdDoc struct {
	data  []byte
	exprs []containerdExpr
}

// containerdExpr is a table header or a key with its value. It owns its lines:
// TOML allows one of them on a line.
type containerdExpr struct {
	start, end int      // its lines, with the line end
	table      []string // what the header opens, or the table the key stands in
	header     bool
	array      bool // in or at a [[header]]
	entries    []containerdEntry
}

// containerdEntry is a value, or one within an inline table.
type containerdEntry struct {
	path       []string
	start, end int // of the value
	inline     bool
	last       int // where the last value in an inline table ends; 0 if it is empty
}

// newContainerdDoc locates the expressions of data.
func newContainerdDoc(data []byte) (*containerdDoc, error) {
	d := &containerdDoc{data: data}
	var p unstable.Parser
	p.Reset(data)
	var table []string
	array := false
	for p.NextExpression() {
		n := p.Expression()
		e := containerdExpr{}
		key, first, after := containerdKey(n)
		switch n.Kind {
		case unstable.Table, unstable.ArrayTable:
			table, array = key, n.Kind == unstable.ArrayTable
			e.header = true
		case unstable.KeyValue:
			after = d.value(&e, n, slices.Concat(table, key), after)
		default:
			continue
		}
		e.table, e.array = table, array
		e.start = bytes.LastIndexByte(data[:first], '\n') + 1
		e.end = len(data)
		if i := bytes.IndexByte(data[after:], '\n'); i >= 0 {
			e.end = after + i + 1
		}
		d.exprs = append(d.exprs, e)
	}
	return d, p.Error()
}

// containerdKey returns a node's dotted key and where it begins and ends.
func containerdKey(n *unstable.Node) (key []string, first, after int) {
	first = -1
	for it := n.Key(); it.Next(); {
		k := it.Node()
		if first < 0 {
			first = int(k.Raw.Offset)
		}
		after = int(k.Raw.Offset + k.Raw.Length)
		key = append(key, string(k.Data))
	}
	return key, first, after
}

// value records the value of a key that ends at after, and those in it; it returns
// where the value ends.
func (d *containerdDoc) value(e *containerdExpr, n *unstable.Node, path []string, after int) int {
	start := after
	for start < len(d.data) && strings.IndexByte(" \t=", d.data[start]) >= 0 {
		start++
	}
	at := len(e.entries)
	v := n.Value()
	e.entries = append(e.entries, containerdEntry{
		path: path, start: start, end: containerdValueEnd(d.data, start), inline: v.Kind == unstable.InlineTable,
	})
	if v.Kind == unstable.InlineTable {
		for it := v.Children(); it.Next(); {
			if it.Node().Kind != unstable.KeyValue {
				continue
			}
			key, _, after := containerdKey(it.Node())
			e.entries[at].last = d.value(e, it.Node(), slices.Concat(path, key), after)
		}
	}
	return e.entries[at].end
}

// containerdValueEnd returns where the value that begins at i ends.
func containerdValueEnd(data []byte, i int) int {
	depth := 0
	for i < len(data) {
		switch c := data[i]; c {
		case '"', '\'':
			i = containerdStringEnd(data, i)
		case '[', '{':
			depth++
			i++
		case ']', '}':
			depth--
			i++
		case '#':
			for i < len(data) && data[i] != '\n' {
				i++
			}
			continue
		default:
			if depth == 0 {
				n := bytes.IndexAny(data[i:], ",]}#\r\n")
				if n < 0 {
					n = len(data) - i
				}
				return i + len(bytes.TrimRight(data[i:i+n], " \t"))
			}
			i++
		}
		if depth <= 0 {
			return i
		}
	}
	return i
}

// containerdStringEnd returns where the string that begins at i ends.
func containerdStringEnd(data []byte, i int) int {
	q := data[i]
	long := bytes.HasPrefix(data[i:], []byte{q, q, q})
	end := []byte{q}
	if long {
		end = []byte{q, q, q}
	}
	for i += len(end); i < len(data); i++ {
		if data[i] == '\\' && q == '"' {
			i++
			continue
		}
		if bytes.HasPrefix(data[i:], end) {
			i += len(end)
			for n := 0; long && n < 2 && i < len(data) && data[i] == q; n++ {
				i++ // one or two quotes may stand before the closing three
			}
			return i
		}
	}
	return i
}

// containerdValue writes a value on one line.
func containerdValue(v any) (string, error) {
	var b bytes.Buffer
	enc := toml.NewEncoder(&b)
	enc.SetTablesInline(true)
	if err := enc.Encode(containerdTree{"v": v}); err != nil {
		return "", err
	}
	s := strings.TrimSpace(b.String())
	if s == "[v]" {
		return "{}", nil
	}
	s, ok := strings.CutPrefix(s, "v = ")
	if !ok || strings.Contains(s, "\n") {
		return "", fmt.Errorf("%v can't be written on one line", v)
	}
	return s, nil
}

// containerdKeys writes a dotted key; quote goes around what needs one.
func containerdKeys(path []string, quote byte) string {
	out := make([]string, len(path))
	for i, k := range path {
		out[i] = k
		if k == "" || strings.ContainsFunc(k, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
		}) {
			out[i] = string(quote) + k + string(quote)
		}
	}
	return strings.Join(out, ".")
}
