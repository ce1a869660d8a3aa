// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NS is a network namespace that a sleeping process holds.
type NS struct {
	pid  int
	file *os.File
}

// NetNS makes a network namespace with its loopback device up. It is gone when
// the test ends.
func NetNS(t testing.TB) *NS {
	t.Helper()
	cmd := exec.Command("sleep", "3600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	return startNS(t, cmd)
}

// NetNSProcess is NetNS with its process in a cgroup: what a container is to linkpin.
func NetNSProcess(t testing.TB, cgroup string) *NS {
	t.Helper()
	cmd := exec.Command("sleep", "3600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	inCgroup(t, cmd, cgroup)
	return startNS(t, cmd)
}

func startNS(t testing.TB, cmd *exec.Cmd) *NS {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, cmd)
	f, err := os.Open(pidPath(cmd.Process.Pid, "ns/net"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	n := &NS{pid: cmd.Process.Pid, file: f}
	n.Do(t, func() {
		if err := loopbackUp(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// PID returns the process that holds the namespace.
func (n *NS) PID() int { return n.pid }

// Path returns a path of the namespace, as CNI_NETNS would give it.
func (n *NS) Path() string { return pidPath(n.pid, "ns/net") }

// Kill ends the process that holds the namespace and closes our descriptor of it,
// so that the kernel may drop it. Do must not be called after it.
func (n *NS) Kill(t testing.TB) {
	t.Helper()
	if err := unix.Kill(n.pid, unix.SIGKILL); err != nil {
		t.Error(os.NewSyscallError("kill", err))
	}
	n.file.Close()
}

// Do runs fn on a thread inside the namespace. fn must not call t.Fatal.
func (n *NS) Do(t testing.TB, fn func()) {
	t.Helper()
	err := ns.WithNetNSPath(n.Path(), func(ns.NetNS) error {
		fn()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Addresses of the two ends of a pair made by Veth.
const (
	HostIPv4 = "192.0.2.1"
	HostIPv6 = "2001:db8::1"
	CtrIPv4  = "192.0.2.2"
	CtrIPv6  = "2001:db8::2"
)

// Veth makes a veth pair: host in the test's namespace with HostIPv4/24 and
// HostIPv6/64, ctr inside with CtrIPv4 and CtrIPv6. Both ends are up.
func Veth(t testing.TB, inside *NS, host, ctr string) {
	t.Helper()
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: host},
		PeerName:      ctr,
		PeerNamespace: netlink.NsFd(int(inside.file.Fd())),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatalf("veth %s: %v", host, err)
	}
	t.Cleanup(func() {
		// A pair whose other end went with its namespace is gone already.
		if l, err := netlink.LinkByName(host); err == nil {
			_ = netlink.LinkDel(l)
		}
	})
	if err := configure(host, HostIPv4+"/24", HostIPv6+"/64"); err != nil {
		t.Fatal(err)
	}
	inside.Do(t, func() {
		if err := configure(ctr, CtrIPv4+"/24", CtrIPv6+"/64"); err != nil {
			t.Error(err)
		}
	})
}

func configure(name string, addresses ...string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding %s: %w", name, err)
	}
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
		addr.Flags = unix.IFA_F_NODAD // no waiting for duplicate address detection
		if err := netlink.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("adding %s to %s: %w", a, name, err)
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("raising %s: %w", name, err)
	}
	return nil
}
