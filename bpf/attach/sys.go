// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The commands of bpf(2) that cilium/ebpf does not offer in the form needed here
// (include/uapi/linux/bpf.h). Each attr ends with the last field that is used:
// the kernel takes the rest for zero.

const attrPathLen = 4096 // PATH_MAX

type fder interface{ FD() int }

// pointer is one in an attr, of 8 bytes: on machines of 64 bits, as linkpin is built
// for. Go must know it as a pointer until the call: as a number it would not follow a stack
// that is moved, and the kernel would write to where the stack was.
type pointer = unsafe.Pointer

func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(r), nil
	}
}

// objPin pins a link, program or map. The path is resolved as for open(2).
func objPin(f fder, path string) error {
	if len(path) >= attrPathLen {
		return unix.ENAMETOOLONG
	}
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	attr := struct {
		path pointer
		fd   uint32
		_    uint32
	}{path: pointer(name), fd: uint32(f.FD())}
	_, err = bpf(unix.BPF_OBJ_PIN, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(name)
	runtime.KeepAlive(f)
	return err
}

// objInfo reads the first bytes of a link's or program's info, as many as info has.
func objInfo(fd int, info []byte) error {
	attr := struct {
		fd, length uint32
		info       pointer
	}{uint32(fd), uint32(len(info)), pointer(unsafe.SliceData(info))}
	_, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(info)
	return os.NewSyscallError("bpf BPF_OBJ_GET_INFO_BY_FD", err)
}

// linkReplace exchanges the program of a link if it is the expected one.
func linkReplace(link, prog, old int) error {
	attr := struct{ link, prog, flags, old uint32 }{uint32(link), uint32(prog), unix.BPF_F_REPLACE, uint32(old)}
	_, err := bpf(unix.BPF_LINK_UPDATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return os.NewSyscallError("bpf BPF_LINK_UPDATE", err)
}

// progByID opens a program; the caller closes the descriptor.
func progByID(id uint32) (int, error) {
	attr := struct{ id, next, flags uint32 }{id: id}
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return fd, os.NewSyscallError("bpf BPF_PROG_GET_FD_BY_ID", err)
}

// queryEffective is BPF_F_QUERY_EFFECTIVE: what runs for a cgroup, in that order, with
// the programs of those above it.
const queryEffective = 1 << 0

// maxQueried bounds how many programs are asked for: a hook takes 64 of one cgroup,
// and as many of each one above it.
const maxQueried = 1024

// progQuery returns the ids of the programs that are attached to a cgroup (a
// descriptor) itself, by link or not, and the flags of the attachments that are not.
// With queryEffective, the ids are of all that run for the cgroup. For tcx the target
// is an ifindex of the caller's namespace. The ids are in the order in which they run.
func progQuery(target int, attachType, queryFlags uint32) (flags uint32, ids []uint32, err error) {
	ids = make([]uint32, 64) // BPF_CGROUP_MAX_PROGS, bpf_mprog_max
	for {
		attr := struct {
			target, attachType, queryFlags, attachFlags uint32
			ids                                         pointer
			count, _                                    uint32
			_, _, _                                     uint64 // flags of programs, ids and flags of links
			revision                                    uint64 // the kernel writes it, whatever the size that it was told
		}{target: uint32(target), attachType: attachType, queryFlags: queryFlags,
			ids: pointer(&ids[0]), count: uint32(len(ids))}
		_, err = bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		runtime.KeepAlive(ids)
		if errors.Is(err, unix.ENOSPC) && len(ids) < maxQueried {
			ids = make([]uint32, maxQueried)
			continue
		}
		if err != nil {
			return 0, nil, os.NewSyscallError("bpf BPF_PROG_QUERY", err)
		}
		return attr.attachFlags, ids[:min(int(attr.count), len(ids))], nil
	}
}
