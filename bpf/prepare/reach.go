// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/bpf/value"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
	"github.com/linkpin/linkpin/specs/policy"
)

// findSlots notes which programs stand in a program array: what the policy says,
// and what the object itself fills in where the policy says nothing.
func (w *preparer) findSlots(g *group) {
	if g.policy != nil && len(g.policy.Slots) > 0 && g.spec.Type != ebpf.ProgramArray {
		w.fail(g.pos, "remove programs:", "map %s of type %s holds no programs", g.plan.Name, g.spec.Type)
		return
	}
	taken := map[string]bool{}
	if g.policy != nil {
		for _, ps := range g.policy.Slots {
			if s, ok := w.policySlot(g, ps); ok {
				if taken[string(s.index.Data)] && len(s.index.Holes) == 0 {
					w.fail(ps.Pos, "remove one of them", "map %s has two programs at one index", g.plan.Name)
				}
				taken[string(s.index.Data)] = true
				w.addSlot(g, s)
			}
		}
	}
	for _, ref := range g.plan.Members {
		o := w.object(ref.Object)
		spec := o.spec.Maps[ref.Symbol]
		if g.spec.Type != ebpf.ProgramArray {
			continue
		}
		for _, kv := range spec.Contents {
			index, ok := kv.Key.(uint32)
			symbol, isName := kv.Value.(string)
			data := binary.NativeEndian.AppendUint32(nil, index)
			if !ok || !isName || taken[string(data)] || o.spec.Programs[symbol] == nil {
				continue
			}
			taken[string(data)] = true
			w.addSlot(g, slot{g.pos, specs.Bytes{Data: data}, o, symbol})
		}
	}
}

func (w *preparer) addSlot(g *group, s slot) {
	g.slots = append(g.slots, s)
	w.slots[s.obj.key(s.symbol)] = true
}

// policySlot resolves one entry of a program array. A name without an object is
// looked for in the map's own object first.
func (w *preparer) policySlot(g *group, ps policy.Slot) (slot, bool) {
	s := slot{pos: ps.Pos}
	var err error
	if s.index, err = value.EncodeSized(4, ps.Key); err != nil {
		w.failed(ps.Pos, asFault(ps.Pos, err))
		return s, false
	}
	if len(s.index.Holes) == 0 {
		if i := binary.NativeEndian.Uint32(s.index.Data); g.spec.MaxEntries > 0 && i >= g.spec.MaxEntries {
			w.fail(ps.Pos, "say "+g.field("maxEntries"), "map %s has %d slots, so there is no slot %d", g.plan.Name, g.spec.MaxEntries, i)
			return s, false
		}
	}
	for _, ref := range g.plan.Members {
		if o := w.object(ref.Object); o.spec.Programs[ps.Program] != nil {
			s.obj, s.symbol = o, ps.Program
			return s, true
		}
	}
	var ok bool
	s.obj, s.symbol, ok = w.findProgram(ps.Pos, ps.Program)
	return s, ok
}

// reach follows the selected programs to the maps that they use, and from program
// arrays to the programs that they call.
func (w *preparer) reach() {
	for i := 0; i < len(w.programs); i++ { // grows on the way
		for _, r := range w.programs[i].refs {
			w.use(w.groupOf[w.programs[i].obj.ref(r.Map)], w.programs[i])
		}
	}
	for again := true; again; {
		again = false
		for _, g := range w.groups {
			again = w.spreadTargets(g) || again
		}
	}
	for _, g := range w.groups {
		if g.used() && g.spec.Type == ebpf.ProgramArray && len(g.slots) == 0 {
			w.warn(g.pos, "program %s tail-calls through map %s, which holds no program: the calls do nothing; fill it: %s",
				g.users[0].plan.Key, g.plan.Name, g.field("programs"))
		}
		if w.policy.Programs == nil && !g.used() {
			w.checkForgotten(g)
		}
	}
}

// checkForgotten finds programs that are not attached because they stand in a
// program array, and not called because nobody uses that.
func (w *preparer) checkForgotten(g *group) {
	for _, s := range g.slots {
		if !slices.ContainsFunc(w.programs, func(p *program) bool { return p.obj == s.obj && p.plan.Symbol == s.symbol }) {
			w.fail(s.pos, "name it under programs: to attach it", "program %s is a tail-call target in map %s, which no attached program uses",
				s.obj.key(s.symbol), g.plan.Name)
		}
	}
}

// use notes that a program uses a map, and brings along what the map leads to.
func (w *preparer) use(g *group, p *program) {
	if g == nil || slices.Contains(g.users, p) {
		return
	}
	g.users = append(g.users, p)
	for _, ref := range g.plan.Members {
		o := w.object(ref.Object)
		spec := o.spec.Maps[ref.Symbol]
		if spec.Type != ebpf.ArrayOfMaps && spec.Type != ebpf.HashOfMaps {
			continue
		}
		for _, kv := range spec.Contents {
			if inner, ok := kv.Value.(string); ok {
				w.use(w.groupOf[o.ref(inner)], p)
			}
		}
	}
	if first := g.users[0]; first != p {
		// The first caller has decided how the slots are loaded.
		if g.spec.Type == ebpf.ProgramArray && (first.spec.Type != p.spec.Type || first.plan.Frags != p.plan.Frags) {
			w.fail(g.pos, "leave one of them out, or attach it elsewhere",
				"programs %s and %s both tail-call through map %s and differ in type or frags: the kernel allows one kind for each map",
				first.plan.Key, p.plan.Key, g.plan.Name)
		}
		return
	}
	for _, s := range g.slots {
		if callee := w.callee(s, p); callee != nil {
			g.plan.Entries = append(g.plan.Entries, specs.PlanEntry{Key: s.index, Program: callee.plan.Key})
			g.places = append(g.places, s.pos)
		}
	}
}

// callee returns the program of a slot, loaded as its caller is: the kernel
// compares type, attach type and frags. What a policy says with loadAs stays.
func (w *preparer) callee(s slot, caller *program) *program {
	for _, p := range w.programs {
		if p.obj == s.obj && p.plan.Symbol == s.symbol && p.says {
			return p
		}
	}
	spec := s.obj.spec.Programs[s.symbol]
	hook := caller.plan.Hook
	switch {
	case spec.Type == ebpf.UnspecifiedProgram && hook == "":
		w.fail(s.pos, "write loadAs: for the program under programs:", "section %q of program %s does not say what it is", spec.SectionName, s.obj.key(s.symbol))
		return nil
	case spec.Type == ebpf.UnspecifiedProgram, spec.Type == caller.spec.Type,
		spec.Type == ebpf.SchedACT && caller.spec.Type == ebpf.SchedCLS:
	default:
		w.fail(s.pos, "put a program of the same type there, or write loadAs: for it under programs:",
			"program %s is %s and its caller %s is %s: the kernel refuses tail calls between types",
			s.obj.key(s.symbol), spec.Type, caller.plan.Key, caller.spec.Type)
		return nil
	}
	pos, ok := w.places[s.obj.key(s.symbol)]
	if !ok {
		pos = s.pos
	}
	return w.add(s.obj, s.symbol, hook, caller.plan.Frags, pos)
}

// spreadTargets passes the kinds of targets of callers on to whom they call, and
// reports whether that changed anything.
func (w *preparer) spreadTargets(g *group) bool {
	changed := false
	for _, e := range g.plan.Entries {
		for _, callee := range w.programs {
			if e.Program != callee.plan.Key {
				continue
			}
			for _, caller := range g.users {
				for kind := range caller.runs {
					changed = changed || !callee.runs[kind]
					callee.runs[kind] = true
				}
			}
		}
	}
	return changed
}

// asFault makes sure that an error of another package has a place in the policy.
func asFault(pos policy.Pos, err error) *fault.Error {
	if f, ok := err.(*fault.Error); ok { //nolint:errorlint // only the outermost one has the place
		return f
	}
	return fault.New(pos.String(), fmt.Errorf("%w", err), "").WithExit(fault.ExitInput)
}

// addresses reports whether a program takes the address of a variable.
func (p *program) addresses(o *object, v load.Variable) bool {
	if p.obj != o {
		return false
	}
	for _, r := range p.refs {
		if r.Direct && r.Map == v.Section && r.Offset >= v.Offset && r.Offset < v.Offset+v.Size {
			return true
		}
	}
	return false
}
