// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// placed refuses a version that attaches to what the unit has no entry for, where the
// running version did not attach either: such an entry is made when a container or an
// interface is, and not here.
func (s *Session) placed(u *unit, changes []*change, digest string) error {
	is := kindsOf(changes[0].plan)
	covered := func(is func(*change) bool, current func(Item) bool) bool {
		return slices.ContainsFunc(changes, is) || slices.ContainsFunc(u.items, func(it Item) bool {
			return it.Record != nil && it.Record.Digest == digest && current(it)
		})
	}
	for _, name := range slices.Sorted(maps.Keys(is)) {
		kind := is[name]
		there := covered(func(c *change) bool { return takes(c, kind) }, func(it Item) bool { return holdsKind(it, kind) })
		for _, c := range changes {
			was := kindsOf(c.old)
			if old, ok := was[name]; ok && old != kind {
				return fault.New("policy "+u.policy+": program "+name, fmt.Errorf("%w: to a %s, and not to a %s", ErrMoved, kind, old), remedyRestart)
			}
			if !has(was, kind) && !there {
				return fault.New("policy "+u.policy+": program "+name, fmt.Errorf("%w: to a %s", ErrMoved, kind), remedyRestart)
			}
		}
	}
	if !has(is, specs.TargetInterface) {
		return nil
	}
	for _, c := range changes {
		names, err := s.interfaceNames(c)
		if err != nil {
			return err
		}
		for _, name := range names {
			there := covered(
				func(c *change) bool { return c.want.Interface != nil && c.want.Interface.Name == name },
				func(it Item) bool { return it.Record.Interface != nil && it.Record.Interface.Name == name })
			if Attaches(c.plan, name) && !Attaches(c.old, name) && !there {
				return fault.New("policy "+u.policy, fmt.Errorf("%w: to interface %s", ErrMoved, name), remedyRestart)
			}
		}
	}
	return nil
}

// holdsKind is takes for an entry that is up to date.
func holdsKind(it Item, kind specs.TargetKind) bool {
	switch it.Place.Kind() {
	case pin.ContainerPlace:
		return kind == specs.TargetKernel || kind == specs.TargetCgroup && it.Record.Cgroup != nil
	case pin.PodCgroupPlace:
		return kind == specs.TargetPodCgroup
	case pin.NetnsPlace:
		return kind == specs.TargetNetns
	}
	return kind == specs.TargetInterface && it.Record.Interface != nil
}

// interfaceNames lists the interfaces of the namespace that a change belongs to; none
// if that can't be opened any more.
func (s *Session) interfaceNames(c *change) ([]string, error) {
	if c.item.Record.Netns == nil {
		return nil, nil
	}
	ns, err := s.reopenNetns(c.item.Place, c.item.Record)
	if errors.Is(err, target.ErrGone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { s.warn(ns.Close()) }()
	all, err := ns.Interfaces()
	names := make([]string, 0, len(all))
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names, err
}

func kindsOf(plan *specs.Plan) map[string]specs.TargetKind {
	out := map[string]specs.TargetKind{}
	for _, p := range plan.Programs {
		for _, a := range p.Attachments {
			out[a.Name] = plan.Target(a.Hook)
		}
	}
	return out
}

func has(kinds map[string]specs.TargetKind, kind specs.TargetKind) bool {
	for _, k := range kinds {
		if k == kind {
			return true
		}
	}
	return false
}

// takes reports whether attachments of a kind belong into the entry of a change.
func takes(c *change, kind specs.TargetKind) bool {
	switch kind {
	case specs.TargetKernel:
		return c.item.Place.Kind() == pin.ContainerPlace
	case specs.TargetCgroup:
		return c.want.Kind == kind && c.sub.Cgroup != nil
	}
	return c.want.Kind == kind
}
