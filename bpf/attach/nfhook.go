// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// What nfnetlink_hook speaks (include/uapi/linux/netfilter/nfnetlink_hook.h, kernel
// 5.14; programs since 6.4). All numbers are in network order.
const (
	subsysHook     = 12 // NFNL_SUBSYS_HOOK
	msgHookGet     = 0  // NFNL_MSG_HOOK_GET
	attrHookNum    = 1  // NFNLA_HOOK_HOOKNUM
	attrPriority   = 2  // NFNLA_HOOK_PRIORITY
	attrChainInfo  = 6  // NFNLA_HOOK_CHAIN_INFO
	attrInfoDesc   = 1  // NFNLA_HOOK_INFO_DESC
	attrInfoType   = 2  // NFNLA_HOOK_INFO_TYPE
	attrProgramID  = 1  // NFNLA_HOOK_BPF_ID
	hookTypeBPF    = 2  // NFNL_HOOK_TYPE_BPF
	nlaTypeMask    = 0x3fff
	hookDumpTries  = 8
	sizeofNfgenmsg = 4
	dumpTimeout    = 5 // seconds: the kernel answers at once
)

// NetfilterProgram is a program that stands at a hook of netfilter.
type NetfilterProgram struct {
	ID       uint32
	Priority int32
}

// NetfilterPrograms lists the programs at one hook of a namespace: whether a
// netfilter link is still attached can't be seen from the link. ErrUnsupported if the
// kernel has no nfnetlink_hook (CONFIG_NETFILTER_NETLINK_HOOK).
func NetfilterPrograms(n *target.Netns, nf *specs.Netfilter) ([]NetfilterProgram, error) {
	opts, err := netfilterOptions(nil, nf)
	if err != nil {
		return nil, err
	}
	var msgs [][]byte
	err = n.Do(func() (err error) {
		for range hookDumpTries {
			req := nl.NewNetlinkRequest(subsysHook<<8|msgHookGet, unix.NLM_F_DUMP)
			req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(opts.ProtocolFamily), Version: nl.NFNETLINK_V0})
			hook := binary.BigEndian.AppendUint32(nil, uint32(opts.Hook))
			req.AddData(nl.NewRtAttr(attrHookNum, hook))
			msgs, err = dump(req)
			if !errors.Is(err, nl.ErrDumpInterrupted) {
				return err
			}
		}
		return err
	})
	switch {
	// EINVAL is what nfnetlink says to a subsystem that it does not have.
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return nil, fmt.Errorf("nfnetlink_hook: %w (%w)", ErrUnsupported, err)
	case err != nil:
		return nil, fmt.Errorf("nfnetlink_hook: %w", err)
	}
	var programs []NetfilterProgram
	for _, m := range msgs {
		p, ok, err := parseNetfilterHook(m)
		if err != nil {
			return nil, fmt.Errorf("nfnetlink_hook: %w", err)
		}
		if ok {
			programs = append(programs, p)
		}
	}
	return programs, nil
}

// dump sends a request to the kernel and returns the answers. The library's own way leaves out
// those that are not addressed to the sender's port, and nfnetlink_hook says 0 there.
func dump(req *nl.NetlinkRequest) (msgs [][]byte, err error) {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.SetReceiveTimeout(&unix.Timeval{Sec: dumpTimeout}); err != nil {
		return nil, err
	}
	if err := s.Send(req); err != nil {
		return nil, err
	}
	for {
		got, from, err := s.Receive()
		if err != nil {
			return nil, err
		}
		for _, m := range got {
			switch {
			case from.Pid != 0 || m.Header.Seq != req.Seq: // not the kernel, or not about this
			case m.Header.Flags&unix.NLM_F_DUMP_INTR != 0:
				return nil, nl.ErrDumpInterrupted
			case m.Header.Type == unix.NLMSG_DONE, m.Header.Type == unix.NLMSG_ERROR:
				if len(m.Data) >= 4 {
					if code := int32(binary.NativeEndian.Uint32(m.Data)); code < 0 {
						return nil, unix.Errno(-code)
					}
				}
				return msgs, nil
			default:
				msgs = append(msgs, slices.Clone(m.Data))
			}
		}
	}
}

// parseNetfilterHook reads one answer; ok is false for a hook that is no program.
func parseNetfilterHook(m []byte) (p NetfilterProgram, ok bool, err error) {
	if len(m) < sizeofNfgenmsg {
		return p, false, errors.New("an answer is cut off")
	}
	attrs, err := attributes(m[sizeofNfgenmsg:])
	if err != nil {
		return p, false, err
	}
	info, err := attributes(attrs[attrChainInfo])
	if err != nil {
		return p, false, err
	}
	kind, known := be32(info[attrInfoType])
	if !known || kind != hookTypeBPF {
		return p, false, nil
	}
	desc, err := attributes(info[attrInfoDesc])
	if err != nil {
		return p, false, err
	}
	id, hasID := be32(desc[attrProgramID])
	priority, hasPriority := be32(attrs[attrPriority])
	if !hasID || !hasPriority {
		return p, false, errors.New("an answer about a program lacks its id or priority")
	}
	return NetfilterProgram{ID: id, Priority: int32(priority)}, true, nil
}

// attributes parses netlink attributes by type.
func attributes(b []byte) (map[int][]byte, error) {
	list, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil, err
	}
	out := make(map[int][]byte, len(list))
	for _, a := range list {
		out[int(a.Attr.Type&nlaTypeMask)] = a.Value
	}
	return out, nil
}

func be32(b []byte) (uint32, bool) {
	if len(b) < 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b), true
}
