// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"maps"
	"slices"

	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// values collects what a plan's holes may ask for. What the target does not have
// stays zero, and load makes an error of it if a hole needs it.
func values(sub *Subject, w Want) load.Values {
	v := load.Values{PID: uint64(max(sub.PID, 0)), ContainerID: sub.Identity.ContainerID}
	if c := w.cgroup(sub); c != nil {
		v.CgroupID = c.ID
	}
	if sub.Netns != nil {
		v.NetnsCookie = sub.Netns.Cookie
	}
	i := w.Interface
	if i == nil || w.Kind == specs.TargetNetns || w.Kind == specs.TargetPodCgroup {
		return v
	}
	v.Ifindex, v.MAC = uint64(i.Index), i.MAC
	if i.Peer != nil {
		v.PeerIfindex, v.PeerMAC, v.PeerName = uint64(i.Peer.Index), i.Peer.MAC, i.Peer.Name
	}
	for _, p := range i.Addresses {
		a := p.Addr()
		switch {
		case a.Is4() && !v.IPv4.IsValid():
			v.IPv4 = a
		case a.Is6() && (!v.IPv6.IsValid() || v.IPv6.IsLinkLocalUnicast() && !a.IsLinkLocalUnicast()):
			v.IPv6 = a
		}
	}
	return v
}

// record describes a built entry.
func (s *Session) record(sub *Subject, b *built) pin.Record {
	rec := pin.Record{
		Policy:     b.want.Policy,
		Digest:     b.digest,
		Generation: s.Plans.Generation(),
		OnError:    b.plan.OnError,
		Teardown:   b.plan.Teardown,
		Scope:      b.plan.Scope,
		Identity:   sub.Identity,
		By:         s.By,
		Bundle:     sub.Bundle,
		PID:        sub.PID,
		Start:      uint64(sub.Start),
		Sandbox:    sub.Sandbox,
	}
	rec.Identity.Annotations = keep(sub.Identity.Annotations, append([]string{specs.OptInAnnotation}, sub.Keep...))
	if c := b.want.cgroup(sub); c != nil {
		rec.Cgroup = &pin.CgroupRecord{Path: c.Path, ID: c.ID}
	}
	if n := sub.Netns; n != nil {
		rec.Netns = &pin.NetnsRecord{Path: n.Path, Inode: n.Inode, Cookie: n.Cookie}
	}
	if b.want.Kind == specs.TargetCgroup {
		rec.Uncovered = sub.Uncovered[b.want.Policy]
	}
	if i := b.want.Interface; i != nil {
		rec.Interface = &pin.InterfaceRecord{
			Network: sub.Identity.Network, Name: i.Name, Index: i.Index,
			Kind: i.Kind, DiesWithNetns: i.DiesWithNetns,
		}
		if i.Peer != nil {
			rec.Interface.PeerName, rec.Interface.PeerIndex = i.Peer.Name, i.Peer.Index
		}
		for _, p := range i.Addresses {
			rec.Interface.Addresses = append(rec.Interface.Addresses, p.String())
		}
	}
	for _, l := range b.links {
		a := l.attachment
		rec.Programs = append(rec.Programs, pin.ProgramRecord{
			Name: a.Name, Key: l.key, Hook: a.Hook, Target: b.plan.Target(a.Hook),
			Side: a.Side, Mode: a.Mode, Ifindex: l.info.Ifindex, Netfilter: a.Netfilter, Filter: l.filter,
			LinkID: l.info.LinkID, ProgramID: l.info.ProgramID, Tag: l.info.ProgramTag,
		})
	}
	if b.col != nil {
		rec.Maps = slices.Sorted(maps.Keys(b.col.Maps))
	}
	return rec
}

// keep returns the annotations that linkpin acts on: the others belong to others,
// may be large, and may be secret.
func keep(annotations map[string]string, keys []string) map[string]string {
	var kept map[string]string
	for _, key := range keys {
		if v, ok := annotations[key]; ok {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[key] = v
		}
	}
	return kept
}
