// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// xskSend sends one frame through an AF_XDP socket. It needs no XDP program, only
// CAP_NET_RAW, and what it sends goes past tc.
func xskSend(port int, token []byte) error {
	const size, chunk = 4 << 12, 1 << 12
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	umem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(umem)
	return socket(unix.AF_XDP, unix.SOCK_RAW, 0, func(fd int) error {
		reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&umem[0]))), Len: size, Size: chunk}
		if err := xdpOption(fd, unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg)); err != nil {
			return err
		}
		for _, ring := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_TX_RING} {
			if err := unix.SetsockoptInt(fd, unix.SOL_XDP, ring, 4); err != nil {
				return err
			}
		}
		var offsets unix.XDPMmapOffsets
		length := uint32(unsafe.Sizeof(offsets))
		if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
			uintptr(unsafe.Pointer(&offsets)), uintptr(unsafe.Pointer(&length)), 0); errno != 0 {
			return os.NewSyscallError("getsockopt", errno)
		}
		tx, err := unix.Mmap(fd, unix.XDP_PGOFF_TX_RING, int(offsets.Tx.Desc)+4*16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		if err != nil {
			return os.NewSyscallError("mmap", err)
		}
		defer unix.Munmap(tx)
		// Copied: a veth device can't do without.
		if err := unix.Bind(fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(ifi.Index)}); err != nil {
			return os.NewSyscallError("bind", err)
		}
		n := copy(umem, frame(port, token))
		*(*unix.XDPDesc)(unsafe.Pointer(&tx[offsets.Tx.Desc])) = unix.XDPDesc{Addr: 0, Len: uint32(n)}
		atomic.StoreUint32((*uint32)(unsafe.Pointer(&tx[offsets.Tx.Producer])), 1)
		return unix.Sendto(fd, nil, unix.MSG_DONTWAIT, nil)
	})
}

func xdpOption(fd, name int, value unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(name), uintptr(value), size, 0)
	if errno != 0 {
		return os.NewSyscallError("setsockopt", errno)
	}
	return nil
}
