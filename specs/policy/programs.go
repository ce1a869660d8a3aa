// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	yaml "go.yaml.in/yaml/v3"

	"github.com/linkpin/linkpin/specs"
)

// attachNone is what `attach:` says for a program that is only loaded.
const attachNone = "none"

// The keys of a program that make sense for one kind of hook only.
var (
	interfaceOnly = []string{"direction", "interface", "side"}
	xdpOnly       = []string{"mode", "frags"}
	netfilterOnly = []string{"family", "hook", "priority", "defrag"}
)

// programs reads `programs:`.
func (d *decoder) programs(f field, p *Policy) []Program {
	pairs, ok := d.pairs(f)
	if !ok {
		return nil
	}
	if len(f.node.Content) == 0 {
		d.fail(f.pos, "name a program, or remove the key to attach every program of the object", "is empty")
		return nil
	}
	var programs []Program
	for _, pair := range pairs {
		d.checkSymbol(pair.pos, pair.key.Value, p)
		programs = append(programs, d.program(pair.field, pair.key.Value))
	}
	if !slices.ContainsFunc(programs, func(p Program) bool { return !p.LoadOnly }) {
		d.fail(f.pos, "attach at least one program", "every program has attach: none, so the policy does nothing")
	}
	return programs
}

// program reads one program: nothing, a mapping, or a list of mappings.
func (d *decoder) program(f field, name string) Program {
	out := Program{Pos: f.pos, Name: name}
	if d.refused[f.node] || isNull(f.node) {
		return out
	}
	switch f.node.Kind {
	case yaml.ScalarNode:
		remedy := "write {attach: …}"
		if specs.Hook(f.node.Value).Target() != "" || f.node.Value == attachNone {
			remedy = "write {attach: " + f.node.Value + "}"
		}
		d.fail(f.pos, remedy, "must be a mapping or a list of mappings, not %s", describe(f.node))
	case yaml.SequenceNode:
		for _, item := range d.filled(f) {
			a, ok := d.attachment(item, nil)
			if i := slices.IndexFunc(out.Attachments, a.same); ok && i >= 0 {
				d.fail(item.pos, "remove one of them", "is the same place as at line %d", out.Attachments[i].Pos.Line)
			}
			if ok {
				out.Attachments = append(out.Attachments, a)
			}
		}
	default:
		a, ok := d.attachment(f, &out)
		if ok && !out.LoadOnly && len(f.node.Content) > 0 {
			out.Attachments = []Attachment{a}
		}
	}
	return out
}

// same reports whether a and b say the same, wherever they stand.
func (a Attachment) same(b Attachment) bool {
	frags := func(a Attachment) bool { return a.Frags != nil && *a.Frags }
	priority := func(a Attachment) int32 {
		if a.Priority == nil {
			return 0
		}
		return *a.Priority
	}
	if frags(a) != frags(b) || priority(a) != priority(b) {
		return false
	}
	a.Pos, a.Frags, a.Priority = b.Pos, b.Frags, b.Priority
	return a == b
}

// attachment reads one place of a program. single is the program if this is its
// only place, which then may also be none.
func (d *decoder) attachment(f field, single *Program) (Attachment, bool) {
	a := Attachment{Pos: f.pos}
	o, ok := d.object(f, programKeys)
	if !ok {
		return a, false
	}
	if at, ok := o.get("attach"); ok {
		if a.Attach, ok = d.hook(at, attachNone); !ok {
			return a, false
		}
		if a.Attach == attachNone {
			d.loadOnly(o, at, single)
			return a, false
		}
	}
	if f, ok := o.get("loadAs"); ok {
		d.fail(f.pos, "write attach instead, or attach: none beside it", "is for programs that are not attached")
	}
	d.checkKeys(o, a.Attach)
	d.interfaceKeys(o, &a)
	d.netfilterKeys(o, &a)
	return a, true
}

// loadOnly reads the rest of a program with `attach: none`.
func (d *decoder) loadOnly(o *object, at field, program *Program) {
	if program == nil {
		d.fail(at.pos, "write it alone, not in a list", "none can't stand beside other places")
		return
	}
	program.LoadOnly = true
	for _, key := range slices.Concat(interfaceOnly, netfilterOnly, []string{"mode"}) {
		if f, ok := o.get(key); ok {
			d.fail(f.pos, "remove it", "does not go with attach: none")
		}
	}
	if f, ok := o.get("loadAs"); ok {
		program.LoadAs, _ = d.hook(f)
	}
	if f, ok := o.get("frags"); ok {
		program.Frags = d.flag(f)
		if program.LoadAs != "" && program.LoadAs != specs.HookXDP {
			d.fail(f.pos, "remove it", "is for XDP programs, and this one is loaded as %s", program.LoadAs)
		}
	}
}

// flag reads an optional boolean.
func (d *decoder) flag(f field) *bool {
	v, ok := d.boolean(f)
	if !ok {
		return nil
	}
	return &v
}

// checkKeys refuses keys that the hook has no use for, and keys of two kinds of
// hooks beside each other. Where attach is missing, bpf/prepare looks at the
// section as well.
func (d *decoder) checkKeys(o *object, hook specs.Hook) {
	groups := []struct {
		keys []string
		fits bool
		what string
	}{
		{interfaceOnly, hook == "" || hook.Target() == specs.TargetInterface, "for programs on interfaces"},
		{xdpOnly, hook == "" || hook == specs.HookXDP, "for XDP programs"},
		{netfilterOnly, hook == "" || hook == specs.HookNetfilter, "for netfilter programs"},
	}
	for _, g := range groups {
		for _, key := range g.keys {
			if f, ok := o.get(key); ok && !g.fits {
				d.fail(f.pos, "remove it, or correct attach", "is %s, and this one is attached to %s", g.what, hook)
			}
		}
	}
	if hook != "" {
		return
	}
	onInterface := first(o, slices.Concat(interfaceOnly, xdpOnly))
	if f, ok := o.get(first(o, netfilterOnly)); ok && onInterface != "" {
		d.fail(f.pos, "remove one of them", "is for netfilter programs, and %s is not", onInterface)
	}
}

// first returns the first of keys that o has, or "".
func first(o *object, keys []string) string {
	for _, key := range keys {
		if _, ok := o.get(key); ok {
			return key
		}
	}
	return ""
}

// interfaceKeys reads what belongs to programs on interfaces.
func (d *decoder) interfaceKeys(o *object, a *Attachment) {
	if f, ok := o.get("interface"); ok {
		a.Interface, ok = d.glob(f)
		switch {
		case ok && a.Interface == "":
			d.fail(f.pos, "remove the key for every interface", "is empty")
		case a.Interface == "lo":
			d.fail(f.pos, "name another interface", "linkpin never attaches to the loopback interface")
		}
	}
	a.Side = optional(d, o, "side", specs.SideAuto, []specs.Side{specs.SideHost, specs.SideContainer})
	a.Direction = optional(d, o, "direction", "", []specs.Direction{specs.ToContainer, specs.FromContainer})
	a.Mode = optional(d, o, "mode", "", []specs.XDPMode{specs.XDPAuto, specs.XDPNative, specs.XDPGeneric})
	if f, ok := o.get("frags"); ok {
		a.Frags = d.flag(f)
	}
	if f, ok := o.get("direction"); ok {
		d.checkDirection(f.pos, *a)
	}
}

// checkDirection refuses a side that does not see the direction. Seen from the
// device, the host side of an interface receives what the container sends, and XDP
// and tcx/ingress are where a device receives. Without attach only mode and frags
// tell that it is XDP; of the rest bpf/prepare knows the section.
func (d *decoder) checkDirection(pos Pos, a Attachment) {
	hook := a.Attach
	if hook == "" && (a.Mode != "" || a.Frags != nil) {
		hook = specs.HookXDP
	}
	if hook.Target() != specs.TargetInterface || a.Side == specs.SideAuto || a.Direction == "" {
		return
	}
	receives := hook != specs.HookTCXEgress
	sees := specs.ToContainer
	if receives == (a.Side == specs.SideHost) {
		sees = specs.FromContainer
	}
	if sees != a.Direction {
		d.fail(pos, "remove side, or turn one of them round", "%s on side %s sees packets %s", hook, a.Side, sees)
	}
}

// checkReach refuses networks in the selector of a policy with cgroup programs:
// only a CNI plugin knows the network, and the OCI hook attaches to the container's
// cgroup, and makes sure of the pod's. Tracing programs are the hook's as well.
func (d *decoder) checkReach(sel field, p *Policy) {
	ofHook, why, others := "", "", false
	kinds := map[specs.TargetKind]bool{}
	for _, program := range p.Programs {
		others = others || !program.LoadOnly && len(program.Attachments) == 0
		for _, a := range program.Attachments {
			kinds[a.Attach.Target()] = true
			switch a.Attach.Target() {
			case specs.TargetCgroup:
				ofHook, why = program.Name, "is attached to a cgroup, where CNI does not attach"
				if p.Cgroup == specs.CgroupPod {
					why = "is attached to a cgroup, and the OCI hook has to look whether the pod has got it"
				}
			case specs.TargetKernel:
				ofHook, why = program.Name, "is a tracing program, which CNI does not attach"
			default:
				others = true
			}
		}
	}
	if ofHook == "" {
		return
	}
	if len(p.Select.Networks) > 0 {
		d.fail(sel.at("networks"), "put cgroup and tracing programs into a policy of their own",
			"only CNI knows the network, and %s %s", ofHook, why)
	}
	if len(kinds) > 1 {
		why = "is one that CNI does not attach"
	}
	if e := p.Select.Exclude; e != nil && len(e.Networks) > 0 && !others {
		d.fail(sel.at("exclude", "networks"), "remove it",
			"only CNI knows the network, and every program %s", why)
	}
}
