// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"slices"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// dropAbandoned takes down what killed processes have left in staging for one of the
// targets, or for any if none is given, before anything new is attached. What is pinned there is attached still:
// a container that is started again would find its own XDP or netfilter program in the way
// of the new one, and would run the others twice. What cannot be removed is reported to
// Warn: if it is in the way, attaching says so. Directories that are of other targets, as
// their names say, are left to sweeps: they may be many.
func (s *Session) dropAbandoned(ctx context.Context, targets ...pin.Target) {
	names, err := s.Root.StagingNames()
	s.warn(err)
	for _, name := range names {
		on := pin.StagingTarget(name)
		if len(targets) > 0 && !slices.ContainsFunc(targets, on.Concerns) {
			continue
		}
		paths, err := s.Root.AbandonedLinks(name)
		if err != nil {
			if !skippable(err) {
				s.warn(err)
			}
			continue
		}
		// Held across the removal: when they are closed, the links are off.
		var held []*attach.Link
		for _, path := range paths {
			if l, err := attach.OpenPinned(path); err == nil {
				held = append(held, l)
			}
		}
		if err := s.sweepStaging(ctx, name); err != nil && !skippable(err) {
			s.warn(err)
		}
		for _, l := range held {
			s.warn(l.Close())
		}
	}
}

func targets(sub *Subject, wants []Want) []pin.Target {
	all := make([]pin.Target, len(wants))
	for i, w := range wants {
		all[i] = w.target(sub)
	}
	return all
}

// target returns what the links of a wanted entry will be on; the zero Target if that
// can't be told for sure: a device that does not die with its namespace may come to the
// next one with a link on it.
func (w Want) target(sub *Subject) pin.Target {
	switch w.Kind {
	case specs.TargetCgroup, specs.TargetPodCgroup:
		if cg := w.cgroup(sub); cg != nil {
			return pin.Target{Cgroup: cg.ID}
		}
	case specs.TargetInterface:
		if sub.Netns != nil && w.Interface.DiesWithNetns {
			return pin.Target{Netns: sub.Netns.Cookie}
		}
	case specs.TargetNetns:
		if sub.Netns != nil {
			return pin.Target{Netns: sub.Netns.Cookie}
		}
	}
	return pin.Target{}
}

// target is that of what is wanted, unless a program is of no target: it would run on
// beside that of the container's next cgroup.
func (b *built) target(sub *Subject) pin.Target {
	if slices.ContainsFunc(b.chosen, func(c choice) bool { return c.attachment.Hook.Target() == specs.TargetKernel }) {
		return pin.Target{}
	}
	return b.want.target(sub)
}
