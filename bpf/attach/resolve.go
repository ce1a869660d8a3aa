// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"

	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// ErrUnseen means that a hook does not see packets of the direction that was asked for.
var ErrUnseen = errors.New("sees no packets of that direction")

// Resolve returns the side and the hook of an attachment for one interface.
//
// Hooks are the device's: what a container sends arrives at the host side (XDP and
// tcx/ingress there) and leaves the container side (tcx/egress there), and what it
// receives the other way round. XDP sees only what arrives. With SideAuto, XDP goes to
// the side that sees the direction, tcx to the host side where there is one (out of
// the container's reach), else to the container's.
//
// Errors are *fault.Error: target.ErrNoPeer if the host side is needed and there
// is none, ErrUnseen if XDP would see the wrong direction.
func Resolve(a specs.Attachment, i *target.Interface) (specs.Side, specs.Hook, error) {
	side, hook, err := resolve(a, i)
	if err != nil {
		return "", "", explain(a, Target{Interface: i}, err)
	}
	return side, hook, nil
}

func resolve(a specs.Attachment, i *target.Interface) (specs.Side, specs.Hook, error) {
	if a.Hook.Target() != specs.TargetInterface {
		return "", "", fmt.Errorf("%q is not a hook of interfaces", string(a.Hook))
	}
	xdp := a.Hook == specs.HookXDP
	side := a.Side
	switch side {
	case specs.SideHost, specs.SideContainer:
	case specs.SideAuto:
		switch {
		case a.Direction == "":
			return "", "", errors.New("neither side nor direction was given")
		case xdp && a.Direction == specs.FromContainer, !xdp && i.Peer != nil:
			side = specs.SideHost
		default:
			side = specs.SideContainer
		}
	default:
		return "", "", fmt.Errorf("%q is not a side: host or container", string(side))
	}
	if side == specs.SideHost && i.Peer == nil {
		err := fmt.Errorf("%s (%s) %w", i.Name, kindText(i.Kind), target.ErrNoPeer)
		if xdp && a.Side == specs.SideAuto {
			return "", "", remedy(fmt.Errorf("XDP sees what the container sends on the host side alone, and %w", err), "attach it at tcx instead")
		}
		return "", "", remedy(err, "attach it with `side: container`")
	}

	var arrives bool // at the device of that side
	switch a.Direction {
	case "":
		return side, a.Hook, nil
	case specs.FromContainer:
		arrives = side == specs.SideHost
	case specs.ToContainer:
		arrives = side == specs.SideContainer
	default:
		return "", "", fmt.Errorf("%q is not a direction: to-container or from-container", string(a.Direction))
	}
	switch {
	case xdp && !arrives:
		return "", "", remedy(fmt.Errorf("XDP on the %s side %w: %s", side, ErrUnseen, a.Direction), "attach it at tcx instead, or on the other side")
	case xdp:
		return side, specs.HookXDP, nil
	case arrives:
		return side, specs.HookTCXIngress, nil
	}
	return side, specs.HookTCXEgress, nil
}

func kindText(kind string) string {
	if kind == "" {
		return "physical"
	}
	return kind
}
