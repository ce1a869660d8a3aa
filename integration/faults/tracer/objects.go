// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// objectID asks for the id of the eBPF object behind another process's descriptor.
func objectID(pidfd, fd int) (uint32, error) {
	ours, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return 0, os.NewSyscallError("pidfd_getfd", err)
	}
	defer unix.Close(ours)
	// struct bpf_map_info, bpf_prog_info and bpf_link_info all begin with a type and
	// the id.
	var info struct{ kind, id uint32 }
	attr := struct {
		fd, size uint32
		info     unsafe.Pointer // a number would not follow a stack that is moved
	}{uint32(ours), uint32(unsafe.Sizeof(info)), unsafe.Pointer(&info)}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_OBJ_GET_INFO_BY_FD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return 0, os.NewSyscallError("bpf", errno)
	}
	return info.id, nil
}

// isNetlink tells whether another process's descriptor is a netlink socket.
func isNetlink(pidfd, fd int) bool {
	ours, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return false // no descriptor at all
	}
	defer unix.Close(ours)
	domain, err := unix.GetsockoptInt(ours, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && domain == unix.AF_NETLINK
}
