// SPDX-License-Identifier: Apache-2.0

// Package attach makes bpf_links and reads them: one link for one program at one
// target, always of a kind that can be pinned. It never falls back to an attachment
// without a link (PROG_ATTACH, netlink XDP, clsact filters), which anybody could
// take off. A clsact filter (Filter) has to be asked for.
//
// A new link belongs to its descriptor: closing it detaches the program, unless the
// link was pinned before.
package attach

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// Target is what a program is attached to: the field that the hook's
// specs.Hook.Target asks for. The others may be nil, and are not looked at;
// specs.TargetKernel asks for none.
type Target struct {
	Cgroup    *target.Cgroup
	Interface *target.Interface
	Netns     *target.Netns
}

// Attach makes a link. For interface hooks a.Side and a.Hook must be what Resolve
// returned. The caller must Close the link; prog may be closed before.
//
// Errors are *fault.Error. Their causes are ErrUnsupported, ErrBusy, ErrExist,
// ErrFull, target.ErrGone, target.ErrNoPeer and target.ErrForbidden where these apply.
func Attach(prog *ebpf.Program, a specs.Attachment, t Target) (*Link, error) {
	l, err := attach(prog, a, t)
	if err != nil {
		return nil, explain(a, t, err)
	}
	l.prog = prog
	return l, nil
}

func attach(prog *ebpf.Program, a specs.Attachment, t Target) (*Link, error) {
	pt, at, err := hooks.Types(a.Hook)
	if err != nil {
		return nil, err
	}
	if prog == nil {
		return nil, errors.New("there is no program to attach")
	}
	if prog.Type() != pt {
		return nil, fmt.Errorf("a program of type %s can't be attached there, it takes %s", prog.Type(), pt)
	}
	switch a.Hook.Target() {
	case specs.TargetCgroup:
		if t.Cgroup == nil {
			return nil, errNoTarget
		}
		return attachCgroup(prog, at, t.Cgroup)
	case specs.TargetInterface:
		if t.Interface == nil {
			return nil, errNoTarget
		}
		return attachInterface(prog, at, a, t.Interface)
	case specs.TargetNetns:
		if t.Netns == nil {
			return nil, errNoTarget
		}
		if err := notHost(t.Netns); err != nil {
			return nil, err
		}
		if a.Hook == specs.HookNetfilter {
			return attachNetfilter(prog, a, t.Netns)
		}
		return attachNetns(prog, at, t.Netns)
	case specs.TargetKernel:
		return attachKernel(prog, at)
	}
	return nil, fmt.Errorf("%q has no target", string(a.Hook))
}

var errNoTarget = errors.New("its kind of target was not given")

// attachInterface attaches to one end of an interface. BPF_LINK_CREATE looks the
// ifindex up in the caller's namespace, so it is called in the device's.
func attachInterface(prog *ebpf.Program, at ebpf.AttachType, a specs.Attachment, i *target.Interface) (*Link, error) {
	var dev *target.Device
	var run func(func() error) error
	switch a.Side {
	case specs.SideHost:
		if i.Peer == nil {
			return nil, target.ErrNoPeer
		}
		dev, run = i.Peer, target.InOwnNetns
	case specs.SideContainer:
		if err := notHost(i.Netns); err != nil {
			return nil, err
		}
		dev, run = &i.Device, i.Netns.Do
	default:
		return nil, errors.New("its side was not resolved")
	}
	var l *Link
	err := run(func() (err error) {
		if a.Hook == specs.HookXDP {
			l, err = attachXDP(prog, a.Mode, dev)
		} else {
			l, err = attachTCX(prog, at, dev)
		}
		return err
	})
	return l, err
}

// notHost refuses the host's namespace. Whoever calls has checked it already; here
// it costs two system calls and would hit everybody on the host.
func notHost(n *target.Netns) error {
	host, err := n.IsHost()
	if err != nil {
		return err
	}
	if host {
		return fmt.Errorf("the host's network namespace %w", target.ErrForbidden)
	}
	return nil
}

// rawLink is what every link of cilium/ebpf is made of.
type rawLink interface {
	link.Link
	FD() int
}

func wrapLink(l link.Link) (*Link, error) {
	r, ok := l.(rawLink)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("link of type %T has no descriptor", l)
	}
	return &Link{raw: r}, nil
}

// object names the place of an attachment in messages. The caller names the policy
// and the program.
func object(a specs.Attachment, t Target) string {
	s := string(a.Hook)
	switch a.Hook.Target() {
	case specs.TargetCgroup:
		if t.Cgroup != nil {
			s += " of cgroup " + t.Cgroup.Path
		}
	case specs.TargetInterface:
		if t.Interface == nil {
			break
		}
		switch {
		case a.Side == specs.SideHost && t.Interface.Peer != nil:
			s += " of " + t.Interface.Peer.Name + " (host side of " + t.Interface.Name + ")"
		case a.Side == specs.SideHost:
			s += " of the host side of " + t.Interface.Name
		default:
			s += " of " + t.Interface.Name
		}
	case specs.TargetNetns:
		if t.Netns != nil {
			s += " of network namespace " + t.Netns.Path
		}
	case specs.TargetKernel:
		s += " of the kernel"
	}
	return s
}

// explain makes one line for the user out of what the kernel said.
func explain(a specs.Attachment, t Target, err error) error {
	f := fault.New(object(a, t), err, "")
	// With XDP, EOPNOTSUPP is a driver's: xdp.go tells the kernel's apart.
	if a.Hook != specs.HookXDP {
		if u := unsupported(a.Hook, err); u != nil {
			f.Cause = u
		}
	}
	var r *remedied
	switch {
	case errors.Is(f.Cause, ErrUnsupported):
		f.Exit = fault.ExitUnavailable
		f.Remedy = "take the program out of the policy, or use a kernel that has it"
		if feature(a.Hook) == tcxLink {
			f.Remedy += ", or allow an attachment without an owner with `tc: {fallback: clsact}`"
		}
		if errors.As(err, &r) {
			f.Remedy = r.remedy
		}
	case errors.As(err, &r):
		f.Remedy = r.remedy
	}
	return f
}
