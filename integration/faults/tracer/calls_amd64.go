// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const arch = unix.AUDIT_ARCH_X86_64

var counted = []syscallInfo{
	{number: unix.SYS_BPF, name: "bpf", path: -1},
	{number: unix.SYS_OPEN, name: "open", path: 0},
	{number: unix.SYS_OPENAT, name: "openat", path: 1},
	{number: unix.SYS_OPENAT2, name: "openat2", path: 1},
	{number: unix.SYS_CREAT, name: "creat", path: 0},
	{number: unix.SYS_MKDIR, name: "mkdir", path: 0},
	{number: unix.SYS_MKDIRAT, name: "mkdirat", path: 1},
	{number: unix.SYS_RENAME, name: "rename", path: 0},
	{number: unix.SYS_RENAMEAT, name: "renameat", path: 1},
	{number: unix.SYS_RENAMEAT2, name: "renameat2", path: 1},
	{number: unix.SYS_UNLINK, name: "unlink", path: 0},
	{number: unix.SYS_UNLINKAT, name: "unlinkat", path: 1},
	{number: unix.SYS_RMDIR, name: "rmdir", path: 0},
	{number: unix.SYS_SYMLINK, name: "symlink", path: 0},
	{number: unix.SYS_SYMLINKAT, name: "symlinkat", path: 0},
	{number: unix.SYS_LINK, name: "link", path: 0},
	{number: unix.SYS_LINKAT, name: "linkat", path: 1},
	{number: unix.SYS_FLOCK, name: "flock", path: -1},
	{number: unix.SYS_SETNS, name: "setns", path: -1},
	{number: unix.SYS_SOCKET, name: "socket AF_NETLINK", path: -1, domain: unix.AF_NETLINK},
	{number: unix.SYS_BIND, name: "bind netlink", path: -1, netlink: true},
	{number: unix.SYS_SENDTO, name: "sendto netlink", path: -1, netlink: true},
	{number: unix.SYS_SENDMSG, name: "sendmsg netlink", path: -1, netlink: true},
	{number: unix.SYS_RECVFROM, name: "recvfrom netlink", path: -1, netlink: true},
	{number: unix.SYS_RECVMSG, name: "recvmsg netlink", path: -1, netlink: true},
}

// registers of a stopped thread.
type registers struct{ unix.PtraceRegs }

func (r *registers) read(tid int) error {
	return os.NewSyscallError("ptrace", unix.PtraceGetRegs(tid, &r.PtraceRegs))
}

func (r *registers) write(tid int) error {
	return os.NewSyscallError("ptrace", unix.PtraceSetRegs(tid, &r.PtraceRegs))
}

// number returns the number of the system call at whose entry the thread is.
func (r *registers) number() uint64 { return r.Orig_rax }

func (r *registers) args() [6]uint64 {
	return [6]uint64{r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9}
}

// result returns what a finished call has returned; negative is an error number.
func (r *registers) result() int64 { return int64(r.Rax) }

// refuse makes the kernel leave out the call and return an error: number -1 is no
// call, and what a tracer writes into the result register then stays (seccomp(2),
// SECCOMP_RET_TRACE).
func (r *registers) refuse(errno unix.Errno) {
	r.Orig_rax = ^uint64(0)
	r.Rax = uint64(-int64(errno))
}

// below is how far under the stack pointer the filter is put: inside the 128 KiB
// that the kernel maps for a new program, and beyond the red zone.
const below = 16384

// installFilter makes a program that stands before its first instruction call
// seccomp(2), and puts everything back. No part of it runs in the tracer's own
// process, and no program stands between the caller and the one that is traced.
func installFilter(pid int, prog []unix.SockFilter) (err error) {
	var before registers
	if err := before.read(pid); err != nil {
		return err
	}
	at := uintptr(before.Rsp-below) &^ 15
	memory := binary.LittleEndian.AppendUint64(nil, uint64(len(prog))) // struct sock_fprog
	memory = binary.LittleEndian.AppendUint64(memory, uint64(at)+16)
	for _, f := range prog {
		memory = binary.LittleEndian.AppendUint16(memory, f.Code)
		memory = append(memory, f.Jt, f.Jf)
		memory = binary.LittleEndian.AppendUint32(memory, f.K)
	}
	if _, err := unix.PtracePokeData(pid, at, memory); err != nil {
		return os.NewSyscallError("ptrace", err)
	}
	text := make([]byte, 2)
	if _, err := unix.PtracePeekText(pid, uintptr(before.Rip), text); err != nil {
		return os.NewSyscallError("ptrace", err)
	}
	if _, err := unix.PtracePokeText(pid, uintptr(before.Rip), []byte{0x0f, 0x05}); err != nil { // syscall
		return os.NewSyscallError("ptrace", err)
	}
	call := before
	call.Rax, call.Orig_rax = unix.SYS_SECCOMP, ^uint64(0)
	call.Rdi, call.Rsi, call.Rdx = unix.SECCOMP_SET_MODE_FILTER, 0, uint64(at)
	if err := call.write(pid); err != nil {
		return err
	}
	for range 2 { // entry and exit
		if err := unix.PtraceSyscall(pid, 0); err != nil {
			return os.NewSyscallError("ptrace", err)
		}
		var ws unix.WaitStatus
		if _, err := wait(pid, &ws); err != nil {
			return err
		}
		if !ws.Stopped() || ws.StopSignal() != unix.SIGTRAP|0x80 {
			return fmt.Errorf("installing the filter: unexpected stop %#x", uint32(ws))
		}
	}
	if err := call.read(pid); err != nil {
		return err
	}
	if n := call.result(); n != 0 {
		return fmt.Errorf("installing the filter: %w", os.NewSyscallError("seccomp", unix.Errno(-n)))
	}
	if _, err := unix.PtracePokeText(pid, uintptr(before.Rip), text); err != nil {
		return os.NewSyscallError("ptrace", err)
	}
	return before.write(pid)
}
