// SPDX-License-Identifier: Apache-2.0

package change

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// lockDir is where locks are, of images as well: a directory of this machine that
// only root can write, unlike what may be in an image.
const lockDir = "/run"

// lockRetry is how often a lock that others hold is tried again.
const lockRetry = 20 * time.Millisecond

// Lock keeps other installers of the host away until unlock is called. It must be
// held from before a plan is made until it has been applied. The lock is a file in
// /run that nobody but root can open, named after the host's root directory; it is
// gone after unlock. The error of a lock that is not to be had in time wraps ctx's.
func (h Host) Lock(ctx context.Context) (unlock func(), err error) {
	path, err := h.lockPath()
	if err != nil {
		return nil, err
	}
	for {
		f, err := openLock(path)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil && isAt(f, path):
			return func() {
				_ = os.Remove(path) // who waits for it sees that, and makes a new one
				f.Close()
			}, nil
		case err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EWOULDBLOCK):
			f.Close()
			return nil, &os.PathError{Op: "flock", Path: path, Err: err}
		}
		f.Close()
		select {
		case <-ctx.Done():
			return nil, fault.New(path, fmt.Errorf("another linkpin install holds the lock: %w", context.Cause(ctx)), "wait for it to end")
		case <-time.After(lockRetry):
		}
	}
}

// lockPath names the lock after what the root directory is, not after its path.
func (h Host) lockPath() (string, error) {
	etc, err := h.Resolve("/etc")
	if err != nil {
		return "", err
	}
	if st, err := os.Stat(etc); err != nil || !st.IsDir() {
		if err == nil {
			err = unix.ENOTDIR
		}
		return "", fault.New("/etc", err, "is --root the root directory of a host?")
	}
	var st unix.Stat_t
	if err := unix.Stat(h.root(), &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: h.root(), Err: err}
	}
	return filepath.Join(lockDir, fmt.Sprintf("linkpin-install-%d-%d.lock", st.Dev, st.Ino)), nil
}

// openLock opens the file, and refuses one that somebody else has put there.
func openLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fault.New(path, err, "run it as root")
	}
	if err != nil {
		return nil, fault.New(path, err, "remove it")
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != 0 || st.Mode&0o077 != 0 {
		f.Close()
		return nil, fault.Newf(path, "is not a file that only root can open", "remove it")
	}
	return f, nil
}

// isAt reports whether f is still what is at path: whoever held the lock before has
// removed it.
func isAt(f *os.File, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(int(f.Fd()), &a) == nil && unix.Lstat(path, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}
