// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs/fault"
)

func openNetns(t *testing.T, path string) *Netns {
	t.Helper()
	n, err := OpenNetns(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(&os.PathError{Op: "stat", Path: path, Err: err})
	}
	return st.Ino
}

func TestNetnsOfPID(t *testing.T) {
	a, b := bpftest.NetNS(t), bpftest.NetNS(t)
	noLeaks(t)
	na, err := NetnsOfPID(Roots{}, a.PID())
	if err != nil {
		t.Fatal(err)
	}
	defer na.Close()
	nb := openNetns(t, b.Path())
	if na.Inode != inode(t, a.Path()) || na.Path != a.Path() {
		t.Errorf("inode %d of %s, want %d of %s", na.Inode, na.Path, inode(t, a.Path()), a.Path())
	}
	again := openNetns(t, a.Path())
	if na.Cookie == 0 || na.Cookie == nb.Cookie || na.Cookie != again.Cookie {
		t.Errorf("cookies %d and %d, of another namespace %d", na.Cookie, again.Cookie, nb.Cookie)
	}
}

func TestNetnsOfWrongPID(t *testing.T) {
	a := bpftest.NetNS(t)
	noLeaks(t)
	for pid, want := range map[int]error{0: ErrInvalidPID, -1: ErrInvalidPID, 1 << 30: ErrGone} {
		if n, err := NetnsOfPID(Roots{}, pid); !errors.Is(err, want) {
			t.Errorf("pid %d: %v, %v, want: %v", pid, n, err, want)
		}
	}
	proc := newFakeProc(t)
	proc.process(a.PID())
	proc.pipe(fmt.Sprintf("%d/stat", a.PID()), statLine(a.PID(), "old", 'S', 100), statLine(a.PID(), "new", 'S', 200))
	if n, err := NetnsOfPID(proc.roots(), a.PID()); !errors.Is(err, ErrGone) {
		t.Errorf("recycled pid: %v, %v, want ErrGone", n, err)
	}
}

func TestOpenNetnsRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	noLeaks(t)
	for path, want := range map[string]error{
		plain:                  ErrMismatch,
		fifo:                   ErrMismatch,
		dir:                    ErrMismatch,
		"/proc/self/ns/mnt":    ErrMismatch,
		"/proc/self/ns/user":   ErrMismatch,
		"proc/self/ns/net":     ErrMismatch,
		"":                     ErrMismatch,
		dir + "/gone":          ErrGone,
		"/proc/self/ns/nosuch": ErrGone,
	} {
		n, err := OpenNetns(path)
		if err == nil {
			n.Close()
		}
		var f *fault.Error
		if !errors.Is(err, want) || !errors.As(err, &f) {
			t.Errorf("%q: %v, want a fault: %v", path, err, want)
		}
	}
}

// inside returns the inode of the calling thread's network namespace.
func inside() (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(ownNetns, &st)
	return st.Ino, err
}

func TestDo(t *testing.T) {
	a := bpftest.NetNS(t)
	n := openNetns(t, a.Path())
	own, err := inside()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			err := n.Do(func() error {
				time.Sleep(time.Millisecond)
				if ino, err := inside(); err != nil || ino != n.Inode {
					return fmt.Errorf("in namespace %d, want %d (%v)", ino, n.Inode, err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			if ino, err := inside(); err != nil || ino != own {
				t.Errorf("afterwards in namespace %d, want %d (%v)", ino, own, err)
			}
		})
	}
	wg.Wait()

	failed := errors.New("failed")
	if err := n.Do(func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("error of the function: %v", err)
	}
	if err := n.Do(func() error { runtime.Goexit(); return nil }); !errors.Is(err, errNotRun) {
		t.Errorf("function that ends its goroutine: %v", err)
	}
}

func TestDoInsideDoIsNotMisled(t *testing.T) {
	a, b := bpftest.NetNS(t), bpftest.NetNS(t)
	na, nb := openNetns(t, a.Path()), openNetns(t, b.Path())
	err := na.Do(func() error {
		if host, err := na.IsHost(); host || err != nil {
			t.Errorf("container's namespace, asked from inside: host %v, %v", host, err)
		}
		h, err := HostNetns()
		if err != nil {
			return err
		}
		defer h.Close()
		if h.Inode == na.Inode {
			t.Error("the container's namespace is taken for ours")
		}
		err = nb.Do(func() error {
			if ino, err := inside(); ino != nb.Inode {
				t.Errorf("in namespace %d, want %d (%v)", ino, nb.Inode, err)
			}
			return nil
		})
		if ino, e := inside(); ino != na.Inode {
			t.Errorf("back in namespace %d, want %d (%v)", ino, na.Inode, e)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A thread that can't go back must never run anything else.
func TestDoLosesThreadThatIsNotRestored(t *testing.T) {
	a := bpftest.NetNS(t)
	n := openNetns(t, a.Path())
	own, err := inside()
	if err != nil {
		t.Fatal(err)
	}
	setns = func(fd, kind int) error {
		if fd != int(n.File.Fd()) {
			return unix.EPERM
		}
		return unix.Setns(fd, kind)
	}
	defer func() { setns = unix.Setns }()
	for range 20 {
		if err := n.Do(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			time.Sleep(5 * time.Millisecond)
			if ino, err := inside(); err != nil || ino != own {
				t.Errorf("a goroutine runs in namespace %d, ours is %d (%v)", ino, own, err)
			}
		})
	}
	wg.Wait()
}

func TestDoReportsNamespaceItCannotEnter(t *testing.T) {
	a := bpftest.NetNS(t)
	n := openNetns(t, a.Path())
	setns = func(int, int) error { return unix.EPERM }
	defer func() { setns = unix.Setns }()
	ran := false
	if err := n.Do(func() error { ran = true; return nil }); !errors.Is(err, unix.EPERM) || ran {
		t.Errorf("%v, function ran: %v", err, ran)
	}
}

func TestIsHost(t *testing.T) {
	a := bpftest.NetNS(t)
	noLeaks(t)
	own, err := HostNetns()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	// The namespace in which the tests were started is that of pid 1.
	init := openNetns(t, fmt.Sprintf("/proc/%d/ns/net", os.Getppid()))
	if own.Inode == init.Inode {
		t.Fatal("the tests run in the namespace in which they were started")
	}
	for _, c := range []struct {
		n    *Netns
		want bool
	}{{own, true}, {init, true}, {openNetns(t, a.Path()), false}} {
		if host, err := c.n.IsHost(); host != c.want || err != nil {
			t.Errorf("%s: host %v, %v", c.n.Path, host, err)
		}
	}
}

// Both ways of comparing with pid 1, whichever of them this machine needs.
func TestIsOfPID1(t *testing.T) {
	a, b := bpftest.NetNS(t), bpftest.NetNS(t)
	na, nb := openNetns(t, a.Path()), openNetns(t, b.Path())
	noLeaks(t)
	proc := newFakeProc(t)
	check := func() {
		t.Helper()
		if same, err := na.isOfPID1(proc.dir); !same || err != nil {
			t.Errorf("the namespace of pid 1: %v, %v", same, err)
		}
		if same, err := nb.isOfPID1(proc.dir); same || err != nil {
			t.Errorf("another namespace: %v, %v", same, err)
		}
	}
	if err := os.Symlink(a.Path(), proc.path("1/ns/net")); err != nil {
		t.Fatal(err)
	}
	check()

	// Root without all the capabilities of pid 1 may not look at it.
	stat = func(path string, st *unix.Stat_t) error {
		if filepath.Base(filepath.Dir(path)) == "ns" {
			return unix.EACCES
		}
		return statPath(path, st)
	}
	defer func() { stat = statPath }()
	if err := os.Symlink(fmt.Sprintf("/proc/%d/net/dev", a.PID()), proc.path("1/net/dev")); err != nil {
		t.Fatal(err)
	}
	check()

	proc.path("1/net/dev")
	if same, err := na.isOfPID1(proc.dir); err == nil {
		t.Errorf("nothing to compare with: %v, want an error", same)
	}
}
