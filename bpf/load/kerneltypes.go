// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/specs"
)

// NeedsKernel reports whether a program has CO-RE relocations or calls of kfuncs.
func NeedsKernel(spec *ebpf.ProgramSpec) bool {
	for i := range spec.Instructions {
		if ins := &spec.Instructions[i]; btf.CORERelocationMetadata(ins) != nil || ins.IsKfuncCall() {
			return true
		}
	}
	return false
}

// KernelTypes are the types of the kernel and its modules.
type KernelTypes struct {
	specs []*btf.Spec // the kernel's come first
}

// ReadKernelTypes reads them from sysfs, which takes tens of milliseconds.
func ReadKernelTypes() (*KernelTypes, error) {
	cache := btf.NewCache()
	kernel, err := cache.Kernel()
	if err != nil {
		return nil, err
	}
	k := &KernelTypes{[]*btf.Spec{kernel}}
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

// Fixups resolves the CO-RE relocations and kfunc calls of one program.
func (k *KernelTypes) Fixups(spec *ebpf.ProgramSpec) ([]specs.Fixup, error) {
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
func (k *KernelTypes) kfunc(ins *asm.Instruction) bool {
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

// errNoTarget means that the kernel has no such function, tracepoint or LSM hook.
var errNoTarget = errors.New("is not there")

// AttachTarget returns the number (BTF id) of what a program attaches to, as its
// section says: a function, a tracepoint or an LSM hook of the kernel. Those of
// modules have no number that lasts.
func (k *KernelTypes) AttachTarget(spec *ebpf.ProgramSpec) (uint32, error) {
	var found btf.Type = (*btf.Func)(nil)
	name, what := spec.AttachTo, "function"
	switch spec.AttachType {
	case ebpf.AttachTraceFEntry, ebpf.AttachTraceFExit:
	case ebpf.AttachTraceRawTp:
		found, name, what = (*btf.Typedef)(nil), "btf_trace_"+name, "tracepoint"
	case ebpf.AttachLSMMac, ebpf.AttachLSMCgroup:
		name, what = "bpf_lsm_"+name, "LSM hook"
	default:
		return 0, fmt.Errorf("programs of %s attach to no function of the kernel", spec.AttachType)
	}
	err := k.specs[0].TypeByName(name, &found)
	if errors.Is(err, btf.ErrNotFound) {
		return 0, fmt.Errorf("the kernel has no %s %q: it %w (%w)", what, spec.AttachTo, errNoTarget, err)
	}
	if err != nil {
		return 0, fmt.Errorf("%s %q of the kernel: %w", what, spec.AttachTo, err)
	}
	id, err := k.specs[0].TypeID(found)
	return uint32(id), err
}
