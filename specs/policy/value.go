// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strconv"

	"github.com/linkpin/linkpin/specs"
)

// Pos is a place in a policy file.
type Pos struct {
	File  string // as it was given to the parser; may be empty for values that come from a command line
	Line  int    // 1-based; 0 when there is none
	Field string // path from the document's root: "maps.allow.entries[2].value.port"
}

// String returns "file:line: field", leaving out what is missing.
func (p Pos) String() string {
	s := p.File
	if p.Line > 0 {
		if s != "" {
			s += ":"
		}
		s += strconv.Itoa(p.Line)
	}
	if p.Field != "" {
		if s != "" {
			s += ": "
		}
		s += p.Field
	}
	return s
}

// ValueKind is what a Value holds.
type ValueKind int

// The kinds of values.
const (
	ScalarValue ValueKind = iota
	ListValue
	MapValue
)

// Value is a value as the policy file writes it, not yet interpreted: the BTF
// type that it is written to decides what "443" or "10.0.0.1" means.
type Value struct {
	Pos    Pos
	Kind   ValueKind
	Text   string   // ScalarValue: the text, without YAML quotes
	Quoted bool     // ScalarValue: it was quoted, so it can't be a number, a boolean or null
	Null   bool     // ScalarValue: YAML's null
	Items  []*Value // ListValue: the elements. MapValue: the values, in the file's order
	Keys   []*Value // MapValue only: the keys (scalars), parallel to Items; no key stands twice
}

// Variables are the names that `${…}` may have in a value, as it is written in a
// policy.
var Variables = []string{
	string(specs.VarIfindex), string(specs.VarPeerIfindex), string(specs.VarCgroupID), string(specs.VarNetnsCookie),
	string(specs.VarPID), string(specs.VarIP), string(specs.VarMAC), string(specs.VarContainerID),
	string(specs.VarPeerMAC), string(specs.VarPeerName),
}

// Get returns the value of a key of a MapValue, or nil.
func (v *Value) Get(key string) *Value {
	for i, k := range v.Keys {
		if k.Text == key {
			return v.Items[i]
		}
	}
	return nil
}
