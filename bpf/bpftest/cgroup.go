// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroup2Mount returns where cgroup2 is mounted; it fails the test if it is not.
func Cgroup2Mount(t testing.TB) string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if ok && strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 && fields[3] == "/" {
			return fields[4]
		}
	}
	t.Fatal("no cgroup2 mount in /proc/self/mountinfo")
	return ""
}

// Cgroup makes a cgroup v2 directory. When the test ends, what is still in it or
// below it is killed and the directories are removed.
func Cgroup(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(Cgroup2Mount(t), "linkpin-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeCgroup(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// removeCgroup kills what is in a cgroup and removes it with its descendants. The
// kernel lets go of killed processes a moment later, so it tries for 5 s.
func removeCgroup(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // cgroup.kill: kernel 5.14
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		var dirs []string
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // gone already, or going
		})
		if err != nil {
			return err
		}
		var last error
		for _, d := range slices.Backward(dirs) {
			if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) {
				last = &os.PathError{Op: "rmdir", Path: d, Err: err}
			}
		}
		if last == nil || time.Now().After(deadline) {
			return last
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// RemoveCgroup kills what is in a cgroup and removes it before the test ends.
func RemoveCgroup(t testing.TB, dir string) {
	t.Helper()
	if err := removeCgroup(dir); err != nil {
		t.Fatal(err)
	}
}

// CgroupProcess starts a sleeping process inside a cgroup. It is killed and
// reaped when the test ends, unless the test did both.
func CgroupProcess(t testing.TB, cgroup string) *os.Process {
	t.Helper()
	cmd := exec.Command("sleep", "3600")
	inCgroup(t, cmd, cgroup)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, cmd)
	return cmd.Process
}

// inCgroup makes cmd start inside a cgroup (clone3, kernel 5.7).
func inCgroup(t testing.TB, cmd *exec.Cmd, cgroup string) {
	t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = int(dir.Fd())
}

// Command returns a command that starts inside a cgroup; see exec.Command.
func Command(t testing.TB, cgroup, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	inCgroup(t, cmd, cgroup)
	return cmd
}

func stopAtEnd(t testing.TB, cmd *exec.Cmd) {
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // its error is the kill
	})
}

// CgroupID returns the kernel's id of a cgroup directory.
func CgroupID(t testing.TB, dir string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(&os.PathError{Op: "stat", Path: dir, Err: err})
	}
	return st.Ino
}

// Eventually calls done every few milliseconds until it returns nil, and fails the
// test with its last error after 10 s. It is for what the kernel does by itself
// and a little later.
func Eventually(t testing.TB, what string, done func() error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func pidPath(pid int, name string) string {
	return fmt.Sprintf("/proc/%s/%s", strconv.Itoa(pid), name)
}
