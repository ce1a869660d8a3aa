// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestCgroupProcessIsInside(t *testing.T) {
	cg := Cgroup(t)
	p := CgroupProcess(t, cg)
	got, err := os.ReadFile(pidPath(p.Pid, "cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "0::/" + filepath.Base(cg) + "\n"; string(got[len(got)-len(want):]) != want {
		t.Errorf("cgroup of the process: %s, want %s", got, want)
	}
}

func TestBPFFSIsPrivate(t *testing.T) {
	dir := TempBPFFS(t)
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		t.Errorf("type %#x, want bpffs", fs.Type)
	}
	var ours, theirs unix.Stat_t
	if err := unix.Stat(dir, &ours); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(pidPath(os.Getppid(), "root")+dir, &theirs); err != nil {
		t.Fatal(err)
	}
	if ours.Dev == theirs.Dev {
		t.Error("the mount is seen outside the test's mount namespace")
	}
}

func TestVethReachesTheNamespace(t *testing.T) {
	ns := NetNS(t)
	Veth(t, ns, "bpftest0", "eth0")
	for _, addr := range []string{CtrIPv4, CtrIPv6} {
		var l net.Listener
		ns.Do(t, func() {
			var err error
			if l, err = net.Listen("tcp", net.JoinHostPort(addr, "0")); err != nil {
				t.Error(err)
			}
		})
		if l == nil {
			continue
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		c.Close()
	}
}
