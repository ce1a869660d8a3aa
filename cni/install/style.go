// SPDX-License-Identifier: Apache-2.0

package install

import (
	"strings"

	"github.com/linkpin/linkpin/specs"
)

// style is how an object is written: line ends, tabs and spaces as they are around
// its members.
type style struct {
	open    string // after the brace
	between string // from the end of a member to the next, with the comma
	close   string // before the brace
	colon   string // from the end of a key to its value
}

func (s style) lines() bool { return strings.Contains(s.open, "\n") }

// styleOf returns the style of an object. One without members has the plain style of
// one line.
func styleOf(src []byte, object *node) style {
	if len(object.members) == 0 {
		return style{between: ", ", colon: ": "}
	}
	first, last := object.members[0], object.members[len(object.members)-1]
	s := style{
		open:  string(src[object.start+1 : first.keyStart]),
		close: string(src[last.value.end : object.end-1]),
		colon: string(src[first.keyEnd:first.value.start]),
	}
	switch {
	case len(object.members) > 1 && (!s.lines() || src[first.value.end] != ','):
		s.between = string(src[first.value.end:object.members[1].keyStart])
	case s.lines():
		s.between = "," + s.open
	case s.colon == ":":
		s.between = ","
	default:
		s.between = ", "
	}
	return s
}

// write returns an object of members, each a key with its value, in the style.
func (s style) write(members ...[2]string) string {
	var b strings.Builder
	b.WriteString("{" + s.open)
	for i, m := range members {
		if i > 0 {
			b.WriteString(s.between)
		}
		b.WriteString(quote(m[0]) + s.colon + m[1])
	}
	b.WriteString(s.close + "}")
	return b.String()
}

// inner is the style of an object inside one of style s, in lines like s.
func (s style) inner() style {
	unit := "  "
	if strings.HasSuffix(s.open, "\t") {
		unit = "\t"
	}
	if rest, ok := strings.CutPrefix(s.open, s.close); ok && rest != "" && strings.Contains(s.close, "\n") {
		unit = rest
	}
	return style{open: s.open + unit, between: "," + s.open + unit, close: s.open, colon: s.colon}
}

// betweenElems is what stands between the elements of an array, with the comma.
func betweenElems(src []byte, array *node) string {
	n := len(array.elems)
	if n > 1 {
		return string(src[array.elems[n-2].end:array.elems[n-1].start])
	}
	open := string(src[array.start+1 : array.elems[0].start])
	if open == "" && styleOf(src, array.elems[0]).colon != ":" {
		open = " "
	}
	return "," + open
}

// addMember adds a key to an object that has it not, after its last member.
func addMember(src []byte, object *node, key, value string) []byte {
	s := styleOf(src, object)
	text := quote(key) + s.colon + value
	if len(object.members) == 0 {
		return splice(src, object.start, object.end, "{"+text+"}")
	}
	end := object.members[len(object.members)-1].value.end
	return splice(src, end, end, s.between+text)
}

// appendEntry adds our entry to the end of a chain, in the style of the entry before
// it. A caller that is empty is not written.
func appendEntry(src []byte, plugins *node, caller specs.Caller) []byte {
	s := styleOf(src, plugins.elems[len(plugins.elems)-1])
	members := [][2]string{{"type", quote(Plugin)}}
	if caller != "" {
		members = append(members, [2]string{"caller", quote(string(caller))})
	}
	members = append(members, [2]string{"capabilities", capabilityText(src, plugins, s)})
	end := lastEnd(plugins)
	return splice(src, end, end, betweenElems(src, plugins)+s.write(members...))
}

// capabilityText returns the value of "capabilities" for an entry of style s, as the
// neighbours write theirs.
func capabilityText(src []byte, plugins *node, s style) string {
	inner := s.inner()
	if model, ok := neighbour(src, plugins); !s.lines() || ok && !model.lines() {
		inner = style{between: ", ", colon: s.colon}
		if s.colon == ":" {
			inner.between = ","
		}
		if ok && !model.lines() {
			inner = model
		}
	}
	members := make([][2]string, len(capabilities))
	for i, name := range capabilities {
		members[i] = [2]string{name, "true"}
	}
	return inner.write(members...)
}

// neighbour returns the style of the capabilities of the last plugin that has some,
// or else of the first object inside a plugin.
func neighbour(src []byte, plugins *node) (style, bool) {
	var found *node
	for _, p := range plugins.elems {
		for _, m := range p.members {
			if m.value.kind != '{' || len(m.value.members) == 0 || typeOf(src[p.start:p.end]) == Plugin {
				continue
			}
			if m.key == "capabilities" || found == nil {
				found = m.value
			}
		}
	}
	if found == nil {
		return style{}, false
	}
	return styleOf(src, found), true
}
