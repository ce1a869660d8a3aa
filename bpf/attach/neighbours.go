// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// Order is where a program stands at its hook.
type Order struct {
	// Known is false for hooks that take one program, and for those whose order makes
	// no difference; then nothing else is set.
	Known bool
	// There says that the kernel has the program at the hook.
	There bool
	// InFront are the ids of the programs that run before it, whoever's they are.
	InFront []uint32
	// Behind are those that run after it and may rewrite what it has decided on: at
	// hooks of cgroups that rewrite anything.
	Behind []uint32
}

// OrderOf finds program id at its hook. Those in front on an interface can end the
// chain. All programs of a cgroup run, but those in front may rewrite what ours then
// see, at hooks that rewrite anything, and those behind what ours have allowed: programs
// of the cgroup itself come before those of the cgroups above. For interface hooks side must be what Resolve
// returned. On tcx/ingress a program at XDP counts: it sees packets before.
func OrderOf(hook specs.Hook, side specs.Side, t Target, id uint32) (Order, error) {
	_, at, err := hooks.Types(hook)
	if err != nil {
		return Order{}, err
	}
	switch {
	case rewrites(hook) && t.Cgroup != nil:
		// What is in force on a cgroup includes programs above that go first.
		_, ids, err := progQuery(int(t.Cgroup.Dir.Fd()), uint32(at), queryEffective)
		o := orderIn(ids, id)
		if o.There {
			o.Behind = ids[len(o.InFront)+1:]
		}
		return o, err
	case hook.Target() == specs.TargetInterface && t.Interface != nil:
		dev, run := &t.Interface.Device, t.Interface.Netns.Do
		if side == specs.SideHost {
			if t.Interface.Peer == nil {
				return Order{}, target.ErrNoPeer
			}
			dev, run = t.Interface.Peer, target.InOwnNetns
		}
		var o Order
		err := run(func() (err error) {
			o, err = orderOn(dev, hook, at, id)
			return err
		})
		return o, err
	}
	return Order{}, nil
}

// orderOn is OrderOf for a device. It is called in the device's namespace.
func orderOn(dev *target.Device, hook specs.Hook, at ebpf.AttachType, id uint32) (Order, error) {
	var xdp []uint32
	if dev.XDP && hook != specs.HookTCXEgress {
		xdp = xdpOf(dev)
	}
	if hook == specs.HookXDP {
		return Order{Known: true, There: slices.Contains(xdp, id)}, nil
	}
	_, ids, err := progQuery(dev.Index, uint32(at), 0)
	if err != nil {
		return Order{}, err
	}
	o := orderIn(ids, id)
	o.InFront = append(xdp, o.InFront...)
	return o, nil
}

func orderIn(ids []uint32, id uint32) Order {
	i := slices.Index(ids, id)
	return Order{Known: true, There: i >= 0, InFront: ids[:max(i, 0)]}
}

// xdpOf returns the program at XDP of a device in the caller's namespace.
func xdpOf(dev *target.Device) []uint32 {
	l, err := netlink.LinkByIndex(dev.Index)
	if err != nil || l.Attrs().Xdp == nil || l.Attrs().Xdp.ProgId == 0 {
		return nil // gone since
	}
	return []uint32{l.Attrs().Xdp.ProgId}
}

// rewrites reports whether programs at a hook of cgroups can change what those after
// them see: addresses, values of options.
func rewrites(hook specs.Hook) bool {
	if hook.Target() != specs.TargetCgroup {
		return false
	}
	switch hook {
	case "cgroup_skb/ingress", "cgroup_skb/egress", "cgroup/dev", "cgroup/sock_create", "cgroup/sock_release",
		"cgroup/post_bind4", "cgroup/post_bind6", "lsm_cgroup":
		return false
	}
	return true
}

// ProgramText names a program as messages do: "program 12 (name)".
func ProgramText(id uint32) string {
	p, err := programByID(id)
	if err != nil {
		p = program{id: id}
	}
	return p.String()
}
