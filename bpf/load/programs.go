// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/specs"
)

// loadPrograms loads the wanted programs; their maps exist.
func (l *loader) loadPrograms() error {
	for _, p := range l.programs {
		if err := l.expired(); err != nil {
			return err
		}
		how := asIs
		if l.fixups && (len(p.Fixups) > 0 || p.AttachBTFID != 0) {
			how = asPlanned
		}
		prog, err := l.loadProgram(p, how)
		if err != nil && how == asPlanned {
			// The kernel's types may have changed without a new version, by a module
			// that was loaded since. The slow way sees them as they are now.
			prog, err = l.loadProgram(p, asIs)
		}
		if err != nil {
			why := refused(p, err)
			return l.fail("program "+p.Key, why, why.remedy())
		}
		l.out.Programs[p.Key] = prog
	}
	return nil
}

// knowledge says from where it is known what a program needs of the kernel.
type knowledge int

const (
	asIs      knowledge = iota // nowhere yet: the kernel's types have to be read
	asPlanned                  // the plan, which was made on this kernel
)

func (l *loader) loadProgram(p *specs.PlanProgram, how knowledge) (*ebpf.Program, error) {
	var fixups []specs.Fixup
	if how == asPlanned {
		fixups = p.Fixups
	}
	spec := l.objects[p.Object].Programs[p.Symbol].Copy()
	if err := SetHook(spec, p); err != nil {
		return nil, err
	}
	if err := applyFixups(spec.Instructions, fixups); err != nil {
		return nil, err
	}
	for i := range spec.Instructions {
		ins := &spec.Instructions[i]
		if !ins.IsLoadFromMap() || ins.Reference() == "" {
			continue
		}
		m := l.mapOf[specs.MapRef{Object: p.Object, Symbol: ins.Reference()}]
		if err := ins.AssociateMap(l.out.Maps[m.Name]); err != nil {
			return nil, fmt.Errorf("map %s: %w", m.Name, err)
		}
	}
	return withMemlock(func() (*ebpf.Program, error) {
		if p.Hook.InSection() {
			return loadInSection(spec, p, how)
		}
		return ebpf.NewProgram(spec)
	})
}

// SetHook gives a program the type, expected attach type and flags that the plan
// says. An empty hook keeps what the section says.
//
// tc programs get no expected attach type: links of tcx do not ask for one, and
// since 6.18 the kernel refuses tail calls between programs that differ in it
// (commit 4540aed51b12), which would part tcx/ingress from tcx/egress and tc.
func SetHook(spec *ebpf.ProgramSpec, p *specs.PlanProgram) error {
	if p.Hook != "" {
		t, a, err := hooks.Types(p.Hook)
		if err != nil {
			return err
		}
		if t != spec.Type {
			spec.Flags &^= unix.BPF_F_SLEEPABLE | unix.BPF_F_XDP_HAS_FRAGS
			spec.AttachTo = ""
		}
		spec.Type, spec.AttachType = t, a
	}
	switch spec.Type {
	case ebpf.SchedCLS, ebpf.SchedACT:
		spec.AttachType = ebpf.AttachNone
	case ebpf.XDP:
		spec.Flags &^= unix.BPF_F_XDP_HAS_FRAGS
		if p.Frags {
			spec.Flags |= unix.BPF_F_XDP_HAS_FRAGS
		}
	}
	return nil
}

// applyFixups replaces instructions by those that prepare has relocated. What
// remains of their metadata is what the kernel gets to see: symbol, function and
// line; the marks that make the library relocate them are dropped.
func applyFixups(insns asm.Instructions, fixups []specs.Fixup) error {
	if len(fixups) == 0 {
		return nil
	}
	byOffset := make(map[asm.RawInstructionOffset][]byte, len(fixups))
	for _, f := range fixups {
		byOffset[asm.RawInstructionOffset(f.Offset)] = f.Raw
	}
	iter := insns.Iterate()
	for iter.Next() {
		raw, ok := byOffset[iter.Offset]
		if !ok {
			continue
		}
		fixed, err := decode(raw, iter.Ins)
		if err != nil {
			return fmt.Errorf("instruction %d: %w", iter.Offset, err)
		}
		*iter.Ins = fixed
	}
	return nil
}

func decode(raw []byte, old *asm.Instruction) (asm.Instruction, error) {
	var ins asm.Instruction
	if err := ins.Unmarshal(bytes.NewReader(raw), nativeEndian, "linux"); err != nil {
		return ins, err
	}
	if ins.Width() != old.Width() || len(raw) != int(ins.Width())*asm.InstructionSize {
		return ins, errDamaged
	}
	if s := old.Symbol(); s != "" {
		ins = ins.WithSymbol(s)
	}
	if s := old.Source(); s != nil {
		ins = ins.WithSource(s)
	}
	if f := btf.FuncMetadata(old); f != nil {
		ins = btf.WithFuncMetadata(ins, f)
	}
	return ins, nil
}
