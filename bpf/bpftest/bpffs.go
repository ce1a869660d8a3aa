// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TempBPFFS mounts a new bpffs (mode 1777, as the kernel makes it) and returns its
// mount point. It is unmounted when the test ends.
func TempBPFFS(t testing.TB) string {
	t.Helper()
	if os.Getenv("LINKPIN_TEST_NAMESPACES") == "" {
		t.Fatal("TempBPFFS: the package's TestMain must call bpftest.Main")
	}
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(os.NewSyscallError("mount", err))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(os.NewSyscallError("umount", err))
		}
	})
	return dir
}
