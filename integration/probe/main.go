// SPDX-License-Identifier: Apache-2.0

// Command probe sends and receives in every way that a program in a container
// can, for the scripts of package integration. It is static and runs inside the
// containers.
//
// What it prints is one line: "ok", "timeout", or the name of the error number
// ("EPERM"), and for listeners one line per event. It exits 0 only for "ok".
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wait is how long one try may take: loopback and veth answer at once, so only
// what was dropped takes this long.
const wait = time.Second

const usage = `usage:
  probe tcp ADDRESS:PORT             connect
  probe udp ADDRESS:PORT             send a datagram on an unconnected socket, wait for its echo
  probe raw ADDRESS                  send a UDP packet to port 9 on a SOCK_RAW socket with a header of its own (IPv4)
  probe packet INTERFACE             send a frame on an AF_PACKET socket
  probe sniff INTERFACE              wait for such a frame
  probe fd N ADDRESS:PORT            send a datagram on the inherited UDP socket N
  probe hand SOCKET [ADDRESS:PORT]   make a UDP socket, or a TCP connection, and hand it to who listens on the unix socket
  probe keep SOCKET ADDRESS:PORT F   listen there, keep the UDP socket that is handed, send on it when the file F exists
  probe keep SOCKET connected F      the same with a connection: say something, wait for its echo
  probe bind ADDRESS:PORT            bind a UDP socket
  probe listen ADDRESS:PORT          TCP and UDP: accept, echo, say so, until killed
  probe give NETNS COMMAND…          run COMMAND with a UDP socket made in NETNS as descriptor 3
  probe xdp-off INTERFACE            take whatever XDP program off over netlink
  probe clsact INTERFACE             add a clsact qdisc with a filter, and delete it`

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(64)
	}
	err := run(os.Args[1], os.Args[2:])
	var errno unix.Errno
	switch {
	case err == nil:
		fmt.Println("ok")
	case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, unix.ETIMEDOUT) || isTimeout(err):
		fmt.Println("timeout")
		os.Exit(1)
	case errors.As(err, &errno):
		fmt.Println(unix.ErrnoName(errno))
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(2)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func run(kind string, args []string) error {
	switch kind {
	case "tcp":
		c, err := net.DialTimeout("tcp", args[0], wait)
		if err == nil {
			c.Close()
		}
		return err
	case "udp":
		return udp(args[0])
	case "raw":
		return raw(args[0])
	case "packet":
		return packet(args[0])
	case "sniff":
		return sniff(args[0])
	case "xdp-off":
		return xdpOff(args[0])
	case "clsact":
		return clsact(args[0])
	case "fd":
		return inherited(args)
	case "hand":
		return hand(args)
	case "keep":
		return keep(args)
	case "bind":
		u, err := net.ListenPacket("udp4", args[0])
		if err != nil {
			return err
		}
		return u.Close()
	case "listen":
		return listen(args[0])
	case "give":
		return give(args[0], args[1:])
	}
	return fmt.Errorf("unknown kind %q\n%s", kind, usage)
}

func udp(address string) error {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return err
	}
	// Not "udp": Go asks the loopback device, which is down here, whether IPv6 works.
	network := "udp4"
	if to.IP.To4() == nil {
		network = "udp6"
	}
	c, err := net.ListenUDP(network, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.WriteToUDP([]byte("probe"), to); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	_, _, err = c.ReadFromUDP(make([]byte, 16))
	return err
}

// raw builds the IPv4 header itself (IPPROTO_RAW implies IP_HDRINCL); the kernel
// fills in checksum and source.
func raw(address string) error {
	ip := net.ParseIP(address).To4()
	if ip == nil {
		return fmt.Errorf("%q is not an IPv4 address", address)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	p := make([]byte, 28)
	p[0], p[3], p[8], p[9] = 0x45, 28, 64, unix.IPPROTO_UDP
	copy(p[16:20], ip)
	p[21], p[23], p[25] = 9, 9, 8 // from port 9 to port 9, 8 bytes
	to := &unix.SockaddrInet4{}
	copy(to.Addr[:], ip)
	return unix.Sendto(fd, p, 0, to)
}

// etherType is the first local experimental EtherType (IEEE 802).
const etherType = 0x88b5

func packet(name string) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	frame := make([]byte, 60)
	copy(frame, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	copy(frame[6:], ifi.HardwareAddr)
	frame[12], frame[13] = etherType>>8, etherType&0xff
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
}

func sniff(name string) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	const protocol = etherType>>8 | etherType&0xff<<8 // network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: ifi.Index}); err != nil {
		return err
	}
	patience := unix.NsecToTimeval(3 * int64(wait))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return err
	}
	_, _, err = unix.Recvfrom(fd, make([]byte, 128), 0)
	if errors.Is(err, unix.EAGAIN) {
		return unix.ETIMEDOUT
	}
	return err
}

func xdpOff(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetXdpFd(l, -1)
}

func clsact(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	attrs := netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
	qdisc := &netlink.Clsact{QdiscAttrs: attrs}
	if err := netlink.QdiscAdd(qdisc); err != nil {
		return err
	}
	// Matches everything and says nothing; small kernels have no matchall.
	filter := &netlink.U32{FilterAttrs: netlink.FilterAttrs{
		LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Protocol: unix.ETH_P_ALL,
	}, ClassId: netlink.MakeHandle(1, 1)}
	if err := netlink.FilterAdd(filter); err != nil {
		return err
	}
	return netlink.QdiscDel(qdisc)
}

func inherited(args []string) error {
	if len(args) != 2 {
		return errors.New(usage)
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	to, err := net.ResolveUDPAddr("udp4", args[1])
	if err != nil {
		return err
	}
	sa := &unix.SockaddrInet4{Port: to.Port}
	copy(sa.Addr[:], to.IP.To4())
	return unix.Sendto(fd, []byte("probe"), 0, sa)
}

// hand makes a UDP socket in the container and passes it out of it.
func hand(args []string) error {
	fd, err := toHand(args[1:])
	if err != nil {
		return err
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: args[0], Net: "unix"})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, _, err := c.WriteMsgUnix([]byte("x"), unix.UnixRights(fd), nil); err != nil {
		return err
	}
	// Until the other side has it: the socket must outlive us without a gap.
	_, err = c.Read(make([]byte, 1))
	return err
}

// toHand returns a UDP socket, or with an address a TCP connection.
func toHand(address []string) (int, error) {
	if len(address) == 0 {
		return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	}
	c, err := net.DialTimeout("tcp", address[0], wait)
	if err != nil {
		return -1, err
	}
	// A duplicate: it stays open until the process ends.
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		return -1, err
	}
	return int(f.Fd()), nil
}

// echoed says something on a connection and waits until it comes back.
func echoed(fd int) error {
	patience := unix.NsecToTimeval(3 * int64(wait))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte("last words")); err != nil {
		return err
	}
	n, err := unix.Read(fd, make([]byte, 16))
	if errors.Is(err, unix.EAGAIN) || err == nil && n == 0 {
		return unix.ETIMEDOUT
	}
	return err
}

// keep is a process outside of the container that holds one of its sockets.
func keep(args []string) error {
	if len(args) != 3 {
		return errors.New(usage)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: args[0], Net: "unix"})
	if err != nil {
		return err
	}
	c, err := l.AcceptUnix()
	if err != nil {
		return err
	}
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
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	for {
		if _, err := os.Stat(args[2]); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if args[1] == "connected" {
		return echoed(fds[0])
	}
	return inherited([]string{strconv.Itoa(fds[0]), args[1]})
}

// give makes a UDP socket in a container's network namespace but outside of its
// cgroup, and hands it down. The command runs where we are.
func give(netns string, command []string) error {
	if len(command) == 0 {
		return errors.New(usage)
	}
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	ns, err := os.Open(netns)
	if err != nil {
		return err
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	p, err := os.StartProcess(path, command, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, os.NewFile(uintptr(fd), "socket")},
	})
	if err != nil {
		return err
	}
	state, err := p.Wait()
	if err == nil && !state.Success() {
		err = fmt.Errorf("%s: %s", command[0], state)
	}
	return err
}

func listen(address string) error {
	u, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			fmt.Println("udp", n)
			_, _ = u.WriteTo(buf[:n], from) // the prober times out
		}
	}()
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		fmt.Println("tcp")
		go func() {
			_, _ = io.Copy(c, c) // until the prober is done
			c.Close()
		}()
	}
}
