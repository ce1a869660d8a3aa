// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func deviceCommands() map[string]command {
	return map[string]command{
		"rename":   {"DEVICE NAME", 2, onDevice(rename)},
		"down-up":  {"DEVICE", 1, onDevice(downUp)},
		"delete":   {"DEVICE", 1, onDevice(func(l netlink.Link, _ []string) error { return netlink.LinkDel(l) })},
		"address":  {"DEVICE ADDRESS/BITS: add an address", 2, onDevice(addAddress)},
		"mtu":      {"DEVICE", 1, onDevice(func(l netlink.Link, _ []string) error { return netlink.LinkSetMTU(l, 1400) })},
		"move-dev": {"DEVICE NETNS: move it to another network namespace", 2, onDevice(moveDevice)},
		"set-up":   {"DEVICE ADDRESS/BITS: give it an address and raise it", 2, onDevice(setUp)},
		"macvlan":  {"DEVICE NAME: a macvlan device on it", 2, onDevice(macvlan)},
		"bridge":   {"DEVICE NAME: a bridge that has it as a port, and its address", 2, onDevice(bridge)},
		"veth":     {"NAME PEER", 2, veth},
		"vxlan":    {"NAME PORT: a tunnel to the host over UDP", 2, vxlan},
		"elsewhere": {"DEVICE COMMAND…: move it to a new network namespace, run another command of the thief there, move it back", 2,
			elsewhere},
		"in-macvlan": {"DEVICE COMMAND…: the same with a macvlan device on it", 2, inMacvlan},
		"in-netns":   {"NETNS COMMAND…: run another command of the thief in a network namespace", 2, inNetns},
	}
}

func onDevice(f func(l netlink.Link, rest []string) error) func([]string) error {
	return func(args []string) error {
		l, err := netlink.LinkByName(args[0])
		if err != nil {
			return err
		}
		return f(l, args[1:])
	}
}

// rename also raises the device again: it has to be down for that on old kernels.
func rename(l netlink.Link, args []string) error {
	return netlink.LinkSetName(l, args[0])
}

func downUp(l netlink.Link, _ []string) error {
	if err := netlink.LinkSetDown(l); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

func addAddress(l netlink.Link, args []string) error {
	a, err := netlink.ParseAddr(args[0])
	if err != nil {
		return err
	}
	return netlink.AddrAdd(l, a)
}

func setUp(l netlink.Link, args []string) error {
	if err := addAddress(l, args); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	// Until the kernel has noticed the carrier, the device drops everything.
	for range 300 {
		now, err := netlink.LinkByIndex(l.Attrs().Index)
		if err != nil || now.Attrs().OperState == netlink.OperUp || now.Attrs().OperState == netlink.OperUnknown {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

func moveDevice(l netlink.Link, args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	return netlink.LinkSetNsFd(l, int(f.Fd()))
}

func macvlan(l netlink.Link, args []string) error {
	m := &netlink.Macvlan{LinkAttrs: netlink.NewLinkAttrs(), Mode: netlink.MACVLAN_MODE_BRIDGE}
	m.Name, m.ParentIndex = args[0], l.Attrs().Index
	return netlink.LinkAdd(m)
}

func bridge(l netlink.Link, args []string) error {
	b := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	b.Name, b.HardwareAddr = args[0], l.Attrs().HardwareAddr
	if err := netlink.LinkAdd(b); err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(l, b); err != nil {
		return err
	}
	if a, err := netlink.ParseAddr(containerIP + "/24"); err == nil {
		_ = netlink.AddrDel(l, a) // it may have gone
	}
	return setUp(b, []string{containerIP + "/24"})
}

func veth(args []string) error {
	v := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: args[1]}
	v.Name = args[0]
	return netlink.LinkAdd(v)
}

func vxlan(args []string) error {
	var port int
	if _, err := fmt.Sscan(args[1], &port); err != nil {
		return err
	}
	v := &netlink.Vxlan{LinkAttrs: netlink.NewLinkAttrs(), VxlanId: 1, Group: net.ParseIP(hostIP), Port: port}
	v.Name = args[0]
	if err := netlink.LinkAdd(v); err != nil {
		return err
	}
	if err := setUp(v, []string{"10.78.0.2/24"}); err != nil {
		return err
	}
	// Who would answer on the inside does not matter here.
	peer, err := net.ParseMAC(hostMAC)
	if err != nil {
		return err
	}
	return netlink.NeighAdd(&netlink.Neigh{
		LinkIndex: v.Index, State: netlink.NUD_PERMANENT, IP: net.IPv4(10, 78, 0, 1), HardwareAddr: peer,
	})
}

// elsewhere needs CAP_SYS_ADMIN for a new network namespace.
func elsewhere(args []string) error { return moved(args[0], args[1:], false) }

// inMacvlan leaves the device itself where it is.
func inMacvlan(args []string) error { return moved(args[0], args[1:], true) }

func moved(name string, args []string, onTop bool) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	address := containerIP
	if onTop {
		address = "10.77.0.3"
		if err := macvlan(l, []string{"thief0"}); err != nil {
			return err
		}
		if l, err = netlink.LinkByName("thief0"); err != nil {
			return err
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	away, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer away.Close()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := netlink.LinkSetNsFd(l, int(away.Fd())); err != nil {
		return err
	}
	if err := unix.Setns(int(away.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := setUp(l, []string{address + "/24"}); err != nil {
		return err
	}
	// On the thread that is there.
	failed := commands[args[0]].run(args[1:])
	if onTop {
		return failed
	}
	if err := netlink.LinkSetNsFd(l, int(home.Fd())); err != nil {
		return err
	}
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := setUp(l, []string{address + "/24"}); err != nil {
		return err
	}
	return failed
}

func inNetns(args []string) error {
	runtime.LockOSThread()
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("setns", err)
	}
	return commands[args[1]].run(args[2:])
}
