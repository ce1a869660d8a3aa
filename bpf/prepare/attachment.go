// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"slices"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/policy"
)

// attachment works out one place of a program: hook, side and direction from what
// the policy says, and from the section what it leaves out.
func (w *preparer) attachment(o *object, symbol string, spec *ebpf.ProgramSpec, pa policy.Attachment) (specs.Attachment, bool) {
	before := len(w.problems)
	a := specs.Attachment{Hook: pa.Attach, Interface: pa.Interface, Side: pa.Side, Direction: pa.Direction}
	if a.Hook == "" {
		switch {
		case a.Direction != "":
			a.Hook = w.hookOf(o, symbol, spec, pa)
		default:
			a.Hook, _ = w.sectionHook(o, symbol, pa.Pos)
		}
		if a.Hook == "" {
			return a, false
		}
	}
	w.checkInSection(o, symbol, spec, a.Hook, pa)
	switch a.Hook.Target() {
	case specs.TargetInterface:
		w.interfaceAttachment(o, &a, pa)
	case specs.TargetCgroup, specs.TargetNetns, specs.TargetKernel:
		if a.Hook.Target() == specs.TargetCgroup && spec.Type == ebpf.CGroupSKB && pa.Attach == "" {
			a.Direction = "" // it is in the hook
		}
		if a.Interface != "" || a.Side != "" || a.Direction != "" {
			w.fail(pa.Pos, "remove it, or attach the program to tcx/ingress, tcx/egress or xdp",
				"interface, side and direction do not go with %s, which belongs to %s", a.Hook, article(a.Hook.Target()))
		}
	default:
		w.fail(pa.Pos, "", "%q is not a hook", string(a.Hook))
	}
	if a.Hook == specs.HookXDP {
		if a.Mode = pa.Mode; a.Mode == "" {
			a.Mode = specs.XDPAuto
		}
	} else if pa.Mode != "" || pa.Frags != nil {
		w.fail(pa.Pos, "remove it", "mode and frags go with xdp only, and %s is attached to %s", o.key(symbol), a.Hook)
	}
	a.Netfilter = w.netfilter(a.Hook, pa)
	return a, len(w.problems) == before
}

// hookOf is the hook of an attachment that gives a direction instead.
func (w *preparer) hookOf(o *object, symbol string, spec *ebpf.ProgramSpec, pa policy.Attachment) specs.Hook {
	switch spec.Type {
	case ebpf.XDP:
		return specs.HookXDP
	case ebpf.SchedCLS, ebpf.SchedACT:
		side := pa.Side
		if side == specs.SideAuto {
			side = specs.SideHost
		}
		if seenBy(specs.HookTCXIngress, side) == pa.Direction {
			return specs.HookTCXIngress
		}
		return specs.HookTCXEgress
	case ebpf.CGroupSKB:
		if pa.Direction == specs.FromContainer {
			return "cgroup_skb/egress"
		}
		return "cgroup_skb/ingress"
	case ebpf.UnspecifiedProgram:
		w.fail(pa.Pos, "write attach: instead of direction: or beside it",
			"program %s: section %q does not say whether it is a program for tcx, xdp or cgroup_skb", o.key(symbol), spec.SectionName)
	default:
		w.fail(pa.Pos, "remove it", "program %s: a direction does not go with programs of type %s", o.key(symbol), spec.Type)
	}
	return ""
}

// seenBy is the direction that a hook sees on one side of a container's
// interface: names of hooks are the device's.
func seenBy(h specs.Hook, side specs.Side) specs.Direction {
	if (h == specs.HookTCXEgress) == (side == specs.SideHost) {
		return specs.ToContainer
	}
	return specs.FromContainer
}

// interfaceAttachment settles the side. With a direction alone it is found for
// each interface, when a container is attached. A built-in program stands in the
// section of the container's side, and that is only its direction: on the host's
// side, which it takes where there is one, not even a packet socket that bypasses
// queueing gets past it.
func (w *preparer) interfaceAttachment(o *object, a *specs.Attachment, pa policy.Attachment) {
	switch {
	case o.builtin && a.Side == specs.SideAuto && a.Direction == "" && pa.Attach == "":
		a.Direction = seenBy(a.Hook, specs.SideContainer)
	case a.Side == specs.SideAuto && a.Direction == "":
		a.Side = specs.SideContainer
	case a.Side != specs.SideAuto && a.Direction != "" && seenBy(a.Hook, a.Side) != a.Direction:
		w.fail(pa.Pos, "remove side, or take the other one",
			"on the %s's side %s sees what goes %s, not %s", a.Side, a.Hook, seenBy(a.Hook, a.Side), a.Direction)
	}
}

// netfilter checks that netfilter's parameters are there for netfilter programs
// and for no others. The parser has checked each of them.
func (w *preparer) netfilter(h specs.Hook, pa policy.Attachment) *specs.Netfilter {
	if h != specs.HookNetfilter {
		if pa.Family != "" || pa.Hook != "" || pa.Priority != nil || pa.Defrag {
			w.fail(pa.Pos, "remove them", "family, hook, priority and defrag go with netfilter, and this program is attached to %s", h)
		}
		return nil
	}
	if pa.Family == "" || pa.Hook == "" {
		w.fail(pa.Pos, "for example family: ipv4, hook: input", "a netfilter program needs family and hook")
	}
	n := &specs.Netfilter{Family: pa.Family, Hook: pa.Hook, Defrag: pa.Defrag}
	if pa.Priority != nil {
		n.Priority = *pa.Priority
	}
	return n
}

// checkAttachments finds what the kernel would refuse at each container start.
func (w *preparer) checkAttachments() {
	type place struct {
		at  specs.Attachment
		pos policy.Pos
		key string
		sym string
	}
	var all []place
	for _, p := range w.programs {
		for _, a := range p.plan.Attachments {
			all = append(all, place{a, p.pos, p.plan.Key, p.obj.key(p.plan.Symbol)})
		}
	}
	if len(all) == 0 && len(w.problems) == 0 {
		w.fail(w.policy.Pos, "attach at least one of "+list(w.all((*object).programNames)), "no program of the policy is attached")
	}
	if w.policy.Cgroup == specs.CgroupPod && len(w.problems) == 0 &&
		!slices.ContainsFunc(w.programs, func(p *program) bool { return p.runs[specs.TargetPodCgroup] }) {
		pos := w.policy.Pos
		pos.Field = "cgroup"
		w.fail(pos, "remove it", "no program of the policy is attached to a cgroup")
	}
	if tc := w.policy.TC; tc != nil && len(w.problems) == 0 && !slices.ContainsFunc(all, func(p place) bool {
		return p.at.Hook == specs.HookTCXIngress || p.at.Hook == specs.HookTCXEgress
	}) {
		w.fail(tc.Pos, "remove it", "no program of the policy is attached to tcx/ingress or tcx/egress")
	}
	for i, b := range all {
		// Only CNI knows networks, and the hook attaches to cgroups, or finds out
		// whether the pod's has the programs.
		if kind := b.at.Hook.Target(); len(w.policy.Select.Networks) > 0 && (kind == specs.TargetCgroup || kind == specs.TargetKernel) {
			w.fail(b.pos, "put cgroup programs into a policy of their own",
				"program %s belongs at %s, where the OCI hook has a say, and only the CNI plugin knows the networks that select: asks for", b.sym, b.at.Hook)
		}
		for _, a := range all[:i] {
			switch {
			case a.sym == b.sym && sameHook(a.at, b.at):
				w.fail(b.pos, "remove one of them", "program %s is attached to %s twice", b.sym, b.at.Hook)
			case a.at.Hook == specs.HookXDP && b.at.Hook == specs.HookXDP && xdpSide(a.at) == xdpSide(b.at) && overlap(a.at.Interface, b.at.Interface):
				w.fail(b.pos, "name one of them under programs:; the others may be tail-call targets",
					"programs %s and %s are both xdp: an interface has room for one", a.sym, b.sym)
			}
		}
	}
}

func sameHook(a, b specs.Attachment) bool {
	if a.Hook != b.Hook || a.Side != b.Side || a.Direction != b.Direction || !overlap(a.Interface, b.Interface) {
		return false
	}
	return a.Netfilter == nil || b.Netfilter == nil || *a.Netfilter == *b.Netfilter
}

// xdpSide is the side that an XDP attachment ends up on where both are there.
func xdpSide(a specs.Attachment) specs.Side {
	switch {
	case a.Side != specs.SideAuto:
		return a.Side
	case a.Direction == specs.FromContainer:
		return specs.SideHost
	}
	return specs.SideContainer
}

// overlap reports whether two globs surely have a name in common.
func overlap(a, b string) bool {
	return a == b || a == "" || b == "" || a == "*" || b == "*"
}
