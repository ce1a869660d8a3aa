// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs"
)

// The parents of rtnetlink's traffic control (include/uapi/linux/pkt_sched.h).
const (
	parentClsact  = 0xfffffff1 // TC_H_CLSACT, the same as TC_H_INGRESS
	parentIngress = 0xfffffff2 // TC_H_MIN_INGRESS below it
	parentEgress  = 0xfffffff3 // TC_H_MIN_EGRESS below it
	handleClsact  = 0xffff0000
)

// The kinds of qdisc that can stand at parentClsact. An "ingress" one has no egress:
// a filter that is meant for that would end up on ingress.
const (
	kindClsact  = "clsact"
	kindIngress = "ingress"
	kindBPF     = "bpf" // of a filter: cls_bpf
)

// maxFilterName is CLS_BPF_NAME_LEN without the NUL (net/sched/cls_bpf.c).
const maxFilterName = 255

// dumpTries is how often a dump is read again that changed while it was written.
const dumpTries = 8

// tcParent returns the parent of the filters at a hook.
func tcParent(h specs.Hook) (uint32, error) {
	switch h {
	case specs.HookTCXIngress:
		return parentIngress, nil
	case specs.HookTCXEgress:
		return parentEgress, nil
	}
	return 0, fmt.Errorf("%q is not a hook of tc", string(h))
}

// tcFilter is one filter as the kernel lists it. The kernel lists the priority
// itself too, with handle 0.
type tcFilter struct {
	kind     string
	chain    uint32
	priority uint16
	handle   uint32
	name     string // bpf only, as the following
	id       uint32
	tag      string
	direct   bool // the program's verdict is the filter's
}

// tcFilters lists the filters below a parent, of every chain, in the order in which
// the kernel asks them. It is empty if there is no such device or qdisc. It is called
// in the device's namespace.
func tcFilters(ifindex int, parent uint32) ([]tcFilter, error) {
	msgs, err := tcDump(unix.RTM_GETTFILTER, unix.RTM_NEWTFILTER, &nl.TcMsg{Ifindex: int32(ifindex), Parent: parent})
	if err != nil {
		return nil, fmt.Errorf("listing filters: %w", err)
	}
	var out []tcFilter
	for _, b := range msgs {
		head, attrs, err := parseTC(b)
		if err != nil {
			return nil, err
		}
		if int(head.Ifindex) != ifindex || head.Parent != parent {
			continue
		}
		f := tcFilter{priority: uint16(head.Info >> 16), handle: head.Handle}
		var options []byte
		for _, a := range attrs {
			switch a.Attr.Type &^ unix.NLA_F_NESTED {
			case nl.TCA_KIND:
				f.kind = text(a.Value)
			case nl.TCA_CHAIN:
				f.chain = u32(a.Value)
			case nl.TCA_OPTIONS:
				options = a.Value
			}
		}
		if f.kind == kindBPF {
			f.parseBPF(options)
		}
		out = append(out, f)
	}
	return out, nil
}

// parseBPF reads what cls_bpf tells of itself.
func (f *tcFilter) parseBPF(options []byte) {
	attrs, err := nl.ParseRouteAttr(options)
	if err != nil {
		return // not as we know it, so it is not ours
	}
	for _, a := range attrs {
		switch a.Attr.Type &^ unix.NLA_F_NESTED {
		case nl.TCA_BPF_NAME:
			f.name = text(a.Value)
		case nl.TCA_BPF_ID:
			f.id = u32(a.Value)
		case nl.TCA_BPF_TAG:
			f.tag = hex.EncodeToString(a.Value)
		case nl.TCA_BPF_FLAGS:
			f.direct = u32(a.Value)&nl.TCA_BPF_FLAG_ACT_DIRECT != 0
		}
	}
}

// qdiscKind returns the kind of the qdisc that takes a device's ingress and egress
// filters, "" if it has none. It is called in the device's namespace.
func qdiscKind(ifindex int) (string, error) {
	// The kernel lists those of every device.
	msgs, err := tcDump(unix.RTM_GETQDISC, unix.RTM_NEWQDISC, &nl.TcMsg{Ifindex: int32(ifindex)})
	if err != nil {
		return "", fmt.Errorf("listing qdiscs: %w", err)
	}
	for _, b := range msgs {
		head, attrs, err := parseTC(b)
		if err != nil {
			return "", err
		}
		if int(head.Ifindex) != ifindex || head.Parent != parentClsact {
			continue
		}
		for _, a := range attrs {
			if a.Attr.Type == nl.TCA_KIND {
				return text(a.Value), nil
			}
		}
	}
	return "", nil
}

func tcDump(get, reply int, head *nl.TcMsg) (msgs [][]byte, err error) {
	for range dumpTries {
		req := nl.NewNetlinkRequest(get, unix.NLM_F_DUMP)
		req.AddData(head)
		msgs, err = req.Execute(unix.NETLINK_ROUTE, uint16(reply))
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return msgs, err
		}
	}
	return nil, fmt.Errorf("they do not stop changing: %w", err)
}

func parseTC(b []byte) (*nl.TcMsg, []syscall.NetlinkRouteAttr, error) {
	if len(b) < nl.SizeofTcMsg {
		return nil, nil, errors.New("the kernel's answer is cut off")
	}
	attrs, err := nl.ParseRouteAttr(b[nl.SizeofTcMsg:])
	return nl.DeserializeTcMsg(b), attrs, err
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

// changeQdisc makes or deletes the clsact qdisc of a device.
func changeQdisc(cmd, flags, ifindex int) error {
	req := nl.NewNetlinkRequest(cmd, flags|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Ifindex: int32(ifindex), Handle: handleClsact, Parent: parentClsact})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kindClsact)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// changeFilter makes, replaces or deletes one filter. The descriptor of a program is
// for the first two, 0 otherwise.
func changeFilter(cmd, flags int, f *Filter, fd int) error {
	parent, err := tcParent(f.Hook)
	if err != nil {
		return err
	}
	// Without both, RTM_DELTFILTER would delete what is others'.
	if f.Priority == 0 || f.Handle == 0 || f.Ifindex <= 0 {
		return errors.New("the filter has no priority, handle or device")
	}
	req := nl.NewNetlinkRequest(cmd, flags|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{
		Ifindex: int32(f.Ifindex), Handle: f.Handle, Parent: parent,
		Info: uint32(f.Priority)<<16 | uint32(nl.Swap16(unix.ETH_P_ALL)),
	})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kindBPF)))
	if fd > 0 {
		options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
		options.AddRtAttr(nl.TCA_BPF_FD, nl.Uint32Attr(uint32(fd)))
		options.AddRtAttr(nl.TCA_BPF_NAME, nl.ZeroTerminated(f.Name))
		options.AddRtAttr(nl.TCA_BPF_FLAGS, nl.Uint32Attr(nl.TCA_BPF_FLAG_ACT_DIRECT))
		req.AddData(options)
	}
	_, err = req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// filterName is the name under which `tc filter show` lists a program.
func filterName(name string) string {
	return strings.ToValidUTF8(name[:min(len(name), maxFilterName)], "")
}
