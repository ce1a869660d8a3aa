// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func hookCommands() map[string]command {
	return map[string]command{
		"xdp-off":    {"DEVICE [skb|drv|hw]: take off whatever XDP program there is", 1, onDevice(xdpOff)},
		"xdp-set":    {"DEVICE FLAGS [PROGRAM]: put one of its own there; FLAGS of none, skb, drv, noexist, replace (of PROGRAM)", 2, onDevice(xdpSet)},
		"tcx-detach": {"DEVICE in|out PROGRAM [first|last]: BPF_PROG_DETACH; PROGRAM 0: without one", 3, onDevice(tcxDetach)},
		"tcx-attach": {"DEVICE in|out first|replace VERDICT [PROGRAM]: BPF_PROG_ATTACH", 4, onDevice(tcxAttach)},
		"clsact":     {"DEVICE: add a clsact qdisc and filters that accept or redirect everything", 1, onDevice(clsact)},
		"clsact-del": {"DEVICE: delete the clsact qdisc", 1, onDevice(clsactDel)},
		"flush":      {"DEVICE: delete all filters", 1, onDevice(flush)},
		"ingress":    {"DEVICE: add an ingress qdisc and delete it", 1, onDevice(ingress)},
		"root-qdisc": {"DEVICE: replace the root qdisc and delete it", 1, onDevice(rootQdisc)},
	}
}

var xdpFlags = map[string]int{
	"none": 0, "skb": unix.XDP_FLAGS_SKB_MODE, "drv": unix.XDP_FLAGS_DRV_MODE, "hw": unix.XDP_FLAGS_HW_MODE,
	"noexist": unix.XDP_FLAGS_UPDATE_IF_NOEXIST, "replace": unix.XDP_FLAGS_REPLACE,
}

func flagsOf(text string) (int, error) {
	flags := 0
	for name := range strings.SplitSeq(text, ",") {
		f, ok := xdpFlags[name]
		if !ok {
			return 0, fmt.Errorf("unknown flag %q", name)
		}
		flags |= f
	}
	return flags, nil
}

func xdpOff(l netlink.Link, args []string) error {
	flags := 0
	if len(args) > 0 {
		var err error
		if flags, err = flagsOf(args[0]); err != nil {
			return err
		}
	}
	return netlink.LinkSetXdpFdWithFlags(l, -1, flags)
}

func xdpSet(l netlink.Link, args []string) error {
	flags, err := flagsOf(args[0])
	if err != nil {
		return err
	}
	p, err := allow(ebpf.XDP, ebpf.AttachXDP, 2) // XDP_PASS
	if err != nil {
		return err
	}
	defer p.Close()
	if flags&unix.XDP_FLAGS_REPLACE == 0 {
		return netlink.LinkSetXdpFdWithFlags(l, p.FD(), flags)
	}
	old, err := programByID(args[1])
	if err != nil {
		return err
	}
	defer old.Close()
	return xdpReplace(l.Attrs().Index, p.FD(), old.FD(), flags)
}

func tcxHook(name string) (ebpf.AttachType, error) {
	switch name {
	case "in":
		return ebpf.AttachTCXIngress, nil
	case "out":
		return ebpf.AttachTCXEgress, nil
	}
	return 0, fmt.Errorf("unknown direction %q", name)
}

func tcxDetach(l netlink.Link, args []string) error {
	hook, err := tcxHook(args[0])
	if err != nil {
		return err
	}
	attr := attachAttr{target: l.Attrs().Index, kind: hook}
	p, err := programByID(args[1])
	if err != nil {
		return err
	}
	if p != nil {
		defer p.Close()
		attr.program = p.FD()
	}
	if len(args) > 2 {
		attr.flags = map[string]uint32{"first": unix.BPF_F_BEFORE, "last": unix.BPF_F_AFTER}[args[2]]
	}
	return bpfAttach(bpfProgDetach, attr)
}

func tcxAttach(l netlink.Link, args []string) error {
	hook, err := tcxHook(args[0])
	if err != nil {
		return err
	}
	verdict, err := strconv.ParseInt(args[2], 10, 32)
	if err != nil {
		return err
	}
	const redirect = 7
	instructions := asm.Instructions{asm.Mov.Imm(asm.R0, int32(verdict)), asm.Return()}
	if verdict == redirect { // to where the packet wanted to go anyway
		instructions = asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(l.Attrs().Index)), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return(),
		}
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "thief", Type: ebpf.SchedCLS, AttachType: hook, License: "Dual BSD/GPL", Instructions: instructions,
	})
	if err != nil {
		return err
	}
	defer p.Close()
	attr := attachAttr{target: l.Attrs().Index, program: p.FD(), kind: hook, flags: unix.BPF_F_BEFORE}
	if args[1] == "replace" {
		old, err := programByID(args[3])
		if err != nil {
			return err
		}
		defer old.Close()
		attr.flags, attr.replace = unix.BPF_F_REPLACE, old.FD()
	}
	return bpfAttach(bpfProgAttach, attr)
}

func qdiscAttrs(l netlink.Link, handle, parent uint32) netlink.QdiscAttrs {
	return netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: handle, Parent: parent}
}

// clsact leaves a qdisc with filters that decide about every packet: whoever comes
// after them in the same chain is not asked.
func clsact(l netlink.Link, _ []string) error {
	q := &netlink.Clsact{QdiscAttrs: qdiscAttrs(l, netlink.MakeHandle(0xffff, 0), netlink.HANDLE_CLSACT)}
	if err := netlink.QdiscAdd(q); err != nil {
		return err
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		// Matches everything; small kernels have no matchall.
		f := &netlink.U32{FilterAttrs: netlink.FilterAttrs{
			LinkIndex: l.Attrs().Index, Parent: parent, Priority: 1, Protocol: unix.ETH_P_ALL,
		}, ClassId: netlink.MakeHandle(1, 1)}
		if err := netlink.FilterAdd(f); err != nil {
			return err
		}
	}
	return nil
}

func clsactDel(l netlink.Link, _ []string) error {
	return netlink.QdiscDel(&netlink.Clsact{QdiscAttrs: qdiscAttrs(l, netlink.MakeHandle(0xffff, 0), netlink.HANDLE_CLSACT)})
}

// flush says no kind: then the kernel deletes all.
func flush(l netlink.Link, _ []string) error {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		req := nl.NewNetlinkRequest(unix.RTM_DELTFILTER, unix.NLM_F_ACK)
		req.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(l.Attrs().Index), Parent: parent})
		if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
			return err
		}
	}
	return nil
}

func ingress(l netlink.Link, _ []string) error {
	q := &netlink.Ingress{QdiscAttrs: qdiscAttrs(l, netlink.MakeHandle(0xffff, 0), netlink.HANDLE_INGRESS)}
	if err := netlink.QdiscAdd(q); err != nil {
		return err
	}
	return netlink.QdiscDel(q)
}

func rootQdisc(l netlink.Link, _ []string) error {
	q := &netlink.GenericQdisc{QdiscAttrs: qdiscAttrs(l, netlink.MakeHandle(1, 0), netlink.HANDLE_ROOT), QdiscType: "pfifo_fast"}
	if err := netlink.QdiscReplace(q); err != nil {
		return os.NewSyscallError("netlink", err)
	}
	return netlink.QdiscDel(q)
}
