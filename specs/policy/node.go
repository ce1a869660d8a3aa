// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// MaxDepth is how deeply lists and mappings may be nested in a document.
const MaxDepth = 32

// field is a node with its place.
type field struct {
	node *yaml.Node
	pos  Pos
}

// at returns the place of a key of a key … of a mapping.
func (f field) at(path ...string) Pos {
	for _, key := range path {
		for i := 0; f.node.Kind == yaml.MappingNode && i+1 < len(f.node.Content); i += 2 {
			if k := f.node.Content[i]; k.Value == key {
				f = field{f.node.Content[i+1], under(f.pos, key, k.Line)}
				break
			}
		}
	}
	return f.pos
}

// object is a mapping whose keys are known.
type object struct {
	pos    Pos
	fields map[string]field
	whole  bool // every key was understood
}

// get returns a key's value, if the file has it.
func (o *object) get(key string) (field, bool) {
	f, ok := o.fields[key]
	return f, ok
}

// under returns the place of a key below pos.
func under(pos Pos, key string, line int) Pos {
	pos.Line = line
	switch {
	case !plainKey(key):
		pos.Field += "[" + strconv.Quote(shorten(key)) + "]"
	case pos.Field == "":
		pos.Field = key
	default:
		pos.Field += "." + key
	}
	return pos
}

// item returns the place of an element of the list at pos.
func item(pos Pos, index, line int) Pos {
	pos.Line = line
	pos.Field += "[" + strconv.Itoa(index) + "]"
	return pos
}

// plainKey reports whether key can stand in a path without quotes.
func plainKey(key string) bool {
	return key != "" && len(key) <= 64 && !strings.ContainsFunc(key, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_-/$", r)
	})
}

// shorten cuts what goes into a message.
func shorten(s string) string {
	const limit = 64
	if len(s) <= limit {
		return s
	}
	cut := 0
	for i := range s { // not inside a character
		if i > limit {
			break
		}
		cut = i
	}
	return s[:cut] + "…"
}

// check walks over everything below f and refuses, once for each place, what YAML
// can say and a policy can't.
func (d *decoder) check(f field, depth int) {
	n := f.node
	if depth > MaxDepth {
		d.refuse(f, "", "is nested more than %d deep", MaxDepth)
		return
	}
	switch {
	case n.Kind == yaml.AliasNode:
		d.refuse(f, "write out what it stands for", "is the alias *%s", shorten(n.Value))
		return
	case n.Anchor != "":
		d.refuse(f, "write the value wherever it is needed", "has the anchor &%s", shorten(n.Anchor))
	case !coreTag(n):
		d.refuse(f, "remove it", "has the tag %s", shorten(n.Tag))
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for i, child := range n.Content {
			d.check(field{child, item(f.pos, i, child.Line)}, depth+1)
		}
	case yaml.MappingNode:
		d.checkMapping(f, depth)
	}
}

func (d *decoder) checkMapping(f field, depth int) {
	lines := map[string]int{}
	for i := 0; i+1 < len(f.node.Content); i += 2 {
		key, value := f.node.Content[i], f.node.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			at := f.pos
			at.Line = key.Line
			d.refuse(field{key, at}, "write a plain key", "has %s as a key", describe(key))
			continue
		}
		pos := under(f.pos, key.Value, key.Line)
		if first, ok := lines[key.Value]; ok {
			d.refuse(field{key, pos}, "remove one of them", "the key stands at line %d already", first)
			continue
		}
		lines[key.Value] = key.Line
		if key.ShortTag() == "!!merge" {
			d.refuse(field{key, pos}, "write out what it stands for", "is the merge key <<")
			continue
		}
		if key.Anchor != "" || !coreTag(key) {
			d.refuse(field{key, pos}, "write a plain key", "is a key with an anchor or a tag")
			continue
		}
		d.check(field{value, pos}, depth+1)
	}
}

// refuse notes an error of a node, so that nobody else looks at it.
func (d *decoder) refuse(f field, remedy, format string, args ...any) {
	d.refused[f.node] = true
	d.fail(f.pos, remedy, format, args...)
}

// coreTag reports whether a node has no tag of its own, or one that says what
// the node is anyway. !!str is the exception: it makes a text of a number.
func coreTag(n *yaml.Node) bool {
	if n.Style&yaml.TaggedStyle == 0 {
		return true
	}
	switch n.Kind {
	case yaml.MappingNode:
		return n.Tag == "!!map"
	case yaml.SequenceNode:
		return n.Tag == "!!seq"
	case yaml.ScalarNode:
		plain := yaml.Node{Kind: yaml.ScalarNode, Value: n.Value}
		return n.Tag == "!!str" || n.Tag == plain.ShortTag() && n.Tag != "!!merge" && n.Tag != "!!timestamp"
	}
	return false
}

// quoted reports whether a scalar is text whatever it looks like.
func quoted(n *yaml.Node) bool {
	if n.Style&yaml.TaggedStyle != 0 {
		return n.Tag == "!!str"
	}
	return n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
}

// isNull reports whether a node has no value.
func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && !quoted(n) && n.ShortTag() == "!!null"
}

// describe says what a node is, for "must be …, not …".
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if quoted(n) {
		return "a text"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "empty"
	}
	return "a text"
}
