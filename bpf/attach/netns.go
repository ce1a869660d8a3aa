// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/target"
)

// attachNetns makes a link of sk_lookup or flow_dissector. The limits are in
// kernel/bpf/net_namespace.c and net/core/flow_dissector.c.
func attachNetns(prog *ebpf.Program, at ebpf.AttachType, n *target.Netns) (*Link, error) {
	l, err := link.AttachRawLink(link.RawLinkOptions{
		Target:  int(n.File.Fd()),
		Program: prog,
		Attach:  at,
	})
	if err == nil {
		return wrapLink(l)
	}
	dissector := at == ebpf.AttachFlowDissector
	switch {
	case errors.Is(err, unix.E2BIG) && dissector:
		return nil, remedy(fmt.Errorf("another program is there: the hook, which takes one program for each namespace, %w (%w)", ErrBusy, err),
			"take the other program off")
	case errors.Is(err, unix.E2BIG):
		return nil, remedy(fmt.Errorf("it has 64 programs and %w (%w)", ErrFull, err), "take one of them off")
	case errors.Is(err, unix.EEXIST) && dissector:
		return nil, remedy(fmt.Errorf("a program is attached to this namespace without a link, or to the host's for all of them: the hook %w (%w)", ErrBusy, err),
			"take that program off: bpftool net show")
	case errors.Is(err, unix.EEXIST):
		return nil, remedy(fmt.Errorf("a program is attached without a link: the hook %w (%w)", ErrBusy, err), "take that program off")
	case errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("the network namespace %w (%w)", target.ErrGone, err)
	}
	return nil, err
}
