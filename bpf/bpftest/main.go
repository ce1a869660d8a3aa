// SPDX-License-Identifier: Apache-2.0

// Package bpftest gives tests the kernel objects they need: a private bpffs, a
// cgroup, a network namespace, a veth pair. All of them are gone when the test
// ends, and none of them touches what the host uses.
package bpftest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inside marks the second run of a test binary, the one in its own namespaces.
const inside = "LINKPIN_TEST_NAMESPACES=1"

// Main runs the tests of a package in mount and network namespaces of their own:
// it executes the test binary again there. Use it as
//
//	func TestMain(m *testing.M) { os.Exit(bpftest.Main(m)) }
func Main(m *testing.M) int {
	if os.Getenv("LINKPIN_TEST_NAMESPACES") == "" {
		return again()
	}
	if err := enter(); err != nil {
		fmt.Fprintln(os.Stderr, "bpftest:", err)
		return 1
	}
	return m.Run()
}

func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:    syscall.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	}
	fmt.Fprintln(os.Stderr, "bpftest: tests need root and namespaces:", err)
	return 1
}

// enter makes mounts private, so that no mount of a test is seen outside, and
// raises the loopback device.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	return loopbackUp()
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("raising lo: %w", err)
	}
	return nil
}

// NeedKernel skips a test on kernels older than major.minor, which lack feature.
// There is no other reason to skip.
func NeedKernel(t testing.TB, major, minor int, feature string) {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(os.NewSyscallError("uname", err))
	}
	release := unix.ByteSliceToString(u.Release[:])
	var have, haveMinor int
	if _, err := fmt.Sscanf(release, "%d.%d", &have, &haveMinor); err != nil {
		t.Fatalf("kernel release %q: %v", release, err)
	}
	if have < major || (have == major && haveMinor < minor) {
		t.Skipf("%s needs kernel %d.%d, this is %s", feature, major, minor, release)
	}
}
