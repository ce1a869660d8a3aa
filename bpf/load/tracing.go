// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs"
)

// loadInSection loads a program that is about a function or tracepoint of the kernel
// (specs.Hook.InSection), whose number it gets from the plan: the library would read
// the kernel's types to look that up, which takes longer than a container's start may,
// and does not do it for lsm_cgroup at all (cilium/ebpf 0.22). Where the plan was made
// on another kernel, the slow way is taken.
func loadInSection(spec *ebpf.ProgramSpec, p *specs.PlanProgram, how knowledge) (*ebpf.Program, error) {
	if how == asPlanned && p.AttachBTFID != 0 {
		return loadAt(spec, p.AttachBTFID)
	}
	return InSection(spec)
}

// InSection loads such a program after it has looked up in the kernel's types what
// spec.AttachTo names. The spec's instructions are changed.
func InSection(spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	if spec.AttachType != ebpf.AttachLSMCgroup {
		return ebpf.NewProgram(spec)
	}
	kernel, err := ReadKernelTypes()
	if err != nil {
		return nil, err
	}
	id, err := kernel.AttachTarget(spec)
	if err != nil {
		return nil, err
	}
	fixups, err := kernel.Fixups(spec)
	if err != nil {
		return nil, err
	}
	if err := applyFixups(spec.Instructions, fixups); err != nil {
		return nil, err
	}
	return loadAt(spec, id)
}

// loadAt is ebpf.NewProgram for a program whose attach_btf_id is known and whose
// relocations are done.
func loadAt(spec *ebpf.ProgramSpec, id uint32) (_ *ebpf.Program, err error) {
	var code bytes.Buffer
	if err := spec.Instructions.Marshal(&code, nativeEndian); err != nil {
		return nil, err
	}
	license, err := unix.ByteSliceFromString(spec.License)
	if err != nil {
		return nil, err
	}
	attr := progLoad{
		progType: uint32(spec.Type), insns: code.Bytes(), license: license, name: spec.Name,
		flags: spec.Flags, attachType: uint32(spec.AttachType), attachBTFID: id,
	}
	var types btf.Builder
	if attr.funcInfo, attr.lineInfo, err = btf.MarshalExtInfos(spec.Instructions, &types); err != nil {
		return nil, err
	}
	if !types.Empty() {
		handle, err := btf.NewHandle(&types)
		if err != nil {
			return nil, err
		}
		defer handle.Close() // the program holds it
		attr.btf = uint32(handle.FD())
	}
	fd, err := attr.load(nil)
	if err != nil {
		log := make([]byte, logSize)
		if fd, err = attr.load(log); err != nil {
			return nil, &ebpf.VerifierError{Cause: fmt.Errorf("load program: %w", err), Log: logLinesOf(log)}
		}
	}
	runtime.KeepAlive(spec)
	return ebpf.NewProgramFromFD(fd)
}

// logSize is the room for the verifier's log in bytes; of a longer one the beginning
// is kept.
const logSize = 1 << 20

func logLinesOf(log []byte) []string {
	text := strings.TrimSpace(unix.ByteSliceToString(log))
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// progLoad is what BPF_PROG_LOAD is told.
type progLoad struct {
	progType, flags, attachType uint32
	attachBTFID, btf            uint32
	insns, license              []byte
	funcInfo, lineInfo          []byte
	name                        string
}

// maxAttempts bounds how often a verifier that a signal has interrupted begins anew.
const maxAttempts = 30

// load makes the call; a log that is not empty gets the verifier's lines.
func (p *progLoad) load(log []byte) (int, error) {
	pointer := func(b []byte) unsafe.Pointer {
		if len(b) == 0 {
			return nil
		}
		return unsafe.Pointer(&b[0])
	}
	// union bpf_attr, BPF_PROG_LOAD (include/uapi/linux/bpf.h)
	attr := struct {
		progType, insnCount                   uint32
		insns, license                        unsafe.Pointer
		logLevel, logSize                     uint32
		log                                   unsafe.Pointer
		kernVersion, flags                    uint32
		name                                  [unix.BPF_OBJ_NAME_LEN]byte
		ifindex, attachType                   uint32
		btf, funcInfoSize                     uint32
		funcInfo                              unsafe.Pointer
		funcInfoCount, lineInfoSize           uint32
		lineInfo                              unsafe.Pointer
		lineInfoCount, attachBTFID, attachObj uint32
	}{
		progType: p.progType, insnCount: uint32(len(p.insns) / 8), insns: pointer(p.insns), license: pointer(p.license),
		flags: p.flags, attachType: p.attachType, btf: p.btf, attachBTFID: p.attachBTFID,
		funcInfo: pointer(p.funcInfo), funcInfoSize: btf.FuncInfoSize, funcInfoCount: uint32(len(p.funcInfo)) / btf.FuncInfoSize,
		lineInfo: pointer(p.lineInfo), lineInfoSize: btf.LineInfoSize, lineInfoCount: uint32(len(p.lineInfo)) / btf.LineInfoSize,
	}
	copy(attr.name[:len(attr.name)-1], strings.ReplaceAll(p.name, ".", "_"))
	if len(log) > 0 {
		attr.logLevel, attr.logSize, attr.log = 1, uint32(len(log)), pointer(log)
	}
	for attempt := 1; ; attempt++ {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		if errno == 0 {
			return int(fd), nil
		}
		if attempt == maxAttempts || !errors.Is(errno, unix.EAGAIN) && !errors.Is(errno, unix.EINTR) {
			return 0, errno
		}
	}
}
