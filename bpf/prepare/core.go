// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"bytes"
	"errors"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/specs"
)

// relocate computes the CO-RE relocations and kfunc calls of all programs against
// the running kernel and notes them in the plan, so that the hook need not read
// the kernel's types: that takes longer than everything else it does. What can't
// be resolved here is left to the loader, which then says why.
func (w *preparer) relocate(plan *specs.Plan) {
	var kernel *kernelTypes
	for i, p := range w.programs {
		if !needsKernel(p.spec.Instructions) {
			continue
		}
		if kernel == nil {
			var err error
			if kernel, err = loadKernelTypes(); err != nil {
				return
			}
		}
		fixups, err := kernel.fixups(p.spec)
		if err != nil {
			continue
		}
		plan.Programs[i].Fixups = fixups
		if len(fixups) > 0 {
			plan.Kernel = load.Kernel()
		}
	}
}

func needsKernel(insns asm.Instructions) bool {
	for i := range insns {
		if btf.CORERelocationMetadata(&insns[i]) != nil || insns[i].IsKfuncCall() {
			return true
		}
	}
	return false
}

// kernelTypes are the types of the kernel and its modules. The kernel's come first.
type kernelTypes struct {
	specs []*btf.Spec
}

func loadKernelTypes() (*kernelTypes, error) {
	cache := btf.NewCache()
	kernel, err := cache.Kernel()
	if err != nil {
		return nil, err
	}
	k := &kernelTypes{[]*btf.Spec{kernel}}
	names, err := cache.Modules()
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // kernels without BTF for modules
		return nil, err
	}
	for _, name := range names {
		module, err := cache.Module(name)
		if err != nil {
			return nil, err
		}
		k.specs = append(k.specs, module)
	}
	return k, nil
}

// errLocalType stops at relocations that name a type of the program's own BTF,
// whose number is known only when that is loaded.
var errLocalType = errors.New("the program refers to a type of its own")

// fixups resolves one program.
func (k *kernelTypes) fixups(spec *ebpf.ProgramSpec) ([]specs.Fixup, error) {
	var relos []*btf.CORERelocation
	for i := range spec.Instructions {
		if r := btf.CORERelocationMetadata(&spec.Instructions[i]); r != nil {
			relos = append(relos, r)
		}
	}
	var solved []btf.COREFixup
	if len(relos) > 0 {
		var err error
		solved, err = btf.CORERelocate(relos, k.specs, spec.ByteOrder, func(btf.Type) (btf.TypeID, error) { return 0, errLocalType })
		if err != nil {
			return nil, err
		}
	}
	var out []specs.Fixup
	iter := spec.Instructions.Iterate()
	for iter.Next() {
		ins := *iter.Ins
		switch {
		case btf.CORERelocationMetadata(&ins) != nil:
			if err := solved[0].Apply(&ins); err != nil {
				return nil, err
			}
			solved = solved[1:]
		case ins.IsKfuncCall():
			if !k.kfunc(&ins) {
				continue
			}
		default:
			continue
		}
		var raw bytes.Buffer
		if _, err := ins.Marshal(&raw, spec.ByteOrder); err != nil {
			return nil, err
		}
		out = append(out, specs.Fixup{Offset: int(iter.Offset), Raw: raw.Bytes()})
	}
	return out, nil
}

// kfunc points a call at a function of the kernel. Those of modules need a
// descriptor at load, so they stay with the loader.
func (k *kernelTypes) kfunc(ins *asm.Instruction) bool {
	var fn *btf.Func
	if err := k.specs[0].TypeByName(ins.Reference(), &fn); err != nil {
		return false
	}
	id, err := k.specs[0].TypeID(fn)
	if err != nil {
		return false
	}
	ins.Constant, ins.Offset = int64(id), 0
	return true
}
