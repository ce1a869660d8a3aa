// SPDX-License-Identifier: Apache-2.0

package attach

import (
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
		path uint64
		fd   uint32
		_    uint32
	}{path: uint64(uintptr(unsafe.Pointer(name))), fd: uint32(f.FD())}
	_, err = bpf(unix.BPF_OBJ_PIN, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(name)
	runtime.KeepAlive(f)
	return err
}

// objInfo reads the first bytes of a link's or program's info, as many as info has.
func objInfo(fd int, info []byte) error {
	attr := struct {
		fd, length uint32
		info       uint64
	}{uint32(fd), uint32(len(info)), uint64(uintptr(unsafe.Pointer(unsafe.SliceData(info))))}
	_, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(info)
	return os.NewSyscallError("bpf BPF_OBJ_GET_INFO_BY_FD", err)
}

// progByID opens a program; the caller closes the descriptor.
func progByID(id uint32) (int, error) {
	attr := struct{ id, next, flags uint32 }{id: id}
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return fd, os.NewSyscallError("bpf BPF_PROG_GET_FD_BY_ID", err)
}

// progQuery returns the ids of the programs that are attached to a cgroup itself,
// by link or not, and the flags of the attachments that are not.
func progQuery(cgroup int, attachType uint32) (flags uint32, ids []uint32, err error) {
	ids = make([]uint32, 64) // BPF_CGROUP_MAX_PROGS
	attr := struct {
		target, attachType, queryFlags, attachFlags uint32
		ids                                         uint64
		count, _                                    uint32
	}{target: uint32(cgroup), attachType: attachType, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: uint32(len(ids))}
	_, err = bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(ids)
	if err != nil {
		return 0, nil, os.NewSyscallError("bpf BPF_PROG_QUERY", err)
	}
	return attr.attachFlags, ids[:min(int(attr.count), len(ids))], nil
}
