// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func triesCommands() map[string]command {
	return map[string]command{
		"tries": {"KIND:PORT…: try each and say how it went; KIND is tcp, udp, udp6, send6, bind or sock", 1, tries},
	}
}

// patience is how long an answer may take; late is how long the others may come
// after the last one that must come.
const (
	patience = 3 * time.Second
	late     = 40 * time.Millisecond
)

// tries prints KIND:PORT=OUTCOME for each, where OUTCOME is "ok", "timeout" or the
// name of an error number. Datagrams are answered by the host's end; the last one
// is to be one that passes, since it tells when there is nothing more to wait for.
func tries(args []string) error {
	udp, err := newEcho()
	if err != nil {
		return err
	}
	defer udp.Close()
	outcome := map[string]string{}
	for _, arg := range args {
		kind, text, _ := strings.Cut(arg, ":")
		port, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		switch kind {
		case "udp":
			err = udp.send(port)
		case "tcp":
			err = tcpConnect(port)
		case "udp6":
			err = connect6(port)
		case "send6":
			err = send6(port)
		case "bind":
			err = bind(port)
		case "sock":
			err = create(port)
		default:
			return fmt.Errorf("unknown kind %q", kind)
		}
		outcome[arg] = word(err)
	}
	answered := udp.answers()
	for _, arg := range args {
		if kind, port, _ := strings.Cut(arg, ":"); kind == "udp" && outcome[arg] == "ok" && !answered[port] {
			outcome[arg] = "timeout"
		}
		fmt.Printf("%s=%s\n", arg, outcome[arg])
	}
	return nil
}

// word says in one word how a call went.
func word(err error) string {
	var errno unix.Errno
	var n net.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	case errors.As(err, &n) && n.Timeout():
		return "timeout"
	}
	return strings.ReplaceAll(err.Error(), " ", "_")
}

// echo sends datagrams and collects what comes back.
type echo struct {
	fd   int
	last int // port of the last one sent
}

func newEcho() (*echo, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	return &echo{fd: fd}, os.NewSyscallError("socket", err)
}

func (e *echo) Close() error { return unix.Close(e.fd) }

func (e *echo) send(port int) error {
	if err := unix.Sendto(e.fd, []byte("tries"), 0, v4(hostIP, port)); err != nil {
		return err
	}
	e.last = port
	return nil
}

// answers returns the ports that answered.
func (e *echo) answers() map[string]bool {
	got := map[string]bool{}
	deadline := time.Now().Add(patience)
	for e.last != 0 {
		left := time.Until(deadline)
		if left <= 0 {
			break
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			break
		}
		_, from, err := unix.Recvfrom(e.fd, make([]byte, 64), unix.MSG_DONTWAIT)
		if err != nil {
			continue // an ICMP error of one that nobody listens for
		}
		if a, ok := from.(*unix.SockaddrInet4); ok {
			got[strconv.Itoa(a.Port)] = true
			if a.Port == e.last {
				deadline = time.Now().Add(late)
			}
		}
	}
	return got
}

func v4(ip string, port int) *unix.SockaddrInet4 {
	sa := &unix.SockaddrInet4{Port: port}
	copy(sa.Addr[:], net.ParseIP(ip).To4())
	return sa
}

func tcpConnect(port int) error {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(hostIP, strconv.Itoa(port)), patience)
	if err == nil {
		c.Close()
	}
	return err
}

func connect6(port int) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}})
}

func send6(port int) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, []byte("tries"), 0, &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}})
}

func bind(port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Port: port})
}

// create makes a raw socket; "port" is its protocol.
func create(protocol int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err == nil {
		unix.Close(fd)
	}
	return err
}
