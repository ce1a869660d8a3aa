// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"net"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// offer makes a UDP socket outside of the container's cgroup, in its network
// namespace or in ours, and hands it to the thief inside, who sends on it.
func offer(inContainer bool) sender {
	return func(s *scene, port, token string) error {
		s.Helper()
		path := filepath.Join(s.dir, "shared", "offer")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		s.check(err)
		defer l.Close()
		s.check(unix.Chmod(path, 0o777))
		var fd int
		open := func() (err error) {
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			return err
		}
		if inContainer {
			s.inNetns(open)
		} else {
			s.check(open())
		}
		defer unix.Close(fd)
		given := make(chan error, 1)
		go func() {
			c, err := l.AcceptUnix()
			if err == nil {
				defer c.Close()
				_, _, err = c.WriteMsgUnix([]byte("x"), unix.UnixRights(fd), nil)
			}
			given <- err
		}()
		_, err = s.inside("take", "/shared/offer", port, token)
		l.Close()
		<-given // it failed if nobody came
		return err
	}
}

// inBoth is for rows that are the same for both thieves inside.
func inBoth(c class, r row) row {
	r.caps, r.own = c, c
	return r
}

var socketRows = []row{
	inBoth(refused, row{
		name: "udp-ways", what: "UDP: connected elsewhere; disconnected (`AF_UNSPEC`); over IPv6 to an IPv4-mapped address; bound to the device",
		note: "The hooks run for every call that names an address.",
		by:   []sender{thief("udp-switch"), thief("udp-unspec"), thief("udp-mapped"), thief("udp-bindtodev")}, ports: []string{"1002"},
	}),
	inBoth(refused, row{
		name: "udp-connected", what: "UDP: connected, where `connect4` forbids it",
		by: []sender{thief("udp-connected")}, ports: []string{"1001", "1006"},
	}),
	inBoth(holds, row{
		name: "udp-spoofed", what: "UDP with a source address that is not its own (`IP_TRANSPARENT`)",
		by: []sender{thief("udp-spoofed")}, ports: append([]string{"1002", "1003"}, devicePorts...),
	}),
	inBoth(refused, row{
		name: "fastopen", what: "TCP fast open: connecting by `sendto`", by: []sender{thief("tcp-fastopen")}, ports: []string{"1001"},
	}),
	inBoth(refused, row{
		name: "mptcp", what: "an MPTCP socket", by: []sender{thief("mptcp")}, ports: []string{"1001"},
	}),
	inBoth(refused, row{
		name: "tcp-mapped", what: "TCP over IPv6 to an IPv4-mapped address, where `connect6` forbids it too",
		by: []sender{thief("tcp-mapped")}, ports: []string{"1001"},
	}),
	inBoth(outside, row{
		name: "tcp-mapped-4", what: "the same, where a policy has `connect4` only",
		note: "The kernel asks `connect6` about `::ffff:a.b.c.d`, and never `connect4`. Have a program for both.",
		by:   []sender{thief("tcp-mapped")}, ports: []string{"1007"},
	}),
	inBoth(refused, row{
		name: "io-uring", what: "io_uring: socket, connect and sendmsg by a worker of the kernel",
		note: "Its workers are in the cgroup of who started them.",
		by:   []sender{thief("uring-tcp")}, ports: []string{"1001"},
	}),
	inBoth(refused, row{
		name: "io-uring-udp", what: "the same for UDP", by: []sender{thief("uring-udp")}, ports: []string{"1002", "1003"},
	}),
	inBoth(outside, row{
		name: "raw", what: "raw sockets (`IPPROTO_RAW`, `SOCK_RAW` with UDP), against `connect` and `sendmsg`",
		note: "These hooks are about TCP and UDP sockets. Forbid raw sockets in `sock_create`, drop `CAP_NET_RAW`, or decide about packets.",
		by:   []sender{thief("raw"), thief("raw-udp")}, ports: []string{"1002"},
	}),
	inBoth(refused, row{
		name: "raw-packets", what: "the same, against `cgroup_skb`", by: []sender{thief("raw"), thief("raw-udp")}, ports: []string{"1003"},
	}),
	inBoth(outside, row{
		name: "packet", what: "packet sockets (`AF_PACKET`), against programs on the cgroup",
		note: "The kernel asks no cgroup program about them, `sock_create` neither. Add an interface program on the host's side, or drop `CAP_NET_RAW`.",
		by:   []sender{thief("packet")}, ports: []string{"1002", "1003"},
	}),
	inBoth(holds, row{
		name: "packet-device", what: "the same, against interface programs", by: []sender{thief("packet")}, ports: devicePorts,
	}),
	inBoth(outside, row{
		name: "packet-bypass", what: "packet sockets with `PACKET_QDISC_BYPASS`, against `tcx/egress` inside the container",
		note: "They go past tc on the sending side. Attach on the host's side.",
		by:   []sender{thief("packet-bypass")}, ports: []string{"3001"},
	}),
	inBoth(outside, row{
		name: "xsk", what: "AF_XDP sockets, against `tcx/egress` inside the container", note: "As above.",
		by: []sender{thief("xsk")}, ports: []string{"3001"},
	}),
	{
		name: "xdp-live", what: "XDP redirection to the interface, against `tcx/egress` inside the container", caps: outside, own: refused, note: "As above.",
		by: []sender{thief("xdp-live")}, ports: []string{"3001"},
	},
	inBoth(holds, row{
		name: "bypass-host", what: "these three, against programs on the host's side", note: "Whatever leaves the container comes in there.",
		by: []sender{thief("packet-bypass"), thief("xsk"), thief("xdp-live")}, ports: []string{"2001", "2003"},
	}),
	inBoth(outside, row{
		name: "tun", what: "a tun device and forwarding, against programs on the cgroup",
		note: "No socket of the cgroup sends what the kernel forwards. Programs on the interface see it.",
		by:   []sender{thief("tun")}, ports: []string{"1002", "1003"},
	}),
	inBoth(holds, row{
		name: "tun-device", what: "the same, against interface programs", by: []sender{thief("tun")}, ports: devicePorts,
	}),
	inBoth(outside, row{
		name: "handed", what: "a socket that a process outside made in the container's network namespace and handed in, against programs on the cgroup",
		note: "A socket belongs to the cgroup that made it. Whoever hands it in is outside, and is trusted. Programs on the interface hold.",
		by:   []sender{offer(true)}, ports: []string{"1002", "1003"},
	}),
	inBoth(holds, row{
		name: "handed-device", what: "the same, against interface programs", by: []sender{offer(true)}, ports: devicePorts,
	}),
	inBoth(outside, row{
		name: "handed-host", what: "the same with a socket of the host's network namespace", note: "Nothing of the container is in its way; as above.",
		by: []sender{offer(false)}, ports: []string{"2001"},
	}),
	inBoth(outside, row{
		name: "autobind", what: "a local port that `bind4` forbids, by narrowing `ip_local_port_range` to it",
		note: "The kernel chooses the port and asks nobody. Decide about packets, or mount /proc/sys read-only.",
		by:   []sender{thief("autobind", "10005")}, ports: []string{"1000"},
	}),
}
