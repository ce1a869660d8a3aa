// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

func idCommands() map[string]command {
	return map[string]command{
		"link-detach": {"LINK…: BPF_LINK_DETACH by id", 1, eachLink(linkDetach)},
		"link-update": {"LINK…: BPF_LINK_UPDATE by id, to what allows everything", 1, eachLink(linkUpdate)},
		"map-delete":  {"MAP KEY: delete an entry of the map with this id; KEY in hex", 2, mapDelete},
		"map-set":     {"MAP KEY BYTE: fill the value of a map with this id", 3, mapSet},
		"map-freeze":  {"MAP: BPF_MAP_FREEZE by id", 1, mapFreeze},
	}
}

// Commands of bpf(2) (enum bpf_cmd). Raw: the library refuses some of what a thief tries.
const (
	bpfProgAttach = 8
	bpfProgDetach = 9
)

// attachAttr is the part of union bpf_attr for BPF_PROG_ATTACH and BPF_PROG_DETACH.
type attachAttr struct {
	target, program int
	kind            ebpf.AttachType
	flags           uint32
	replace         int
	relative        uint32 // descriptor or id to come before or after
	revision        uint64
}

func bpfAttach(cmd uintptr, a attachAttr) error {
	attr := struct {
		target, program, kind, flags, replace, relative uint32
		revision                                        uint64
	}{uint32(a.target), uint32(a.program), uint32(a.kind), a.flags, uint32(a.replace), a.relative, a.revision}
	_, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&attr)
	if errno != 0 {
		return os.NewSyscallError("bpf", errno)
	}
	return nil
}

// eachLink tries every link, and fails only if all have refused.
func eachLink(f func(link.Link) error) func([]string) error {
	return func(args []string) error {
		var last error
		done := 0
		for _, arg := range args {
			id, err := strconv.ParseUint(arg, 10, 32)
			if err != nil {
				return err
			}
			l, err := link.NewFromID(link.ID(id))
			if err == nil {
				err = f(l)
				l.Close()
			}
			if err != nil {
				last = fmt.Errorf("link %d: %w", id, err)
				continue
			}
			done++
		}
		if done > 0 {
			return nil
		}
		return last
	}
}

func linkDetach(l link.Link) error {
	d, ok := l.(interface{ Detach() error })
	if !ok {
		return fmt.Errorf("%T can't be detached", l)
	}
	return d.Detach()
}

func linkUpdate(l link.Link) error {
	info, err := l.Info()
	if err != nil {
		return err
	}
	old, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return err
	}
	defer old.Close()
	verdict, attach := int32(1), ebpf.AttachNone
	switch {
	case info.Cgroup() != nil:
		attach = ebpf.AttachType(info.Cgroup().AttachType)
	case info.TCX() != nil:
		verdict = -1 // TCX_NEXT
		attach = ebpf.AttachType(info.TCX().AttachType)
	case info.XDP() != nil:
		verdict = 2 // XDP_PASS
		attach = ebpf.AttachXDP
	}
	p, err := allow(old.Type(), attach, verdict)
	if err != nil {
		return err
	}
	defer p.Close()
	return l.Update(p)
}

func openMap(text string) (*ebpf.Map, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil, err
	}
	return ebpf.NewMapFromID(ebpf.MapID(id))
}

func mapDelete(args []string) error {
	m, err := openMap(args[0])
	if err != nil {
		return err
	}
	defer m.Close()
	key, err := hex.DecodeString(args[1])
	if err != nil {
		return err
	}
	return m.Delete(key)
}

func mapSet(args []string) error {
	m, err := openMap(args[0])
	if err != nil {
		return err
	}
	defer m.Close()
	key, err := hex.DecodeString(args[1])
	if err != nil {
		return err
	}
	b, err := strconv.ParseUint(args[2], 0, 8)
	if err != nil {
		return err
	}
	value := make([]byte, m.ValueSize())
	for i := range value {
		value[i] = byte(b)
	}
	return m.Put(key, value)
}

func mapFreeze(args []string) error {
	m, err := openMap(args[0])
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Freeze()
}
