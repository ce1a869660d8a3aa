// SPDX-License-Identifier: Apache-2.0

// Package policy parses policy files (`linkpin.io/v1`) strictly: every error
// names file, line and field, and nothing is ignored. What needs the eBPF object
// (types of values, existing programs and maps) is checked by bpf/prepare.
//
// It links a YAML parser, so neither the hook nor the CNI plugin may import it.
package policy

import "github.com/linkpin/linkpin/specs"

// Policy is one YAML document.
type Policy struct {
	Pos         Pos
	Name        string
	Description string
	Objects     []Object // at least one; a single `object:` has the name ""
	Select      specs.Select
	OnError     specs.OnError
	Scope       specs.Scope    // default container
	Cgroup      specs.CgroupOf // default container
	Teardown    specs.Teardown // default drain
	TC          *TC            // nil: tcx hooks need a kernel with TCX links
	Programs    []Program      // nil: every program of every object, where its ELF section says
	Constants   []Constant
	Maps        []Map
}

// TC is `tc:`.
type TC struct {
	Pos      Pos
	Fallback specs.TCFallback // `fallback:` mandatory
}

// Object says where an eBPF object comes from: exactly one of Builtin and File.
type Object struct {
	Pos     Pos
	Name    string // "" for a single object
	Builtin string // name of an object that comes with linkpin; the parser does not know which there are
	File    string // path, relative to the policy file's directory; fs.ValidPath
	SHA256  string // lower-case hex, of the file; may be empty for a file
}

// Program is one entry of `programs:`. It may stand in the file as one mapping,
// as a list of mappings (attach at several places), or be empty (as the section says).
type Program struct {
	Pos         Pos
	Name        string       // "symbol" or "object/symbol"
	LoadOnly    bool         // `attach: none`
	LoadAs      specs.Hook   // `loadAs:` LoadOnly only: load it as for this hook; empty: as the section says
	Frags       *bool        // `frags:` of a LoadOnly XDP program; nil: what the section says. Others have it per attachment
	Attachments []Attachment // empty and not LoadOnly: where the section says
}

// Attachment is one place of a program. Zero fields mean: what the ELF section
// says, or the default in SPEC.md.
type Attachment struct {
	Pos       Pos
	Attach    specs.Hook      // `attach:`; empty: from the section or the direction
	Direction specs.Direction // `direction:`
	Interface string          // `interface:` glob
	Side      specs.Side      // `side:`; neither side nor direction: prepare puts container
	Mode      specs.XDPMode   // `mode:` XDP only; default auto
	Frags     *bool           // `frags:` XDP only; nil: what the section says
	Family    string          // `family:` netfilter only
	Hook      string          // `hook:` netfilter only
	Priority  *int32          // `priority:` netfilter only; default 0
	Defrag    bool            // `defrag:` netfilter only
}

// Constant is one entry of `constants:`.
type Constant struct {
	Pos   Pos
	Name  string // "variable" or "object/variable"
	Value *Value
}

// Map is one entry of `maps:`. Nil fields keep what the object says.
type Map struct {
	Pos        Pos
	Name       string // "map" (of every object that has one of that name: they become one map) or "object/map"
	Type       string // `type:` as libbpf names map types in lower case: "lpm_trie" (MapType)
	MaxEntries *uint32
	KeySize    *uint32
	ValueSize  *uint32
	Flags      []string // `flags:` names of BPF_F_* in lower case without the prefix: "no_prealloc" (MapFlag); nil keeps, empty clears
	Share      string   // `share:` container (default) or nobody; pod and node are refused as not supported yet
	Inner      *InnerMap
	Entries    []MapEntry
	Slots      []Slot // `programs:` of a program array
}

// InnerMap is `inner:`, the template of a map-in-map's inner maps.
type InnerMap struct {
	Pos        Pos
	Type       string
	KeySize    uint32
	ValueSize  uint32
	MaxEntries uint32
	Flags      []string
}

// MapEntry is one entry of `entries:`: `{key: …, value: …}`.
type MapEntry struct {
	Pos   Pos
	Key   *Value // nil if it is missing, as for queues
	Value *Value
}

// Slot is one entry of a program array: index → program name.
type Slot struct {
	Pos     Pos
	Key     *Value
	Program string
}
