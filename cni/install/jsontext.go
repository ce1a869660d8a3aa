// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// node is one value of a JSON text and where it stands in it.
type node struct {
	start, end int  // src[start:end] is the value
	kind       byte // its first byte: '{', '[', '"', or that of a number or literal
	members    []member
	elems      []*node
}

// member is one key of an object.
type member struct {
	key              string // unescaped
	keyStart, keyEnd int    // with its quotes
	value            *node
}

// syntaxError is a JSON text that can't be understood.
type syntaxError struct {
	line  int
	cause error
}

func (e *syntaxError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.cause) }
func (e *syntaxError) Unwrap() error { return e.cause }

// errComment is what runtimes would not read either: encoding/json knows no comments.
var errComment = errors.New("a comment, which JSON does not have")

// parseText returns the tree of a JSON text, or a *syntaxError.
func parseText(src []byte) (*node, error) {
	var valid json.RawMessage
	if err := json.Unmarshal(src, &valid); err != nil {
		at := len(src)
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && syntax.Offset > 0 && int(syntax.Offset) <= len(src) {
			at = int(syntax.Offset)
			if c := src[at-1]; c == '/' || c == '#' {
				err = errComment
			}
			at-- // Offset counts the byte that was refused
		}
		return nil, &syntaxError{line: lineOf(src, at), cause: err}
	}
	s := scanner{src: src}
	return s.value(), nil
}

// lineOf returns the line, counted from 1, of the byte at offset at.
func lineOf(src []byte, at int) int {
	return 1 + bytes.Count(src[:min(at, len(src))], []byte{'\n'})
}

// scanner walks over a text that encoding/json has found valid.
type scanner struct {
	src []byte
	at  int
}

func (s *scanner) space() byte {
	for strings.IndexByte(" \t\r\n", s.src[s.at]) >= 0 {
		s.at++
	}
	return s.src[s.at]
}

func (s *scanner) value() *node {
	n := &node{kind: s.space(), start: s.at}
	switch n.kind {
	case '{':
		s.at++
		for s.space() != '}' {
			if s.src[s.at] == ',' {
				s.at++
				continue
			}
			key := s.text()
			m := member{keyStart: key.start, keyEnd: key.end, key: s.unescape(key)}
			s.space()
			s.at++ // the colon
			m.value = s.value()
			n.members = append(n.members, m)
		}
		s.at++
	case '[':
		s.at++
		for s.space() != ']' {
			if s.src[s.at] == ',' {
				s.at++
				continue
			}
			n.elems = append(n.elems, s.value())
		}
		s.at++
	case '"':
		return s.text()
	default:
		for s.at < len(s.src) && strings.IndexByte(" \t\r\n,]}", s.src[s.at]) < 0 {
			s.at++
		}
	}
	n.end = s.at
	return n
}

func (s *scanner) text() *node {
	n := &node{kind: '"', start: s.at}
	for s.at++; s.src[s.at] != '"'; s.at++ {
		if s.src[s.at] == '\\' {
			s.at++
		}
	}
	s.at++
	n.end = s.at
	return n
}

func (s *scanner) unescape(n *node) string {
	var out string
	if json.Unmarshal(s.src[n.start:n.end], &out) != nil {
		return string(s.src[n.start+1 : n.end-1]) // not reached: the text is valid
	}
	return out
}

// get returns the value of a key, nil if there is none. Keys are compared as
// encoding/json does for struct fields, since runtimes and plugins read them so.
func (n *node) get(key string) *node {
	for _, m := range n.members {
		if strings.EqualFold(m.key, key) {
			return m.value
		}
	}
	return nil
}

// twice returns the second member of a key that an object has twice, or nil.
func (n *node) twice() *member {
	for i := range n.members {
		for j := range i {
			if strings.EqualFold(n.members[i].key, n.members[j].key) {
				return &n.members[i]
			}
		}
	}
	return nil
}

// splice returns src with src[from:to] replaced. src is not changed.
func splice(src []byte, from, to int, text string) []byte {
	out := make([]byte, 0, len(src)+len(text)-(to-from))
	out = append(out, src[:from]...)
	out = append(out, text...)
	return append(out, src[to:]...)
}

// decode reads a whole text, numbers as they are written.
func decode(src []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber()
	var out map[string]any
	if err := d.Decode(&out); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return out, nil
}

// sameBesideOurs reports whether two lists say the same, entries of linkpin-cni left
// aside.
func sameBesideOurs(a, b []byte) bool {
	x, err := decode(a)
	y, err2 := decode(b)
	if err != nil || err2 != nil {
		return false
	}
	return reflect.DeepEqual(withoutOurs(x), withoutOurs(y))
}

func withoutOurs(list map[string]any) map[string]any {
	plugins, ok := list["plugins"].([]any)
	if !ok {
		return list
	}
	var kept []any
	for _, p := range plugins {
		if raw, err := json.Marshal(p); err != nil || typeOf(raw) != Plugin {
			kept = append(kept, p)
		}
	}
	list["plugins"] = kept
	return list
}

// typeOf returns the plugin type of an entry as libcni reads it.
func typeOf(entry []byte) string {
	var conf struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(entry, &conf) != nil {
		return ""
	}
	return conf.Type
}
