// SPDX-License-Identifier: Apache-2.0

package specs

// Plan is a policy that has been checked against its objects and turned into
// what the kernel needs: symbols, sizes and bytes. `linkpin policy apply` makes
// plans; hook and CNI only carry them out, without YAML and without BTF values.
// The JSON form is private to one version of linkpin (PlanVersion).
type Plan struct {
	Version     int            `json:"version"` // PlanVersion
	Name        string         `json:"name"`
	Description string         `json:"description,omitempty"`
	Source      string         `json:"source"` // policy file, for messages only
	OnError     OnError        `json:"onError"`
	Scope       Scope          `json:"scope"`
	Cgroup      CgroupOf       `json:"cgroup,omitempty"` // of the cgroup programs; "" means CgroupContainer
	Teardown    Teardown       `json:"teardown"`
	TCFallback  TCFallback     `json:"tcFallback,omitempty"` // of the tcx hooks, where the kernel has no TCX links; "" refuses there
	Objects     []PlanObject   `json:"objects"`
	Programs    []PlanProgram  `json:"programs"`
	Maps        []PlanMap      `json:"maps,omitempty"`
	Constants   []PlanConstant `json:"constants,omitempty"`
	Kernel      string         `json:"kernel,omitempty"` // release and version of uname(2) for which Fixups and AttachBTFID were computed
}

// PlanVersion changes whenever the meaning of a Plan changes. A set with another
// version counts as damaged: it must be applied again.
const PlanVersion = 2

// Target returns the kind of target that a program of the plan is attached to.
func (p *Plan) Target(h Hook) TargetKind {
	kind := h.Target()
	if kind == TargetCgroup && p.Cgroup == CgroupPod {
		return TargetPodCgroup
	}
	return kind
}

// PlanObject is one eBPF object of a plan.
type PlanObject struct {
	Name   string `json:"name"`   // name in `objects:`; "" for the single `object:`
	SHA256 string `json:"sha256"` // of the ELF file, lower-case hex; also its file name in the applied set
	Origin string `json:"origin"` // "builtin:egress" or the path it was read from, for messages only
}

// PlanProgram is one program to load. A symbol that has to be loaded with two
// different expected attach types stands twice, with different keys.
type PlanProgram struct {
	Key         string       `json:"key"`                   // unique in the plan; the policy's own notation: "symbol" or "object/symbol", with "#2" and so on for further copies
	Object      string       `json:"object"`                // PlanObject.Name
	Symbol      string       `json:"symbol"`                // function in the object
	Hook        Hook         `json:"hook,omitempty"`        // sets program type and expected attach type at load; "" keeps what the object's section says (a tail-call target)
	Frags       bool         `json:"frags,omitempty"`       // XDP: load for multi-buffer packets
	Attachments []Attachment `json:"attachments,omitempty"` // empty: load only
	Fixups      []Fixup      `json:"fixups,omitempty"`      // CO-RE relocations and kfunc calls, already resolved for Plan.Kernel
	AttachBTFID uint32       `json:"attachBTF,omitempty"`   // hooks with InSection: the function or tracepoint that the section names, as BTF of Plan.Kernel counts it; 0: to be looked up
}

// Fixup replaces one instruction of a program. On the kernel that it was computed
// for it saves reading the kernel's BTF at every container start.
type Fixup struct {
	Offset int    `json:"offset"` // in instructions of 8 bytes from the start of the program, its subprograms included
	Raw    []byte `json:"raw"`    // 8 bytes, or 16 for a 64-bit load
}

// Attachment is one place at which a program is attached.
type Attachment struct {
	Name      string     `json:"name"`                // unique in the plan; names the pin and the record's row: PlanProgram.Key, or Key with "@2" and so on
	Hook      Hook       `json:"hook"`                // never empty; for an attachment with a Direction: the hook on Side, resolved per interface when Side is SideAuto
	Side      Side       `json:"side,omitempty"`      // interface hooks only
	Direction Direction  `json:"direction,omitempty"` // interface hooks only; with SideAuto the side, and for tcx the hook, follow from it
	Interface string     `json:"interface,omitempty"` // glob over the interface's name inside the container; "" means every interface but lo
	Mode      XDPMode    `json:"mode,omitempty"`      // XDP only
	Netfilter *Netfilter `json:"netfilter,omitempty"` // HookNetfilter only
}

// OnInterface reports whether a is meant for the interface that has that name
// inside the container. The loopback interface is never meant.
func (a Attachment) OnInterface(name string) bool {
	return name != "lo" && (a.Interface == "" || Glob(a.Interface, name))
}

// Netfilter says where in netfilter a program runs (kernel 6.4,
// include/uapi/linux/bpf.h, link_create.netfilter).
type Netfilter struct {
	Family   string `json:"family"`           // ipv4 or ipv6
	Hook     string `json:"hook"`             // prerouting, input, forward, output or postrouting
	Priority int32  `json:"priority"`         // not the first or last value: the kernel refuses both
	Defrag   bool   `json:"defrag,omitempty"` // ask for defragmented packets
}

// PlanMap is one map of a plan. Fields that are nil keep what the object says.
type PlanMap struct {
	Name       string      `json:"name"`           // unique in the plan: "map" or "object/map"; names the pin
	Members    []MapRef    `json:"members"`        // the maps of the objects that this one map stands for; at least one
	Type       *uint32     `json:"type,omitempty"` // BPF_MAP_TYPE_*
	MaxEntries *uint32     `json:"maxEntries,omitempty"`
	KeySize    *uint32     `json:"keySize,omitempty"`   // bytes
	ValueSize  *uint32     `json:"valueSize,omitempty"` // bytes, of one CPU for per-CPU maps
	Flags      *uint32     `json:"flags,omitempty"`     // BPF_F_*, the whole set
	Inner      *PlanInner  `json:"inner,omitempty"`     // template for a map-in-map whose object has none
	Entries    []PlanEntry `json:"entries,omitempty"`
}

// MapRef names a map of an object.
type MapRef struct {
	Object string `json:"object"`
	Symbol string `json:"symbol"`
}

// PlanInner is the template of the inner maps of a map-in-map.
type PlanInner struct {
	Type       uint32 `json:"type"`
	KeySize    uint32 `json:"keySize"`
	ValueSize  uint32 `json:"valueSize"`
	MaxEntries uint32 `json:"maxEntries"`
	Flags      uint32 `json:"flags,omitempty"`
}

// PlanEntry is one entry of a map. For per-CPU maps the value is that of one
// CPU and is set on every CPU.
type PlanEntry struct {
	Key     Bytes  `json:"key"`
	Value   Bytes  `json:"value,omitzero"`
	Program string `json:"program,omitempty"` // program arrays: PlanProgram.Key instead of Value
}

// PlanConstant is the content of one variable.
type PlanConstant struct {
	Object string `json:"object"`
	Symbol string `json:"symbol"`
	Value  Bytes  `json:"value"`
}

// Bytes is a value as the kernel reads it, in the byte order of this machine,
// with holes for what is known only when a container is attached.
type Bytes struct {
	Data  []byte `json:"data"`
	Holes []Hole `json:"holes,omitempty"`
}

// Hole is a part of Bytes that is filled at attach time. A variable that has no
// value for the target (no peer, no address of the family) is an error, never zero.
type Hole struct {
	Offset    int      `json:"offset"` // bytes from the start of Data
	Size      int      `json:"size"`   // bytes
	Variable  Variable `json:"variable"`
	BigEndian bool     `json:"bigEndian,omitempty"` // integers only: network order
}

// Variable names what is known only at attach time, as `${name}` in a policy.
type Variable string

// The variables. Numbers are stored as integers of Hole.Size bytes; a number
// that does not fit is an error. Text is stored with at least one NUL after it.
const (
	VarIfindex         Variable = "ifindex"         // number: of the interface the program is attached to
	VarPeerIfindex     Variable = "peerIfindex"     // number: of its veth peer
	VarCgroupID        Variable = "cgroupId"        // number, 64 bit
	VarNetnsCookie     Variable = "netnsCookie"     // number, 64 bit
	VarPID             Variable = "pid"             // number: the container's first process, in our pid namespace
	VarIP              Variable = "ip"              // 4 or 16 bytes by Hole.Size: the container's first address of that family
	VarMAC             Variable = "mac"             // 6 bytes: of the container's interface
	VarContainerID     Variable = "containerId"     // text; prepare writes VarContainerIDHash instead where the field is an integer
	VarContainerIDHash Variable = "containerIdHash" // number, 64 bit: the first 8 bytes of SHA-256 of the id, little endian
	VarPeerMAC         Variable = "peer.mac"        // 6 bytes: of the host-side peer
	VarPeerName        Variable = "peer.name"       // text: its name
)
