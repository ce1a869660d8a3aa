// SPDX-License-Identifier: Apache-2.0

package load

import (
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/linkpin/linkpin/specs"
)

// Unchanged reports whether a program is the running one in all that matters: the
// same instructions, which use the same maps and variables at the same places, loaded
// the same way. oldKey is its name in the predecessor's plan, tag what the kernel says
// of the running one. In doubt it is another one.
func (s *Succession) Unchanged(key, oldKey, tag string) bool {
	now, then := s.l.plans[key], s.before.plans[oldKey]
	prog := s.Programs[key]
	if now == nil || then == nil || prog == nil || now.Hook != then.Hook {
		return false
	}
	is, was := s.l.loaded(now), s.before.loaded(then)
	if is == nil || was == nil || is.Type != was.Type || is.AttachType != was.AttachType || is.Flags != was.Flags || !s.SameSection(key, oldKey) {
		return false
	}
	info, err := prog.Info()
	if err != nil || info.Tag != tag {
		return false
	}
	// The tag leaves out which map an instruction means, and where in it
	// (bpf_prog_calc_tag, kernel/bpf/core.c).
	isUsed, doubt := s.l.usedBy(now, is)
	wasUsed, doubted := s.before.usedBy(then, was)
	if (doubt || doubted) && (s.l.hash(now.Object) != s.before.hash(then.Object) || now.Symbol != then.Symbol) {
		return false
	}
	return slices.Equal(isUsed, wasUsed) &&
		!slices.ContainsFunc(isUsed, func(u use) bool { return !slices.Contains(s.Kept, u.name) })
}

// SameSection reports whether a program and the running one are about the same
// function, tracepoint or LSM hook of the kernel; also true where they are about none.
func (s *Succession) SameSection(key, oldKey string) bool {
	now, then := s.l.plans[key], s.before.plans[oldKey]
	if now == nil || then == nil {
		return false
	}
	if !now.Hook.InSection() && !then.Hook.InSection() {
		return true
	}
	is, was := s.l.loaded(now), s.before.loaded(then)
	return is != nil && was != nil && is.AttachTo == was.AttachTo
}

// loaded returns a program as the kernel gets it, but for maps and fixups; nil if its
// object does not have it.
func (l *loader) loaded(p *specs.PlanProgram) *ebpf.ProgramSpec {
	obj := l.objects[p.Object]
	if obj == nil || obj.Programs[p.Symbol] == nil {
		return nil
	}
	spec := obj.Programs[p.Symbol].Copy()
	if SetHook(spec, p) != nil {
		return nil
	}
	return spec
}

// hash returns which file an object of the plan is.
func (l *loader) hash(object string) string {
	for _, o := range l.o.Plan.Objects {
		if o.Name == object {
			return o.SHA256
		}
	}
	return ""
}

// use is one instruction that takes a map or the address of a variable.
type use struct {
	name     string // of the map in the plan
	direct   bool
	offset   uint32 // bytes from the start of a data section
	variable string // at offset; empty if no name is known
}

// usedBy lists what the instructions of a program take, one after the other,
// subprograms included. doubt is true if a part of it can't be told: a map that the
// kernel fills (.kconfig), which is not listed, or variables without names.
func (l *loader) usedBy(p *specs.PlanProgram, spec *ebpf.ProgramSpec) (list []use, doubt bool) {
	for i := range spec.Instructions {
		ins := &spec.Instructions[i]
		if !ins.IsLoadFromMap() {
			continue
		}
		if ins.Reference() == "" {
			doubt = true
			continue
		}
		ref := specs.MapRef{Object: p.Object, Symbol: ins.Reference()}
		u := use{name: mapName(ref)}
		if m := l.mapOf[ref]; m != nil {
			u.name = m.Name
		}
		if ins.Src == asm.PseudoMapValue {
			u.direct, u.offset = true, uint32(uint64(ins.Constant)>>32)
			for _, v := range variablesIn(l.objects[p.Object], ref.Symbol) {
				if u.offset >= v.Offset && u.offset < v.Offset+v.Size {
					u.variable = v.Name
				}
			}
			// Constants are compared as bytes, whatever they are called.
			doubt = doubt || u.variable == "" && !strings.HasPrefix(ref.Symbol, ".rodata")
		}
		list = append(list, u)
	}
	return list, doubt
}
