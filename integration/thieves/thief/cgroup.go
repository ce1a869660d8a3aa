// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

func cgroupCommands() map[string]command {
	return map[string]command{
		"prog-detach": {"DIR HOOK PROGRAM: BPF_PROG_DETACH; PROGRAM 0: without a program", 3, progDetach},
		"prog-attach": {"DIR HOOK none|override|multi|replace|first [PROGRAM]: BPF_PROG_ATTACH what allows everything", 3, progAttach},
		"rewrite":     {"DIR FROM TO: attach what sends connections to port FROM on to port TO", 3, rewrite},
		"mount":       {"FSTYPE DIR [OPTIONS]: mount a file system", 2, mountFS},
		"join":        {"DIR COMMAND…: move into the cgroup and run another command of the thief", 2, join},
		"move":        {"DIR PID: move a process into the cgroup", 2, move},
		"write":       {"FILE TEXT", 2, writeFile},
		"mkdir":       {"DIR", 1, func(a []string) error { return os.MkdirAll(a[0], 0o755) }},
		"join-thread": {"DIR COMMAND…: move one thread into a threaded cgroup and run another command on it", 2, joinThread},
	}
}

// hooks are the cgroup hooks by the names of the programs of the test.
var hooks = map[string]struct {
	kind   ebpf.ProgramType
	attach ebpf.AttachType
}{
	"connect4":    {ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect},
	"connect6":    {ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Connect},
	"sendmsg4":    {ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP4Sendmsg},
	"sendmsg6":    {ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP6Sendmsg},
	"bind4":       {ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Bind},
	"sock_create": {ebpf.CGroupSock, ebpf.AttachCGroupInetSockCreate},
	"skb_egress":  {ebpf.CGroupSKB, ebpf.AttachCGroupInetEgress},
	"skb_ingress": {ebpf.CGroupSKB, ebpf.AttachCGroupInetIngress},
}

// preorder is BPF_F_PREORDER (6.15): ancestors' programs run before descendants'.
const preorder = 1 << 6

func progDetach(args []string) error {
	dir, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer dir.Close()
	hook, ok := hooks[args[1]]
	if !ok {
		return fmt.Errorf("unknown hook %q", args[1])
	}
	p, err := programByID(args[2])
	if err != nil {
		return err
	}
	fd := 0
	if p != nil {
		defer p.Close()
		fd = p.FD()
	}
	return bpfAttach(bpfProgDetach, attachAttr{target: int(dir.Fd()), program: fd, kind: hook.attach})
}

func progAttach(args []string) error {
	dir, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer dir.Close()
	hook, ok := hooks[args[1]]
	if !ok {
		return fmt.Errorf("unknown hook %q", args[1])
	}
	attr := attachAttr{target: int(dir.Fd()), kind: hook.attach}
	switch args[2] {
	case "none":
	case "override":
		attr.flags = unix.BPF_F_ALLOW_OVERRIDE
	case "multi":
		attr.flags = unix.BPF_F_ALLOW_MULTI
	case "first":
		attr.flags = unix.BPF_F_ALLOW_MULTI | preorder
	case "replace":
		old, err := programByID(args[3])
		if err != nil {
			return err
		}
		defer old.Close()
		attr.flags, attr.replace = unix.BPF_F_ALLOW_MULTI|unix.BPF_F_REPLACE, old.FD()
	default:
		return fmt.Errorf("unknown mode %q", args[2])
	}
	p, err := allow(hook.kind, hook.attach, 1)
	if err != nil {
		return err
	}
	defer p.Close()
	attr.program = p.FD()
	return bpfAttach(bpfProgAttach, attr)
}

// allow loads a program that returns a verdict and does nothing else.
func allow(kind ebpf.ProgramType, attach ebpf.AttachType, verdict int32) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "thief", Type: kind, AttachType: attach, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
}

func programByID(text string) (*ebpf.Program, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == 0 {
		return nil, err
	}
	return ebpf.NewProgramFromID(ebpf.ProgramID(id))
}

func rewrite(args []string) error {
	dir, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer dir.Close()
	var ports [2]int32
	for i, text := range args[1:3] {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return err
		}
		ports[i] = int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, uint16(n))))
	}
	const userPort = 24 // offset in struct bpf_sock_addr
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "thief", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, userPort, asm.Word),
			asm.JNE.Imm(asm.R2, ports[0], "out"),
			asm.Mov.Imm(asm.R2, ports[1]),
			asm.StoreMem(asm.R1, userPort, asm.R2, asm.Word),
			asm.Mov.Imm(asm.R0, 1).WithSymbol("out"),
			asm.Return(),
		},
	})
	if err != nil {
		return err
	}
	defer p.Close()
	return link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(dir.Fd()), Program: p, Attach: ebpf.AttachCGroupInet4Connect, Flags: unix.BPF_F_ALLOW_MULTI,
	})
}

func mountFS(args []string) error {
	if err := os.MkdirAll(args[1], 0o755); err != nil {
		return err
	}
	options := ""
	if len(args) > 2 {
		options = args[2]
	}
	return os.NewSyscallError("mount", unix.Mount(args[0], args[1], args[0], 0, options))
}

func move(args []string) error {
	return writeFile([]string{filepath.Join(args[0], "cgroup.procs"), args[1]})
}

// writeFile writes to a file that exists.
func writeFile(args []string) error {
	f, err := os.OpenFile(args[0], os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(args[1])
	return err
}

func join(args []string) error {
	if err := move([]string{args[0], strconv.Itoa(os.Getpid())}); err != nil {
		return err
	}
	return commands[args[1]].run(args[2:])
}

func joinThread(args []string) error {
	runtime.LockOSThread()
	if err := writeFile([]string{filepath.Join(args[0], "cgroup.threads"), strconv.Itoa(unix.Gettid())}); err != nil {
		return err
	}
	return commands[args[1]].run(args[2:])
}
