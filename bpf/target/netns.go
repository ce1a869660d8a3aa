// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// ownNetns is the namespace of the calling thread. /proc/self would be that of the
// main thread, which Do may have put elsewhere for a moment.
const ownNetns = "/proc/thread-self/ns/net"

// Replaced in tests of what happens when they fail.
var (
	setns = unix.Setns
	stat  = statPath
)

// NetnsOfPID returns the network namespace of a process. The caller must Close it.
func NetnsOfPID(r Roots, pid int) (*Netns, error) {
	start, err := StartTime(r, pid)
	if err != nil {
		return nil, err
	}
	n, err := OpenNetns(r.proc(strconv.Itoa(pid), "ns", "net"))
	if gone := stillThere(r, pid, start); gone != nil {
		if n != nil {
			n.Close()
		}
		return nil, gone
	}
	return n, err
}

// OpenNetns opens a network namespace by the absolute path of its file, as CNI_NETNS
// gives it. ErrGone if there is no such file, ErrMismatch if it is something else:
// an ordinary file that is left where a namespace was mounted, or a namespace of
// another kind. The caller must Close it.
func OpenNetns(path string) (*Netns, error) {
	object := "network namespace " + path
	if !filepath.IsAbs(path) {
		return nil, fault.New(object, fmt.Errorf("its path is not absolute: %w", ErrMismatch), "").WithExit(fault.ExitInput)
	}
	// O_NONBLOCK: a FIFO must not hold us up.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(object, goneIf(err), "")
	}
	n := &Netns{Path: path, File: f}
	if err := n.identify(); err != nil {
		f.Close()
		return nil, fault.New(object, err, "")
	}
	return n, nil
}

// HostNetns returns the namespace that linkpin itself runs in. The caller must
// Close it.
func HostNetns() (n *Netns, err error) {
	elsewhere(func() { n, err = OpenNetns(ownNetns) })
	return n, err
}

func (n *Netns) identify() error {
	fd := int(n.File.Fd())
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return fmt.Errorf("it is not a namespace file, so it %w", ErrMismatch)
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return os.NewSyscallError("ioctl NS_GET_NSTYPE", err)
	}
	if kind != unix.CLONE_NEWNET {
		return fmt.Errorf("it is a namespace of another kind, so it %w", ErrMismatch)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	n.Inode = st.Ino
	return n.Do(func() error {
		n.Cookie, err = cookie()
		return err
	})
}

// cookie returns the cookie of the calling thread's namespace.
func cookie() (uint64, error) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	c, err := unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return 0, errors.New("cookies of network namespaces: not supported by this kernel (requires >= 5.14)")
	}
	return c, os.NewSyscallError("getsockopt SO_NETNS_COOKIE", err)
}

// errNotRun is what Do returns if fn ended its goroutine.
var errNotRun = errors.New("the function did not return")

// Do runs fn on a thread inside the namespace and returns its error. fn runs in a
// goroutine of its own; goroutines that it starts are outside the namespace.
func (n *Netns) Do(fn func() error) error {
	err := errNotRun
	elsewhere(func() {
		runtime.LockOSThread()
		clean := false
		defer func() {
			// A thread that is not back in our namespace stays locked: it ends
			// with this goroutine and nobody else ever runs on it.
			if clean {
				runtime.UnlockOSThread()
			}
		}()
		own, e := os.Open(ownNetns)
		if e != nil {
			clean, err = true, e
			return
		}
		defer own.Close()
		if e := setns(int(n.File.Fd()), unix.CLONE_NEWNET); e != nil {
			clean, err = true, fmt.Errorf("entering network namespace %s: %w", n.Path, os.NewSyscallError("setns", e))
			return
		}
		err = fn()
		clean = setns(int(own.Fd()), unix.CLONE_NEWNET) == nil
	})
	return err
}

// InOwnNetns runs fn in linkpin's own namespace, also when it is called from inside
// Do, and returns its error.
func InOwnNetns(fn func() error) error {
	err := errNotRun
	elsewhere(func() { err = fn() })
	return err
}

// elsewhere runs fn in a goroutine of its own and waits for it. Such a goroutine
// starts on a thread that is in our own namespace, whatever the caller's thread is in.
func elsewhere(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
}

// IsHost reports whether the namespace is the host's: our own, or that of pid 1.
// Programs for containers must not be attached there.
func (n *Netns) IsHost() (bool, error) {
	object := "network namespace " + n.Path
	own, err := n.sameFile(ownNetns)
	if err != nil || own {
		return own, wrap(object, err)
	}
	init, err := n.isOfPID1("/proc")
	return init, wrap(object, err)
}

func wrap(object string, err error) error {
	if err == nil {
		return nil
	}
	return fault.New(object, fmt.Errorf("comparing it with the host's: %w", err), "")
}

// isOfPID1 reports whether pid 1 is in the namespace. Looking at another process's
// namespace file takes all of its capabilities (ptrace_may_access), which root does
// not always have. /proc/PID/net needs none, and shows a tree that each
// namespace has for itself, with inode numbers of its own (proc_alloc_inum).
func (n *Netns) isOfPID1(proc string) (bool, error) {
	same, err := n.sameFile(filepath.Join(proc, "1/ns/net"))
	if !errors.Is(err, os.ErrPermission) {
		return same, err
	}
	var init, ours unix.Stat_t
	if err := stat(filepath.Join(proc, "1/net/dev"), &init); err != nil {
		return false, err
	}
	err = n.Do(func() error { return stat("/proc/thread-self/net/dev", &ours) })
	return err == nil && init.Ino == ours.Ino, err
}

// sameFile reports whether path, seen from our own namespace, is this namespace's file.
func (n *Netns) sameFile(path string) (bool, error) {
	var st, other unix.Stat_t
	if err := unix.Fstat(int(n.File.Fd()), &st); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	var err error
	elsewhere(func() { err = stat(path, &other) })
	return err == nil && st.Ino == other.Ino && st.Dev == other.Dev, err
}

func statPath(path string, st *unix.Stat_t) error {
	if err := unix.Stat(path, st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return nil
}

// Close closes the namespace file.
func (n *Netns) Close() error { return n.File.Close() }
