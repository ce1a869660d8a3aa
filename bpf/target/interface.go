// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/linkpin/linkpin/specs/fault"
)

// maxInterfaces bounds how many interfaces of one namespace are looked at. Whoever
// has CAP_NET_ADMIN there could make any number, and each may cost a grace period.
const maxInterfaces = 1024

// dumpTries is how often a dump is read again when the kernel says that the list
// changed under it (NLM_F_DUMP_INTR).
const dumpTries = 8

// Interfaces returns every interface of the namespace but loopback devices.
func (n *Netns) Interfaces() ([]Interface, error) {
	return n.interfaces(func() ([]netlink.Link, error) {
		all, err := dump(netlink.LinkList)
		if err != nil {
			return nil, err
		}
		var links []netlink.Link
		for _, l := range all {
			if l.Attrs().Flags&net.FlagLoopback == 0 {
				links = append(links, l)
			}
		}
		if len(links) > maxInterfaces {
			return nil, fmt.Errorf("it has %d interfaces, more than %d", len(links), maxInterfaces)
		}
		return links, nil
	})
}

// Interface returns the interface of that name, loopback or not; ErrGone if there is
// none. Alternative names do not count.
func (n *Netns) Interface(name string) (*Interface, error) {
	is, err := n.interfaces(func() ([]netlink.Link, error) {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return nil, linkErr(name, err)
		}
		if l.Attrs().Name != name {
			return nil, linkErr(name, netlink.LinkNotFoundError{})
		}
		return []netlink.Link{l}, nil
	})
	if err != nil {
		return nil, err
	}
	return &is[0], nil
}

func linkErr(name string, err error) error {
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return fmt.Errorf("interface %s %w", name, ErrGone)
	}
	return fmt.Errorf("interface %s: %w", name, err)
}

// interfaces describes the links that list returns, which is called inside the namespace.
func (n *Netns) interfaces(list func() ([]netlink.Link, error)) ([]Interface, error) {
	var links []netlink.Link
	var addrs []netlink.Addr
	err := n.Do(func() (err error) {
		if links, err = list(); err != nil {
			return err
		}
		addrs, err = dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
		return err
	})
	if err != nil {
		return nil, fault.New("network namespace "+n.Path, err, "")
	}
	is := make([]Interface, len(links))
	for i, l := range links {
		is[i] = Interface{Netns: n, Device: device(l), Addresses: addresses(addrs, l.Attrs().Index)}
		is[i].DiesWithNetns = diesWithNetns(is[i].Kind)
	}
	elsewhere(func() { err = n.findPeers(links, is) })
	if err != nil {
		return nil, fault.New("network namespace "+n.Path, err, "")
	}
	return is, nil
}

// findPeers sets the peers of veth devices that are in our own namespace. It is
// called there. links[i] is what rtnetlink says of is[i].
//
// A peer must be a veth whose own peer is this very device in this very namespace:
// an ifindex alone means nothing, since each namespace counts its own.
func (n *Netns) findPeers(links []netlink.Link, is []Interface) error {
	for i, l := range links {
		a := l.Attrs()
		if is[i].Kind != "veth" || a.NetNsID < 0 || a.ParentIndex <= 0 {
			continue // NetNsID is there only if the peer is in another namespace
		}
		peer, err := netlink.LinkByIndex(a.ParentIndex)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue // in a third namespace
		}
		if err != nil {
			return fmt.Errorf("peer of %s: %w", a.Name, err)
		}
		p := peer.Attrs()
		if peer.Type() != "veth" || p.ParentIndex != a.Index || p.NetNsID < 0 {
			continue
		}
		// Asked only now: the kernel gave the namespace its id here while it
		// answered the request before, if it had none.
		id, err := netlink.GetNetNsIdByFd(int(n.File.Fd()))
		if err != nil {
			return fmt.Errorf("id of the namespace: %w", err)
		}
		if id != p.NetNsID {
			continue
		}
		d := device(peer)
		is[i].Peer = &d
	}
	return nil
}

func device(l netlink.Link) Device {
	a := l.Attrs()
	return Device{
		Name:  a.Name,
		Index: a.Index,
		MAC:   a.HardwareAddr,
		MTU:   a.MTU,
		Kind:  kind(l),
		Up:    a.Flags&net.FlagUp != 0,
		XDP:   a.Xdp != nil && a.Xdp.Attached,
	}
}

// kind returns IFLA_INFO_KIND. The netlink package has words of its own for two.
func kind(l netlink.Link) string {
	switch l.(type) {
	case *netlink.Device:
		return ""
	case *netlink.Tuntap:
		return "tun"
	}
	return l.Type()
}

// diesWithNetns says what becomes of a device when its namespace ends.
// default_device_exit_net (net/core/dev.c) gives a device back to the initial
// namespace if it has no rtnl_link_ops, or if these say netns_refund, which only CAN
// drivers do (drivers/net/can/dev/netlink.c, kernel 5.12); every other one is deleted
// by default_device_exit_batch. A device has rtnl_link_ops if and only if it has
// a kind.
func diesWithNetns(kind string) bool { return kind != "" && kind != "can" }

// addresses returns those of one interface, in the kernel's order.
func addresses(all []netlink.Addr, ifindex int) []netip.Prefix {
	var ps []netip.Prefix
	for _, a := range all {
		if a.LinkIndex != ifindex || a.IPNet == nil {
			continue
		}
		ip, ok := netip.AddrFromSlice(a.IP)
		if bits, _ := a.Mask.Size(); ok {
			ps = append(ps, netip.PrefixFrom(ip, bits))
		}
	}
	return ps
}

// dump reads a list again if it changed while the kernel wrote it.
func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumpTries {
		all, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return nil, fmt.Errorf("it does not stop changing: %w", err)
}
