// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// sendCommands are those that send TOKEN to PORT of the host's end, each in a way of its
// own. Whether it came is what the host's end says.
func sendCommands() map[string]command {
	all := map[string]command{}
	for name, f := range map[string]func(port int, token []byte) error{
		"udp":           udpSend,
		"udp-connected": func(port int, token []byte) error { return udpConnected(port, token, port) },
		"udp-switch":    func(port int, token []byte) error { return udpSwitch(port, token, false) },
		"udp-unspec":    func(port int, token []byte) error { return udpSwitch(port, token, true) },
		"udp-mapped":    udpMapped,
		"udp-bindtodev": udpBindToDevice,
		"udp-spoofed":   udpTransparent,
		"tcp":           func(port int, token []byte) error { return tcpSend(unix.AF_INET, 0, port, token) },
		"tcp-mapped":    func(port int, token []byte) error { return tcpSend(unix.AF_INET6, 0, port, token) },
		"mptcp":         func(port int, token []byte) error { return tcpSend(unix.AF_INET, unix.IPPROTO_MPTCP, port, token) },
		"tcp-fastopen":  fastOpen,
		"raw":           func(port int, token []byte) error { return rawSend(unix.IPPROTO_RAW, port, token) },
		"raw-udp":       func(port int, token []byte) error { return rawSend(unix.IPPROTO_UDP, port, token) },
		"packet":        func(port int, token []byte) error { return packetSend(port, token, false) },
		"packet-bypass": func(port int, token []byte) error { return packetSend(port, token, true) },
		"xsk":           xskSend,
		"uring-udp":     uringUDP,
		"uring-tcp":     uringTCP,
		"xdp-live":      xdpLive,
		"tun":           tunSend,
	} {
		all[name] = command{"PORT TOKEN", 2, func(args []string) error {
			port, err := strconv.Atoi(args[0])
			if err != nil {
				return err
			}
			return f(port, []byte(args[1]))
		}}
	}
	maps.Copy(all, map[string]command{
		"take":     {"SOCKET PORT TOKEN: the same on a socket that somebody hands over", 3, take},
		"send-to":  {"IP PORT TOKEN: the same to another address", 3, sendTo},
		"autobind": {"LOCAL PORT TOKEN: the same from a local port that was not asked for", 3, autobind},
	})
	return all
}

func socket(family, kind, protocol int, use func(fd int) error) error {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	return use(fd)
}

func udpSend(port int, token []byte) error {
	return socket(unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error { return unix.Sendto(fd, token, 0, v4(hostIP, port)) })
}

func sendTo(args []string) error {
	port, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	return socket(unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
		return unix.Sendto(fd, []byte(args[2]), 0, v4(args[0], port))
	})
}

func udpConnected(port int, token []byte, connect int) error {
	return socket(unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
		if err := unix.Connect(fd, v4(hostIP, connect)); err != nil {
			return err
		}
		_, err := unix.Write(fd, token)
		return err
	})
}

// permitted is a port that nobody forbids.
const permitted = 1000

// udpSwitch connects to where it may and sends elsewhere, after giving up the
// connection or not.
func udpSwitch(port int, token []byte, unspec bool) error {
	return socket(unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
		if err := unix.Connect(fd, v4(hostIP, permitted)); err != nil {
			return err
		}
		if unspec {
			var none unix.RawSockaddr // AF_UNSPEC is 0
			if err := rawConnect(fd, &none); err != nil {
				return err
			}
		}
		return unix.Sendto(fd, token, 0, v4(hostIP, port))
	})
}

func mapped(port int) *unix.SockaddrInet6 {
	sa := &unix.SockaddrInet6{Port: port}
	copy(sa.Addr[:], net.ParseIP(hostIP).To16())
	return sa
}

func udpMapped(port int, token []byte) error {
	return socket(unix.AF_INET6, unix.SOCK_DGRAM, 0, func(fd int) error { return unix.Sendto(fd, token, 0, mapped(port)) })
}

func udpBindToDevice(port int, token []byte) error {
	return socket(unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
		if err := unix.BindToDevice(fd, device); err != nil {
			return err
		}
		return unix.Sendto(fd, token, 0, v4(hostIP, port))
	})
}

// udpTransparent uses a source address that is not its own.
func udpTransparent(port int, token []byte) error {
	return socket(unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1); err != nil {
			return err
		}
		if err := unix.Bind(fd, v4("10.77.0.99", 0)); err != nil {
			return err
		}
		return unix.Sendto(fd, token, 0, v4(hostIP, port))
	})
}

func tcpSend(family, protocol, port int, token []byte) error {
	return socket(family, unix.SOCK_STREAM, protocol, func(fd int) error {
		var to unix.Sockaddr = v4(hostIP, port)
		if family == unix.AF_INET6 {
			to = mapped(port)
		}
		timeout := unix.NsecToTimeval(int64(patience))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
			return err
		}
		if err := unix.Connect(fd, to); err != nil {
			return err
		}
		_, err := unix.Write(fd, token)
		return err
	})
}

// fastOpen connects by sending.
func fastOpen(port int, token []byte) error {
	return socket(unix.AF_INET, unix.SOCK_STREAM, 0, func(fd int) error {
		timeout := unix.NsecToTimeval(int64(patience))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
			return err
		}
		if err := unix.Sendto(fd, token, unix.MSG_FASTOPEN, v4(hostIP, port)); err != nil {
			return err
		}
		// What was sent is on its way; closing must not turn it into a reset.
		time.Sleep(late)
		return nil
	})
}

// take gets a socket from who listens on the unix socket.
func take(args []string) error {
	port, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: args[0], Net: "unix"})
	if err != nil {
		return err
	}
	defer c.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	if _, _, _, _, err = c.ReadMsgUnix(make([]byte, 1), oob); err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	return unix.Sendto(fds[0], []byte(args[2]), 0, v4(hostIP, port))
}

// autobind narrows what the kernel chooses from to one port.
func autobind(args []string) error {
	port, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	to, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	const file = "/proc/sys/net/ipv4/ip_local_port_range"
	before, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, fmt.Appendf(nil, "%d %d", port, port), 0); err != nil {
		return err
	}
	defer os.WriteFile(file, before, 0)
	return socket(unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
		if err := unix.Connect(fd, v4(hostIP, to)); err != nil {
			return err
		}
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		if got := sa.(*unix.SockaddrInet4).Port; got != port {
			return fmt.Errorf("got port %d", got)
		}
		_, err = unix.Write(fd, []byte(args[2]))
		return err
	})
}
