// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// ipDefrag is BPF_F_NETFILTER_IP_DEFRAG (include/uapi/linux/bpf.h).
// link.NetfilterIPDefrag is 0 in cilium/ebpf 0.22, so that it asks for nothing.
const ipDefrag = 1 << 0

// conntrackDefrag is NF_IP_PRI_CONNTRACK_DEFRAG: programs that want whole packets
// must run behind it (net/netfilter/nf_bpf_link.c).
const conntrackDefrag = -400

var netfilterFamilies = map[string]link.NetfilterProtocolFamily{
	"ipv4": link.NetfilterProtoIPv4,
	"ipv6": link.NetfilterProtoIPv6,
}

var netfilterHooks = map[string]link.NetfilterInetHook{
	"prerouting":  link.NetfilterInetPreRouting,
	"input":       link.NetfilterInetLocalIn,
	"forward":     link.NetfilterInetForward,
	"output":      link.NetfilterInetLocalOut,
	"postrouting": link.NetfilterInetPostRouting,
}

// attachNetfilter makes a netfilter link. The kernel takes the caller's namespace.
// Such a link holds the namespace for as long as it exists.
func attachNetfilter(prog *ebpf.Program, a specs.Attachment, n *target.Netns) (*Link, error) {
	opts, err := netfilterOptions(prog, a.Netfilter)
	if err != nil {
		return nil, err
	}
	var raw link.Link
	err = n.Do(func() (err error) {
		raw, err = link.AttachNetfilter(opts)
		return err
	})
	switch {
	case err == nil:
		return wrapLink(raw)
	case errors.Is(err, unix.EBUSY):
		// nf_hook_entries_grow refuses a second program of the same priority.
		return nil, remedy(fmt.Errorf("another program has priority %d there: the place %w (%w)", opts.Priority, ErrBusy, err),
			"choose another priority")
	case errors.Is(err, unix.EAFNOSUPPORT):
		return nil, fmt.Errorf("%s %w (%w)", a.Netfilter.Family, ErrUnsupported, err)
	}
	return nil, err
}

func netfilterOptions(prog *ebpf.Program, nf *specs.Netfilter) (link.NetfilterOptions, error) {
	var none link.NetfilterOptions
	if nf == nil {
		return none, errors.New("family and hook were not given")
	}
	family, ok := netfilterFamilies[nf.Family]
	if !ok {
		return none, fmt.Errorf("%q is not a family: ipv4 or ipv6", nf.Family)
	}
	hook, ok := netfilterHooks[nf.Hook]
	if !ok {
		return none, fmt.Errorf("%q is not a hook: prerouting, input, forward, output or postrouting", nf.Hook)
	}
	if nf.Priority == math.MinInt32 || nf.Priority == math.MaxInt32 {
		return none, fmt.Errorf("priority %d is the first or last, which the kernel keeps for itself", nf.Priority)
	}
	opts := link.NetfilterOptions{Program: prog, ProtocolFamily: family, Hook: hook, Priority: nf.Priority}
	if nf.Defrag {
		if nf.Priority <= conntrackDefrag {
			return none, fmt.Errorf("priority %d is before defragmentation, which runs at %d", nf.Priority, conntrackDefrag)
		}
		opts.NetfilterFlags = ipDefrag
	}
	return opts, nil
}
