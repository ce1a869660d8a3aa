// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// entryOutput is one entry in `ls`, `inspect` and `gc --dry-run`: one policy at
// one container, interface or network namespace.
type entryOutput struct {
	Path       string          `json:"path"` // below linkpin/v1 in bpffs
	Container  containerOutput `json:"container"`
	Policy     string          `json:"policy"`
	Digest     string          `json:"digest"`
	Generation string          `json:"generation,omitempty"` // of the applied set it was made from
	OnError    specs.OnError   `json:"onError"`
	By         pin.Source      `json:"by"` // hook, cni or cli
	Created    time.Time       `json:"created"`
	Updated    *time.Time      `json:"updated,omitempty"`  // by linkpin update
	Standing   entry.Standing  `json:"standing,omitempty"` // of its version of the policy: current, outdated, withdrawn or unknown
	Cgroup     *cgroupOutput   `json:"cgroup,omitempty"`
	Netns      *netnsOutput    `json:"netns,omitempty"`
	Interface  *ifaceOutput    `json:"interface,omitempty"`
	Programs   []linkOutput    `json:"programs"`
	Maps       []string        `json:"maps"`
	Uncovered  []string        `json:"uncovered"` // what the policy has no place for here
	Retired    *retiredOutput  `json:"retired,omitempty"`
	Error      string          `json:"error,omitempty"` // why the record can't be read; then most fields are empty
}

type containerOutput struct {
	ID        string       `json:"id"`
	Name      string       `json:"name,omitempty"`
	Pod       string       `json:"pod,omitempty"`
	Namespace string       `json:"namespace,omitempty"`
	Image     string       `json:"image,omitempty"`
	Sandbox   string       `json:"sandbox,omitempty"`
	Caller    specs.Caller `json:"caller,omitempty"`
	PID       int          `json:"pid,omitempty"` // of its first process
	Bundle    string       `json:"bundle,omitempty"`
}

type cgroupOutput struct {
	Path string `json:"path"`
	ID   uint64 `json:"id"`
}

type netnsOutput struct {
	Path   string `json:"path"`
	Inode  uint64 `json:"inode"`
	Cookie uint64 `json:"cookie"`
}

type ifaceOutput struct {
	Network   string   `json:"network,omitempty"` // of CNI
	Name      string   `json:"name"`              // inside the container
	Index     int      `json:"index"`
	PeerName  string   `json:"peerName,omitempty"` // on the host
	PeerIndex int      `json:"peerIndex,omitempty"`
	Kind      string   `json:"kind,omitempty"`
	Addresses []string `json:"addresses,omitempty"` // when it was attached
}

type linkOutput struct {
	Name      string           `json:"name"`
	Hook      specs.Hook       `json:"hook"`
	Target    specs.TargetKind `json:"target"`
	Side      specs.Side       `json:"side,omitempty"`
	Mode      specs.XDPMode    `json:"mode,omitempty"` // XDP: native or generic
	Ifindex   int              `json:"ifindex,omitempty"`
	Netfilter *specs.Netfilter `json:"netfilter,omitempty"`
	Owned     bool             `json:"owned"`            // by a link; false: anybody who may configure the device can take it off
	Filter    *filterOutput    `json:"filter,omitempty"` // the tc filter that stands in for the link
	LinkID    uint32           `json:"linkId"`           // 0 with a filter
	ProgramID uint32           `json:"programId"`
	Tag       string           `json:"tag"`
	State     string           `json:"state"` // live, severed, missing or unknown
	Error     string           `json:"error,omitempty"`
}

type filterOutput struct {
	Priority uint16 `json:"priority"`
	Handle   uint32 `json:"handle"`
	Protocol string `json:"protocol"`
	Name     string `json:"name"`
}

type retiredOutput struct {
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

func describeEntry(it entry.Item) entryOutput {
	out := entryOutput{
		Path:      it.Place.String(),
		Policy:    it.Place.Policy(),
		Programs:  []linkOutput{},
		Maps:      []string{},
		Uncovered: []string{},
	}
	if it.Retired != nil {
		out.Retired = &retiredOutput{Time: it.Retired.Time, Reason: it.Retired.Reason}
	}
	rec := it.Record
	if rec == nil {
		out.Container.ID = ids(it)[0]
		out.Error = fault.OneLine(it.Err.Error())
		return out
	}
	out.Container = describeContainer(rec)
	out.Policy, out.Digest, out.Generation = rec.Policy, rec.Digest, rec.Generation
	out.OnError, out.By, out.Created = rec.OnError, rec.By, rec.Created
	if !rec.Updated.IsZero() {
		out.Updated = &rec.Updated
	}
	out.Maps = append(out.Maps, rec.Maps...)
	out.Uncovered = append(out.Uncovered, rec.Uncovered...)
	if c := rec.Cgroup; c != nil {
		out.Cgroup = &cgroupOutput{Path: c.Path, ID: c.ID}
	}
	if n := rec.Netns; n != nil {
		out.Netns = &netnsOutput{Path: n.Path, Inode: n.Inode, Cookie: n.Cookie}
	}
	if i := rec.Interface; i != nil {
		out.Interface = &ifaceOutput{
			Network: i.Network, Name: i.Name, Index: i.Index, PeerName: i.PeerName,
			PeerIndex: i.PeerIndex, Kind: i.Kind, Addresses: i.Addresses,
		}
	}
	for i, p := range rec.Programs {
		out.Programs = append(out.Programs, describeLink(p, it.Links[i]))
	}
	return out
}

func describeContainer(rec *pin.Record) containerOutput {
	id := rec.Identity
	return containerOutput{
		ID: id.ContainerID, Name: id.Container, Pod: id.Pod, Namespace: id.Namespace, Image: id.Image,
		Sandbox: id.SandboxID, Caller: id.Caller, PID: rec.PID, Bundle: rec.Bundle,
	}
}

func describeLink(p pin.ProgramRecord, l entry.LinkState) linkOutput {
	out := linkOutput{
		Name: p.Name, Hook: p.Hook, Target: p.Target, Side: p.Side, Mode: p.Mode, Ifindex: p.Ifindex,
		Netfilter: p.Netfilter, LinkID: p.LinkID, ProgramID: p.ProgramID, Tag: p.Tag,
		State: string(l.Info.State), Owned: p.Filter == nil,
	}
	if f := p.Filter; f != nil {
		out.Filter = &filterOutput{Priority: f.Priority, Handle: f.Handle, Protocol: f.Protocol, Name: f.Name}
	}
	switch {
	case errors.Is(l.Err, fs.ErrNotExist):
		out.State = "missing"
	case l.Err != nil:
		out.State, out.Error = "unknown", fault.OneLine(l.Err.Error())
	}
	return out
}

// targetText says what a program is attached to, for people.
func targetText(e entryOutput, p linkOutput) string {
	switch {
	case p.Target == specs.TargetCgroup && e.Cgroup != nil:
		return fmt.Sprintf("cgroup %d", e.Cgroup.ID)
	case p.Target == specs.TargetKernel:
		return "the whole machine"
	case p.Target == specs.TargetPodCgroup && e.Cgroup != nil:
		return fmt.Sprintf("cgroup %d of the pod", e.Cgroup.ID)
	case p.Target == specs.TargetNetns && e.Netns != nil:
		return fmt.Sprintf("netns %d", e.Netns.Inode)
	case p.Target == specs.TargetInterface && e.Interface != nil:
		if p.Side == specs.SideHost && e.Interface.PeerName != "" {
			return e.Interface.PeerName + " (host side of " + e.Interface.Name + ")"
		}
		return e.Interface.Name
	}
	return string(p.Target)
}

// hookText is a program's hook with what else says where it runs.
func hookText(p linkOutput) string {
	text := string(p.Hook)
	if p.Mode != "" {
		text += " " + string(p.Mode)
	}
	if n := p.Netfilter; n != nil {
		text += " " + n.Family + " " + n.Hook
	}
	return text
}

// stateText is a program's state, with what its attachment is worth.
func (p linkOutput) stateText() string {
	if !p.Owned {
		return p.State + " (unowned)"
	}
	return p.State
}

// unowned counts the programs of an entry that no link owns. The record may be nil.
func unowned(rec *pin.Record) int {
	n := 0
	if rec == nil {
		return n
	}
	for _, p := range rec.Programs {
		if p.Filter != nil {
			n++
		}
	}
	return n
}

// idText names what holds a program in place.
func (p linkOutput) idText() string {
	if f := p.Filter; f != nil {
		return fmt.Sprintf("tc filter at priority %d, handle 0x%x", f.Priority, f.Handle)
	}
	return fmt.Sprintf("link %d", p.LinkID)
}

// identity is as much of the identity as label needs.
func (c containerOutput) identity() specs.Identity {
	return specs.Identity{ContainerID: c.ID, Container: c.Name, Pod: c.Pod, Namespace: c.Namespace}
}
