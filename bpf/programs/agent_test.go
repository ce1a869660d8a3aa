// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// orderVariable holds the order, in JSON, for a copy of the test binary that was
// started inside a cgroup.
const orderVariable = "LINKPIN_TEST_ORDER"

// order is one use of a socket by a process inside a cgroup and network namespace.
type order struct {
	Do      string
	Netns   string         // path; empty: where the process is
	To      netip.AddrPort // whom to send to
	Local   uint16         // port to bind, 0 for any; packet sockets: the protocol they claim
	Payload []byte
	Device  string // packet sockets
	Bypass  bool   // packet sockets: PACKET_QDISC_BYPASS
}

// answer is what came of it.
type answer struct {
	Errno unix.Errno // 0: done
	Error string     // what is not an errno
}

// obey carries out an order and prints the answer. Servers print a first answer
// when they are ready. It returns the exit code.
func obey(text string) int {
	runtime.LockOSThread() // stays in the namespace
	time.AfterFunc(20*time.Second, func() { os.Exit(1) })
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return say(err)
	}
	if o.Netns != "" {
		f, err := os.Open(o.Netns)
		if err != nil {
			return say(err)
		}
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return say(err)
		}
	}
	do, ok := orders[o.Do]
	if !ok {
		return say(fmt.Errorf("no order %q", o.Do))
	}
	return say(do(o))
}

func say(err error) int {
	var a answer
	if err != nil && !errors.As(err, &a.Errno) {
		a.Error = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		return 1
	}
	return 0
}

var orders = map[string]func(order) error{
	"connect tcp":     func(o order) error { return connect(o, unix.SOCK_STREAM, 0) },
	"connect mptcp":   func(o order) error { return connect(o, unix.SOCK_STREAM, unix.IPPROTO_MPTCP) },
	"connect udp":     func(o order) error { return connect(o, unix.SOCK_DGRAM, 0) },
	"connect ping":    func(o order) error { return connect(o, unix.SOCK_DGRAM, icmpOf(o)) },
	"fast open":       fastOpen,
	"sendto udp":      func(o order) error { return sendTo(o, unix.SOCK_DGRAM, 0) },
	"sendto ping":     func(o order) error { return sendTo(o, unix.SOCK_DGRAM, icmpOf(o)) },
	"sendto raw icmp": func(o order) error { return sendTo(o, unix.SOCK_RAW, icmpOf(o)) },
	"sendto raw":      func(o order) error { return sendTo(o, unix.SOCK_RAW, unix.IPPROTO_RAW) }, // with its own header
	"mapped tcp":      func(o order) error { return mappedCall(o, unix.SOCK_STREAM) },
	"mapped udp":      func(o order) error { return mappedCall(o, unix.SOCK_DGRAM) },
	"packet":          packet,
	"inherited":       func(o order) error { return unix.Sendto(3, o.Payload, 0, sockaddr(o.To)) },
	"unix":            unixSocket,
	"loopback":        loopback,
	"serve tcp":       func(o order) error { return serveTCP(o, false) },
	"serve mptcp":     func(o order) error { return serveTCP(o, true) },
	"serve udp":       serveUDP,
	"serve and call":  serveAndCall,
	"receive udp":     receiveUDP,
}

func icmpOf(o order) int {
	if o.To.Addr().Is4() {
		return unix.IPPROTO_ICMP
	}
	return unix.IPPROTO_ICMPV6
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

// socket opens a socket of o.To's family, bound to o.Local. Sending and receiving
// end after a second.
func socket(o order, kind, proto int) (int, error) {
	family := unix.AF_INET6
	any := netip.IPv6Unspecified()
	if o.To.Addr().Is4() {
		family, any = unix.AF_INET, netip.IPv4Unspecified()
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, fmt.Errorf("socket: %s", err) // not an answer of a program
	}
	second := unix.Timeval{Sec: 1}
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &second); err != nil {
			return -1, err
		}
	}
	if o.Local == 0 {
		return fd, nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, sockaddr(netip.AddrPortFrom(any, o.Local)))
}

func connect(o order, kind, proto int) error {
	fd, err := socket(o, kind, proto)
	if err != nil {
		return err
	}
	return unix.Connect(fd, sockaddr(o.To))
}

func sendTo(o order, kind, proto int) error {
	fd, err := socket(o, kind, proto)
	if err != nil {
		return err
	}
	if proto != 0 {
		o.To = netip.AddrPortFrom(o.To.Addr(), 0) // raw IPv6 sockets want no port
	}
	return unix.Sendto(fd, o.Payload, 0, sockaddr(o.To))
}

// fastOpen connects by sending.
func fastOpen(o order) error {
	fd, err := socket(o, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	return unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, sockaddr(o.To))
}

// mappedCall reaches an IPv4 address through an IPv6 socket.
func mappedCall(o order, kind int) error {
	fd, err := unix.Socket(unix.AF_INET6, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to := &unix.SockaddrInet6{Port: int(o.To.Port()), Addr: o.To.Addr().As16()}
	if kind == unix.SOCK_DGRAM {
		return unix.Sendto(fd, []byte("x"), 0, to)
	}
	return unix.Connect(fd, to)
}

// packet sends a frame through a packet socket.
func packet(o order) error {
	device, err := net.InterfaceByName(o.Device)
	if err != nil {
		return errors.New(err.Error())
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if o.Bypass {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return err
		}
	}
	protocol := o.Local<<8 | o.Local>>8
	return unix.Sendto(fd, o.Payload, 0, &unix.SockaddrLinklayer{Ifindex: device.Index, Protocol: protocol})
}

func unixSocket(order) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fds[0], []byte("x"))
	return err
}

// loopback talks to itself: to o.To over TCP and UDP, both ways.
func loopback(o order) error {
	l, err := net.Listen("tcp", net.JoinHostPort("", "0"))
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("x")) // the other side sees it fail
			c.Close()
		}
	}()
	// Not net.Dial: for some addresses it dials on another thread, in another namespace.
	to := netip.AddrPortFrom(o.To.Addr(), uint16(l.Addr().(*net.TCPAddr).Port))
	fd, err := socket(o, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		return err
	}
	if _, err := unix.Read(fd, make([]byte, 1)); err != nil {
		return err
	}
	server, err := net.ListenUDP("udp", &net.UDPAddr{})
	if err != nil {
		return err
	}
	client, err := net.ListenUDP("udp", &net.UDPAddr{})
	if err != nil {
		return err
	}
	to = netip.AddrPortFrom(o.To.Addr(), uint16(server.LocalAddr().(*net.UDPAddr).Port))
	if _, err := client.WriteToUDPAddrPort([]byte("x"), to); err != nil {
		return err
	}
	return echo(server, client)
}

// echo answers one datagram and, if there is a client, waits for the answer.
func echo(server, client *net.UDPConn) error {
	b := make([]byte, 100)
	if err := server.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	n, from, err := server.ReadFromUDPAddrPort(b)
	if err != nil {
		return err
	}
	if _, err := server.WriteToUDPAddrPort(b[:n], from); err != nil || client == nil {
		return err
	}
	if err := client.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, _, err = client.ReadFromUDPAddrPort(b)
	return err
}

// serveTCP accepts one connection and sends back what it reads.
func serveTCP(o order, mptcp bool) error {
	config := net.ListenConfig{}
	config.SetMultipathTCP(mptcp) // the default of Go since 1.24
	l, err := config.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", o.Local))
	if err != nil {
		return err
	}
	say(nil)
	c, err := l.Accept()
	if err != nil {
		return err
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		return err
	}
	if _, err := c.Write(b[:n]); err != nil {
		return err
	}
	_, err = c.Read(b) // until the client has closed
	if err.Error() == "EOF" {
		return nil
	}
	return err
}

// serveUDP answers one datagram from the socket that received it.
func serveUDP(o order) error {
	server, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(o.Local)})
	if err != nil {
		return err
	}
	say(nil)
	return echo(server, nil)
}

// serveAndCall answers one datagram from another socket, which it binds to the same
// port and connects, as servers of DTLS and QUIC do. Then it calls back by TCP.
func serveAndCall(o order) error {
	fd, err := socket(o, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	say(nil)
	b := make([]byte, 100)
	n, from, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return err
	}
	if fd, err = socket(o, unix.SOCK_DGRAM, 0); err != nil {
		return err
	}
	if err := unix.Connect(fd, from); err != nil {
		return err
	}
	if _, err := unix.Write(fd, b[:n]); err != nil {
		return err
	}
	if fd, err = socket(o, unix.SOCK_STREAM, 0); err != nil {
		return err
	}
	if err := unix.Connect(fd, from); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("called back: %v", err)
	}
	return nil
}

// receiveUDP waits for one datagram.
func receiveUDP(o order) error {
	fd, err := socket(o, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	say(nil)
	_, _, err = unix.Recvfrom(fd, make([]byte, 100), 0)
	return err
}
