// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"time"

	"github.com/linkpin/linkpin/specs"
)

// RecordVersion changes whenever the meaning of a Record changes. Fields may be
// added without a change; readers ignore those that they don't know.
const RecordVersion = 1

// MaxRecord bounds the record of one entry, in bytes.
const MaxRecord = 1 << 20

// Source says which part of linkpin attached an entry.
type Source string

// The sources.
const (
	ByHook Source = "hook"
	ByCNI  Source = "cni"
	ByCLI  Source = "cli"
)

// Record is what an entry remembers about itself. It is written once; the links
// themselves say what is true now.
type Record struct {
	Version    int            `json:"version"` // RecordVersion; set by WriteRecord
	Policy     string         `json:"policy"`
	Digest     string         `json:"digest"`               // of the policy's plan, SHA-256 in hex
	Generation string         `json:"generation,omitempty"` // of the applied set
	OnError    specs.OnError  `json:"onError"`
	Teardown   specs.Teardown `json:"teardown"`
	Scope      specs.Scope    `json:"scope"`

	Identity specs.Identity `json:"identity"`
	By       Source         `json:"by"`
	Bundle   string         `json:"bundle,omitempty"` // resolved path; empty in CNI
	PID      int            `json:"pid,omitempty"`    // the container's first process, in the host's pid namespace; 0 if not known
	Start    uint64         `json:"start,omitempty"`  // its start time, clock ticks since boot

	Cgroup    *CgroupRecord    `json:"cgroup,omitempty"`
	Netns     *NetnsRecord     `json:"netns,omitempty"`
	Interface *InterfaceRecord `json:"interface,omitempty"`
	Sandbox   Key              `json:"sandbox,omitempty"` // of Netns; empty if the entry has nothing to do with one
	// Uncovered says in words what the policy would attach and this container has
	// no place for: "packet sockets: no interface".
	Uncovered []string `json:"uncovered,omitempty"`

	Programs []ProgramRecord `json:"programs"`
	Maps     []string        `json:"maps,omitempty"` // plan names of the pinned maps
	Created  time.Time       `json:"created"`
	Updated  time.Time       `json:"updated,omitzero"` // when `linkpin update` last changed it; zero: never
}

// CgroupRecord names the cgroup of an entry.
type CgroupRecord struct {
	Path string `json:"path"` // absolute, as linkpin saw it when it attached
	ID   uint64 `json:"id"`
}

// NetnsRecord names the network namespace of an entry.
type NetnsRecord struct {
	Path   string `json:"path"`
	Inode  uint64 `json:"inode"`
	Cookie uint64 `json:"cookie"` // never reused until reboot
}

// InterfaceRecord names the interface of an entry.
type InterfaceRecord struct {
	Network       string   `json:"network,omitempty"` // CNI network name; empty in the hook
	Name          string   `json:"name"`              // inside the container
	Index         int      `json:"index"`             // inside the container
	PeerName      string   `json:"peerName,omitempty"`
	PeerIndex     int      `json:"peerIndex,omitempty"`     // on the host; 0 if there is no peer
	Kind          string   `json:"kind,omitempty"`          // of rtnetlink: veth, macvlan
	Addresses     []string `json:"addresses,omitempty"`     // with prefix lengths, when it was attached
	DiesWithNetns bool     `json:"diesWithNetns,omitempty"` // false: the device goes back to the host and must be detached
}

// ProgramRecord is one attachment of an entry.
type ProgramRecord struct {
	Name      string           `json:"name"` // of the attachment and of its link pin
	Key       string           `json:"key"`  // of the program in the plan
	Hook      specs.Hook       `json:"hook"`
	Target    specs.TargetKind `json:"target"`
	Side      specs.Side       `json:"side,omitempty"`      // interfaces: the end that it was attached to
	Mode      specs.XDPMode    `json:"mode,omitempty"`      // XDP: the mode that was got, native or generic
	Ifindex   int              `json:"ifindex,omitempty"`   // interfaces: of the device on that side
	Netfilter *specs.Netfilter `json:"netfilter,omitempty"` // netfilter only
	Filter    *FilterRecord    `json:"filter,omitempty"`    // a tc filter in the place of a link, which nobody owns; nil: there is a link
	LinkID    uint32           `json:"linkId"`              // 0 with Filter
	ProgramID uint32           `json:"programId"`
	Tag       string           `json:"tag"`
}

// FilterRecord says where a tc filter is, exactly: on the device of the program's
// Ifindex and Side. The hook tells ingress from egress.
type FilterRecord struct {
	Priority uint16 `json:"priority"`
	Handle   uint32 `json:"handle"`
	Protocol string `json:"protocol"` // all
	Name     string `json:"name"`     // as `tc filter show` lists it
	// MadeQdisc says that the clsact qdisc is linkpin's: it goes with the last filter.
	MadeQdisc bool `json:"madeQdisc,omitempty"`
}
