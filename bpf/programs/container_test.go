// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

// container is a cgroup and a network namespace whose eth0 leads to the test's own.
type container struct {
	cgroup string
	ns     *bpftest.NS
	peer   int // ifindex of the host side
}

func newContainer(t *testing.T) *container {
	t.Helper()
	c := &container{cgroup: bpftest.Cgroup(t), ns: bpftest.NetNS(t)}
	bpftest.Veth(t, c.ns, "peer0", "eth0")
	peer, err := netlink.LinkByName("peer0")
	if err != nil {
		t.Fatal(err)
	}
	c.peer = peer.Attrs().Index
	c.ns.Do(t, func() {
		// Ping sockets for group 0.
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
			t.Error(err)
		}
	})
	return c
}

// protectCgroup attaches the cgroup programs of e.
func (c *container) protectCgroup(t *testing.T, e *egress) {
	t.Helper()
	c.attachCgroup(t, map[*ebpf.Program]ebpf.AttachType{
		e.PostBind4: ebpf.AttachCGroupInet4PostBind, e.PostBind6: ebpf.AttachCGroupInet6PostBind,
		e.Connect4: ebpf.AttachCGroupInet4Connect, e.Connect6: ebpf.AttachCGroupInet6Connect,
		e.Sendmsg4: ebpf.AttachCGroupUDP4Sendmsg, e.Sendmsg6: ebpf.AttachCGroupUDP6Sendmsg,
		e.SkbEgress: ebpf.AttachCGroupInetEgress, e.SkbIngress: ebpf.AttachCGroupInetIngress,
	})
}

func (c *container) attachCgroup(t *testing.T, programs map[*ebpf.Program]ebpf.AttachType) {
	t.Helper()
	dir, err := os.Open(c.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for p, attach := range programs {
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(dir.Fd()), Program: p, Attach: attach})
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		t.Cleanup(func() { l.Close() })
	}
}

// protectInterface attaches the interface programs of e to the host side.
func (c *container) protectInterface(t *testing.T, e *egress) {
	t.Helper()
	bpftest.NeedKernel(t, 6, 6, "TCX")
	for p, attach := range map[*ebpf.Program]ebpf.AttachType{e.FromContainer: ebpf.AttachTCXIngress, e.ToContainer: ebpf.AttachTCXEgress} {
		l, err := link.AttachTCX(link.TCXOptions{Interface: c.peer, Program: p, Attach: attach})
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		t.Cleanup(func() { l.Close() })
	}
}

// protectInside attaches from_container to the container's own side. It runs in the
// container's namespace.
func (c *container) protectInside(t *testing.T, e *egress) {
	device, err := net.InterfaceByName("eth0")
	if err != nil {
		t.Error(err)
		return
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: device.Index, Program: e.FromContainer, Attach: ebpf.AttachTCXEgress})
	if err != nil {
		t.Errorf("%s: %v", e.FromContainer, err)
		return
	}
	t.Cleanup(func() { l.Close() })
}

// job is an order that is being carried out.
type job struct {
	cmd     *exec.Cmd
	answers *json.Decoder
}

// start gives an order to a new process inside the container.
func (c *container) start(t *testing.T, o order, files ...*os.File) *job {
	t.Helper()
	if o.Netns == "" {
		o.Netns = c.ns.Path()
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := bpftest.Command(t, c.cgroup, "/proc/self/exe")
	cmd.Env = append(os.Environ(), orderVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = files
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // its error is the kill
	})
	return &job{cmd, json.NewDecoder(out)}
}

// answer waits for the next answer: nil, an errno, or another error.
func (j *job) answer(t *testing.T) error {
	t.Helper()
	var a answer
	if err := j.answers.Decode(&a); err != nil {
		t.Fatal(err)
	}
	switch {
	case a.Error != "":
		return fmt.Errorf("%s", a.Error)
	case a.Errno != 0:
		return a.Errno
	}
	return nil
}

// do carries out an order and returns its answer.
func (c *container) do(t *testing.T, o order, files ...*os.File) error {
	t.Helper()
	return c.start(t, o, files...).answer(t)
}

// listener receives what reaches the test's side of the wire.
type listener struct {
	udp  *net.UDPConn
	addr netip.AddrPort
}

// listen opens a UDP socket and a TCP listener on the same port of addr.
func listen(t *testing.T, addr string) *listener {
	t.Helper()
	tcp, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	l := &listener{addr: netip.MustParseAddrPort(tcp.Addr().String())}
	if l.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(l.addr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.udp.Close() })
	return l
}

// got says whether a datagram has come.
func (l *listener) got(t *testing.T) bool {
	t.Helper()
	if err := l.udp.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, _, err := l.udp.ReadFromUDPAddrPort(make([]byte, 2000))
	if err != nil && !os.IsTimeout(err) {
		t.Fatal(err)
	}
	return err == nil
}
