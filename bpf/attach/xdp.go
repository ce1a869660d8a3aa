// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// attachXDP makes an XDP link. It is called in the device's namespace. Mode auto, or
// none, takes the driver's mode where the driver does it for this program and this
// device, and generic mode otherwise; Link.Mode tells which.
func attachXDP(prog *ebpf.Program, mode specs.XDPMode, dev *target.Device) (*Link, error) {
	switch mode {
	case specs.XDPNative:
		l, err := linkXDP(prog, mode, dev)
		if err != nil && !decided(err) {
			return nil, remedy(err, "the driver does not take it: set `mode: generic` or `mode: auto`, `frags: true` for a large MTU, or another interface")
		}
		return l, err
	case specs.XDPGeneric:
		return linkXDP(prog, mode, dev)
	case specs.XDPAuto, "":
	default:
		return nil, fmt.Errorf("%q is not a mode of XDP", string(mode))
	}
	l, native := linkXDP(prog, specs.XDPNative, dev)
	if native == nil || decided(native) {
		return l, native
	}
	l, err := linkXDP(prog, specs.XDPGeneric, dev)
	if err != nil {
		return nil, fmt.Errorf("%w (after native mode: %w)", err, native)
	}
	return l, nil
}

// decided reports whether an error of one mode is that of every mode. The others
// are the driver's: EOPNOTSUPP, ERANGE for the MTU, ENOSPC for the queues, EINVAL.
func decided(err error) bool {
	for _, e := range []error{ErrBusy, target.ErrGone, ErrUnsupported, unix.EPERM, unix.ENOMEM, unix.EBADF} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func linkXDP(prog *ebpf.Program, mode specs.XDPMode, dev *target.Device) (*Link, error) {
	flags := link.XDPGenericMode
	if mode == specs.XDPNative {
		flags = link.XDPDriverMode
	}
	raw, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: dev.Index, Flags: flags})
	if err == nil {
		l, err := wrapLink(raw)
		if err == nil {
			l.mode = mode
		}
		return l, err
	}
	now, gone := device(dev)
	switch {
	case gone:
		return nil, fmt.Errorf("the device %w (%w)", target.ErrGone, err)
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		// EEXIST: the other mode is in use (dev_xdp_attach in net/core/dev.c).
		return nil, remedy(fmt.Errorf("%s: the hook, which takes one program, %w (%w)", holder(now), ErrBusy, err),
			"take the other program off, or make one XDP program of the two")
	case errors.Is(err, unix.EINVAL), errors.Is(err, ebpf.ErrNotSupported):
		if u := unsupported(specs.HookXDP, err); u != nil {
			return nil, u
		}
	}
	return nil, fmt.Errorf("%s mode: %w", mode, err)
}

// device looks the device up again; gone if it has left the namespace or is another one.
func device(dev *target.Device) (now netlink.Link, gone bool) {
	now, err := netlink.LinkByIndex(dev.Index)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, true
	}
	if err != nil {
		return nil, false
	}
	return now, false
}

// holder names whose program is on a device.
func holder(l netlink.Link) string {
	if l == nil || l.Attrs().Xdp == nil || l.Attrs().Xdp.ProgId == 0 {
		return "another program is there"
	}
	p, err := programByID(l.Attrs().Xdp.ProgId)
	if err != nil {
		p = program{id: l.Attrs().Xdp.ProgId}
	}
	return p.String() + " is there"
}
