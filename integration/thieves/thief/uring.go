// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Operations of io_uring (enum io_uring_op).
const (
	opSendmsg = 9
	opConnect = 16
	opSend    = 26
	opSocket  = 45
)

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// uringSQE is struct io_uring_sqe.
type uringSQE struct {
	op, flags uint8
	ioprio    uint16
	fd        int32
	off, addr uint64
	len, more uint32
	data      uint64
	_         [3]uint64
}

// uring runs one operation at a time, by a worker of the kernel: these are what
// one might hope is not in the cgroup.
type uring struct {
	fd   int
	p    uringParams
	ring []byte
	sqes []byte
}

func newUring() (*uring, error) {
	u := &uring{}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&u.p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	u.fd = int(fd)
	size := max(int(u.p.sq.array+u.p.sqEntries*4), int(u.p.cq.cqes+u.p.cqEntries*16))
	var err error
	u.ring, err = unix.Mmap(u.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err == nil {
		const offSQEs = 0x10000000
		u.sqes, err = unix.Mmap(u.fd, offSQEs, int(u.p.sqEntries)*64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	}
	return u, os.NewSyscallError("mmap", err)
}

func (u *uring) word(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&u.ring[offset])) }

// do submits an operation and returns its result.
func (u *uring) do(e uringSQE) (int, error) {
	const async = 1 << 4 // IOSQE_ASYNC
	e.flags = async
	tail := atomic.LoadUint32(u.word(u.p.sq.tail))
	slot := tail & *u.word(u.p.sq.mask)
	*(*uringSQE)(unsafe.Pointer(&u.sqes[slot*64])) = e
	*u.word(u.p.sq.array + slot*4) = slot
	atomic.StoreUint32(u.word(u.p.sq.tail), tail+1)
	const getEvents = 1
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), 1, 1, getEvents, 0, 0); errno != 0 {
		return 0, os.NewSyscallError("io_uring_enter", errno)
	}
	head := atomic.LoadUint32(u.word(u.p.cq.head))
	at := u.p.cq.cqes + head&*u.word(u.p.cq.mask)*16
	result := int32(*u.word(at + 8))
	atomic.StoreUint32(u.word(u.p.cq.head), head+1)
	if result < 0 {
		return 0, os.NewSyscallError("io_uring", unix.Errno(-result))
	}
	return int(result), nil
}

func (u *uring) socket(kind uint64) (int, error) {
	return u.do(uringSQE{op: opSocket, fd: unix.AF_INET, off: kind})
}

func inet4(port int) *unix.RawSockaddrInet4 {
	sa := &unix.RawSockaddrInet4{Family: unix.AF_INET}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], uint16(port))
	copy(sa.Addr[:], net.ParseIP(hostIP).To4())
	return sa
}

func address[T any](p *T) uint64 {
	given = append(given, p)
	return uint64(uintptr(unsafe.Pointer(p)))
}

// given is what the kernel has the addresses of: on the heap, where nothing moves.
var given []any

func uringUDP(port int, token []byte) error {
	u, err := newUring()
	if err != nil {
		return err
	}
	fd, err := u.socket(unix.SOCK_DGRAM)
	if err != nil {
		return err
	}
	sa := inet4(port)
	iov := &unix.Iovec{Base: &token[0], Len: uint64(len(token))}
	msg := &unix.Msghdr{Name: (*byte)(unsafe.Pointer(sa)), Namelen: uint32(unsafe.Sizeof(*sa)), Iov: iov, Iovlen: 1}
	_, err = u.do(uringSQE{op: opSendmsg, fd: int32(fd), addr: address(msg), len: 1})
	runtime.KeepAlive(sa)
	runtime.KeepAlive(msg)
	return err
}

func uringTCP(port int, token []byte) error {
	u, err := newUring()
	if err != nil {
		return err
	}
	fd, err := u.socket(unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	sa := inet4(port)
	if _, err := u.do(uringSQE{op: opConnect, fd: int32(fd), addr: address(sa), off: uint64(unsafe.Sizeof(*sa))}); err != nil {
		return err
	}
	runtime.KeepAlive(sa)
	_, err = u.do(uringSQE{op: opSend, fd: int32(fd), addr: address(&token[0]), len: uint32(len(token))})
	return err
}
