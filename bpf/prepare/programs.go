// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/policy"
)

// program is one selected program: a function of an object, loaded in one way.
type program struct {
	plan specs.PlanProgram
	obj  *object
	spec *ebpf.ProgramSpec // as it will be loaded: type, attach type and flags set
	pos  policy.Pos
	says bool                      // load only, and the policy says as what
	refs []load.Reference          // what it uses
	runs map[specs.TargetKind]bool // kinds of targets that it runs at, directly or by tail calls
}

// selectPrograms chooses the programs: those that the policy names, else all of
// them that can be attached.
func (w *preparer) selectPrograms() {
	if w.policy.Programs == nil {
		w.selectAll()
		return
	}
	seen := map[string]policy.Pos{}
	for _, pp := range w.policy.Programs {
		o, symbol, ok := w.findProgram(pp.Pos, pp.Name)
		if !ok {
			continue
		}
		if first, ok := seen[o.key(symbol)]; ok {
			w.fail(pp.Pos, "write a list of attachments under one of them", "the program stands at line %d already", first.Line)
			continue
		}
		seen[o.key(symbol)] = pp.Pos
		w.selectProgram(o, symbol, pp)
	}
}

func (w *preparer) findProgram(pos policy.Pos, name string) (*object, string, bool) {
	symbol, found := w.named(name, func(o *object, symbol string) bool { return o.spec.Programs[symbol] != nil })
	switch len(found) {
	case 1:
		return found[0], symbol, true
	case 0:
		w.fail(pos, "the programs are "+list(w.all((*object).programNames)), "there is no program %s", name)
	default:
		w.fail(pos, fmt.Sprintf("write %s or %s", found[0].key(symbol), found[1].key(symbol)), "more than one object has a program %s", name)
	}
	return nil, "", false
}

// selectProgram adds a program that the policy names.
func (w *preparer) selectProgram(o *object, symbol string, pp policy.Program) {
	spec := o.spec.Programs[symbol]
	if pp.LoadOnly {
		w.loadOnly(o, symbol, spec, pp)
		return
	}
	attachments := pp.Attachments
	if len(attachments) == 0 {
		attachments = []policy.Attachment{{Pos: pp.Pos}}
	}
	for _, a := range attachments {
		if a.Pos == (policy.Pos{}) {
			a.Pos = pp.Pos
		}
		w.attach(o, symbol, a)
	}
}

// loadOnly adds a program that is not attached. One that says nothing about how it
// is loaded takes that from whoever tail-calls it (see callee).
func (w *preparer) loadOnly(o *object, symbol string, spec *ebpf.ProgramSpec, pp policy.Program) {
	called := w.slots[o.key(symbol)]
	if called && pp.LoadAs == "" && pp.Frags == nil {
		w.places[o.key(symbol)] = pp.Pos
		return
	}
	if pp.LoadAs == "" && spec.Type == ebpf.UnspecifiedProgram {
		w.fail(pp.Pos, "write loadAs: with the hook of the programs that call it", "section %q does not say what the program is", spec.SectionName)
		return
	}
	frags := sectionFrags(spec)
	if pp.Frags != nil {
		frags = *pp.Frags
	}
	w.add(o, symbol, pp.LoadAs, frags, pp.Pos).says = true
	if !called {
		w.warn(pp.Pos, "the program is neither attached nor in a program array: it never runs")
	}
}

// selectAll adds every program, where its section says. A program that can't be
// attached is an error: left out silently it would be missed.
func (w *preparer) selectAll() {
	for _, o := range w.objects {
		for _, symbol := range o.programNames() {
			spec := o.spec.Programs[symbol]
			switch {
			case strings.HasPrefix(spec.SectionName, "?"):
				w.warn(o.pos, "program %s is left out: its section %q says that it is loaded only on request; name it under programs: to have it",
					o.key(symbol), spec.SectionName)
			case w.slots[o.key(symbol)]:
				// A tail-call target: whoever calls it brings it along.
			default:
				w.attach(o, symbol, policy.Attachment{Pos: o.pos})
			}
		}
	}
}

// attach adds one attachment of a program.
func (w *preparer) attach(o *object, symbol string, pa policy.Attachment) {
	spec := o.spec.Programs[symbol]
	a, ok := w.attachment(o, symbol, spec, pa)
	if !ok {
		return
	}
	frags := a.Hook == specs.HookXDP && (pa.Frags == nil && sectionFrags(spec) || pa.Frags != nil && *pa.Frags)
	p := w.add(o, symbol, a.Hook, frags, pa.Pos)
	a.Name = p.plan.Key
	if n := len(p.plan.Attachments); n > 0 {
		a.Name = fmt.Sprintf("%s@%d", p.plan.Key, n+1)
	}
	p.plan.Attachments = append(p.plan.Attachments, a)
	p.runs[w.target(a.Hook)] = true
}

// target is the kind of target that a hook has in this policy; see specs.Plan.Target.
func (w *preparer) target(h specs.Hook) specs.TargetKind {
	return (&specs.Plan{Cgroup: w.policy.Cgroup}).Target(h)
}

// add returns the program that is a symbol loaded in one way. The second way of
// one symbol is another program for the kernel.
func (w *preparer) add(o *object, symbol string, hook specs.Hook, frags bool, pos policy.Pos) *program {
	plan := specs.PlanProgram{Key: o.key(symbol), Object: o.name, Symbol: symbol, Hook: hook, Frags: frags}
	spec := o.spec.Programs[symbol].Copy()
	if err := load.SetHook(spec, &plan); err != nil {
		w.fail(pos, "", "%w", err)
	}
	plan.Frags = sectionFrags(spec)
	copies := 0
	for _, p := range w.programs {
		if p.obj != o || p.plan.Symbol != symbol {
			continue
		}
		if sameLoad(p.spec, spec) {
			return p
		}
		copies++
	}
	p := &program{
		plan: plan, obj: o, spec: spec, pos: pos,
		refs: load.References(spec),
		runs: map[specs.TargetKind]bool{},
	}
	if copies > 0 {
		p.plan.Key = fmt.Sprintf("%s#%d", p.plan.Key, copies+1)
	}
	w.programs = append(w.programs, p)
	w.places[p.plan.Key] = pos
	return p
}

// sameLoad reports whether the kernel sees no difference between two loads.
func sameLoad(a, b *ebpf.ProgramSpec) bool {
	return a.Type == b.Type && a.AttachType == b.AttachType && a.Flags == b.Flags
}

func sectionFrags(spec *ebpf.ProgramSpec) bool {
	return spec.Type == ebpf.XDP && spec.Flags&unix.BPF_F_XDP_HAS_FRAGS != 0
}

// sectionHook is the hook that a program's section names.
func (w *preparer) sectionHook(o *object, symbol string, pos policy.Pos) (specs.Hook, bool) {
	spec := o.spec.Programs[symbol]
	h, err := hooks.FromSection(spec.SectionName, spec.Type, spec.AttachType)
	if err == nil {
		return h, true
	}
	remedy := "say where it goes under programs: with attach:"
	if se, ok := errors.AsType[*hooks.SectionError](err); ok {
		switch {
		case len(se.Could) == 0:
			remedy = "name only the programs to attach under programs:"
		case spec.Type == ebpf.SchedCLS || spec.Type == ebpf.SchedACT || spec.Type == ebpf.CGroupSKB:
			remedy = "say attach: or direction: to-container|from-container under programs:"
		}
	}
	w.fail(pos, remedy, "program %s: %w", o.key(symbol), err)
	return "", false
}
