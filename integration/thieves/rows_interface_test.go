// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"errors"
	"os"

	"github.com/vishvananda/netlink"
)

// recreate replaces the container's veth pair by one that is like it. The end in the
// container gets the old one's index, or another one.
func recreate(s *scene, sameIndex bool) error {
	old, err := netlink.LinkByName(hostDevice)
	s.check(err)
	host, err := os.Open("/proc/1/ns/net")
	s.check(err)
	defer host.Close()
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: hostDevice, PeerNamespace: netlink.NsFd(int(host.Fd()))}
	pair.Name, pair.PeerHardwareAddr, pair.HardwareAddr = "eth0", mac(hostMAC), mac(containerMAC)
	s.inNetns(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			pair.Index = l.Attrs().Index
		}
		return err
	})
	if !sameIndex {
		pair.Index += 100
	}
	s.check(netlink.LinkDel(old))
	s.inNetns(func() error { return errors.Join(netlink.LinkAdd(pair), raise("eth0", containerIP+"/24")) })
	return raise(hostDevice, hostIP+"/24")
}

// awayAndBack moves the host's end to another namespace of the host and returns it.
func awayAndBack(s *scene) error {
	const elsewhere = "/run/netns-elsewhere"
	s.must("unshare", "--net="+touch(s, elsewhere), "true")
	defer s.must("umount", elsewhere)
	if err := s.thief("move-dev", hostDevice, elsewhere); err != nil {
		return err
	}
	// What runs meanwhile must not take the container for ended.
	s.run("linkpin", "verify")
	s.run("linkpin", "gc")
	if err := s.thief("in-netns", elsewhere, "move-dev", hostDevice, "/proc/1/ns/net"); err != nil {
		return err
	}
	return raise(hostDevice, hostIP+"/24")
}

func touch(s *scene, path string) string {
	s.check(os.WriteFile(path, nil, 0o600))
	return path
}

// beside adds a way out that no policy knows: a second veth pair to the host.
func beside(s *scene) error {
	ns, err := os.Open(netnsPath)
	s.check(err)
	defer ns.Close()
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth1", PeerNamespace: netlink.NsFd(int(ns.Fd()))}
	pair.Name = "veth1"
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	if err := raise("veth1", "10.80.0.1/24"); err != nil {
		return err
	}
	s.inNetns(func() error { return raise("eth1", "10.80.0.2/24") })
	return nil
}

var devicePorts = []string{"2001", "2003", "3001"}

var interfaceRows = []row{
	{
		name: "rename", what: "renaming the interface", host: holds, caps: holds, own: holds,
		note: "Links hold the device, not its name.",
		do: func(s *scene) error {
			return s.thief("rename", s.device(), "renamed0")
		},
		undo: func(s *scene) { s.check(s.thief("rename", "renamed0", s.device())) },
	},
	{
		name: "rename-detach", what: "renaming the interface, then `BPF_LINK_DETACH`", host: mended, caps: mended, own: none,
		do: func(s *scene) error {
			if err := s.thief("rename", s.device(), "renamed0"); err != nil {
				return err
			}
			return s.thief(append([]string{"link-detach"}, s.links()...)...)
		},
		undo: func(s *scene) { s.check(s.thief("rename", "renamed0", s.device())) }, used: true,
	},
	{
		name: "down-up", what: "setting the interface down and up", host: holds, caps: holds, own: holds, do: onDevice("down-up"),
	},
	{
		name: "mtu", what: "another MTU", host: holds, caps: holds, own: holds, do: onDevice("mtu"),
	},
	{
		name: "address", what: "another address", host: holds, caps: holds, own: holds, do: onDevice("address", "10.81.0.2/24"), used: true,
	},
	{
		name: "move", what: "moving the interface to another network namespace, sending from there, and moving it back", host: holds, caps: holds, own: holds,
		note: "Links stay on the device wherever it is.",
		do: func(s *scene) error {
			if s.actor == hostRoot {
				return awayAndBack(s)
			}
			return nil
		},
		by: []sender{func(s *scene, port, token string) error {
			if s.actor == hostRoot {
				_, err := s.inside("packet", port, token) // it is back
				return err
			}
			return s.thief("elsewhere", "eth0", "udp", port, token)
		}},
		ports: devicePorts,
		used:  true,
	},
	{
		name: "delete", what: "deleting the interface", host: holds, caps: holds, own: holds, noWay: true, severed: true,
		note: "The programs end with their device, and so does the way out.",
		do:   onDevice("delete"), used: true,
	},
	{
		name: "recreate", what: "deleting the interface and creating another one of that name", host: seen,
		note: "What is plugged in later is for whoever plugs it in to protect: CNI ADD does, or restart the container. `verify` says that it is another one.",
		do:   func(s *scene) error { return recreate(s, false) }, used: true,
	},
	{
		name: "recreate-index", what: "the same, where the new one has the same index in the container", host: mended,
		do: func(s *scene) error { return recreate(s, true) }, newTarget: true, used: true,
	},
	{
		name: "beside", what: "a second interface in the container, against interface programs", host: outside,
		note: "As above. Programs on the cgroup hold.",
		do:   beside,
		by:   []sender{inside("send-to", "10.80.0.1")}, ports: devicePorts,
		used: true,
	},
	{
		name: "beside-cgroup", what: "the same, against programs on the cgroup", host: holds,
		do: beside,
		by: []sender{inside("send-to", "10.80.0.1")}, ports: []string{"1002", "1003"},
		used: true,
	},
	{
		name: "veth-inside", what: "a veth pair inside the container", caps: holds, own: holds,
		note: "Nobody is at its other end.",
		do:   func(s *scene) error { return s.thief("veth", "thief0", "thief1") }, undo: func(s *scene) { _ = s.thief("delete", "thief0") },
	},
	{
		name: "macvlan", what: "a macvlan device on the interface, in a new network namespace", caps: holds, own: holds,
		note: "What lies on the interface sends through it.",
		by:   []sender{thief("in-macvlan", "eth0", "udp")}, ports: devicePorts,
		used: true,
	},
	{
		name: "bridge", what: "a bridge with the interface as its port", caps: holds, own: holds,
		do: func(s *scene) error { return s.thief("bridge", "eth0", "br0") }, used: true,
	},
	{
		name: "vxlan", what: "a tunnel (VXLAN) over a permitted port, against interface programs", caps: outside, own: outside,
		note: "Programs see the outer packet. What a permitted destination unpacks is its own affair: permit few, or refuse the tunnel's port.",
		do:   func(s *scene) error { return s.thief("vxlan", "vxlan0", "1000") },
		by:   []sender{thief("send-to", "10.78.0.1")}, ports: devicePorts, at: 1000, used: true,
	},
	{
		name: "vxlan-cgroup", what: "the same, against programs on the cgroup", caps: holds, own: holds,
		note: "The socket sends the inner packet, and the cgroup's programs see that one.",
		do:   func(s *scene) error { return s.thief("vxlan", "vxlan0", "1000") },
		by:   []sender{thief("send-to", "10.78.0.1")}, ports: []string{"1002", "1003"}, at: 1000, used: true,
	},
}
