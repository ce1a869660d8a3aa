// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// LockTimeout is how long Lock waits at most if its context has no deadline.
const LockTimeout = 5 * time.Second

// Waiting is polling: a blocking flock can't be given up. The pauses double
// between these two.
const (
	minLockPause = time.Millisecond
	maxLockPause = 20 * time.Millisecond
)

// sweepPause is how long Lock waits before it asks whether what it waits for could be
// swept. Not often: while somebody sweeps, nobody else gets the lock.
const sweepPause = time.Second

// Lock is the exclusive right to change one owner, among processes and among
// goroutines; from TrySweep it is the right to take away what has ended, which several
// may have at once. It ends with Release or with the process.
type Lock struct {
	root   *Root
	owner  Owner
	fd     int  // the owner's directory
	shared bool // from TrySweep
}

// Lock locks an owner, making its directory if there is none. It waits until the
// deadline of ctx; then the error is a *fault.Error that wraps ErrDeadline and
// names the process that holds the lock. If ctx is cancelled, the error wraps its
// cause. The caller must Release the lock.
func (r *Root) Lock(ctx context.Context, o Owner) (*Lock, error) {
	return r.LockSweeping(ctx, o, nil)
}

// LockSweeping is Lock. While it waits it calls sweep from time to time: a sweeper that
// is stopped keeps its lock, but if the caller takes away what has ended as well, with a
// lock from TrySweep, the directory goes, and there is nothing to wait for. sweep may be
// nil.
func (r *Root) LockSweeping(ctx context.Context, o Owner, sweep func()) (*Lock, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	if sweep != nil {
		ended := sweep
		sweep = func() {
			ended()
			r.displace(o)
		}
	}
	fd, err := r.waitForDir(ctx, o.path(), o.String(), sweep)
	if err != nil {
		return nil, err
	}
	return r.hold(&Lock{root: r, owner: o, fd: fd}), nil
}

// displace takes an owner's directory away that sweepers have emptied and still hold. It
// changes nothing if something is in it, or if anybody but sweepers has locked it.
func (r *Root) displace(o Owner) {
	fd, err := r.flockDir(o.path(), unix.LOCK_SH)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	l := &Lock{root: r, owner: o, fd: fd}
	if o.IsSandbox() && l.pruneSandbox() != nil {
		return
	}
	if names, err := listDir(fd, "."); err != nil || len(names) > 0 {
		return
	}
	// By its name alone, what another one has made and locked there meanwhile might be
	// removed. What was renamed can be looked at.
	away := stagingPath(randomName())
	if unix.Renameat2(r.fd, o.path(), r.fd, away, unix.RENAME_NOREPLACE) != nil {
		return
	}
	if ok, err := same(fd, r.fd, away); err != nil || !ok {
		_ = unix.Renameat2(r.fd, away, r.fd, o.path(), unix.RENAME_NOREPLACE) // Publish looks where it publishes
		return
	}
	_ = rmdir(r.fd, away) // a sweep of staging does it otherwise
}

// withDeadline gives ctx the deadline LockTimeout, unless it has one.
func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, LockTimeout)
}

// TryLock locks an owner that has a directory. It never waits and never makes
// one: the errors are ErrBusy and ErrNotExist.
func (r *Root) TryLock(o Owner) (*Lock, error) { return r.try(o, unix.LOCK_EX) }

// TrySweep locks an owner that has a directory to take away what has ended, and for
// nothing else. Other sweepers may be at it at the same time, nobody else may: the errors
// are those of TryLock.
func (r *Root) TrySweep(o Owner) (*Lock, error) { return r.try(o, unix.LOCK_SH) }

func (r *Root) try(o Owner, how int) (*Lock, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	fd, err := r.flockDir(o.path(), how)
	if err != nil {
		return nil, r.pathError("lock", o.path(), err)
	}
	return r.hold(&Lock{root: r, owner: o, fd: fd, shared: how == unix.LOCK_SH}), nil
}

func (r *Root) hold(l *Lock) *Lock {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[l.owner] = l
	return l
}

// holding returns the lock that r holds on o, or an error that wraps ErrNotLocked.
func (r *Root) holding(o Owner) (*Lock, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.held[o]; l != nil {
		return l, nil
	}
	return nil, r.pathError("change", o.path(), ErrNotLocked)
}

// waitForDir makes and locks the directory at path, until the deadline of ctx. sweep is
// that of LockSweeping.
func (r *Root) waitForDir(ctx context.Context, path, object string, sweep func()) (int, error) {
	start := time.Now()
	swept := start
	pause := minLockPause
	for {
		if err := mkdir(r.fd, path); err != nil {
			return -1, r.pathError("mkdir", path, err)
		}
		fd, err := r.tryDir(path)
		switch {
		case err == nil:
			return fd, nil
		case errors.Is(err, unix.ENOENT): // removed since; make it again at once
			pause = 0
		case !errors.Is(err, ErrBusy):
			return -1, r.pathError("lock", path, err)
		case sweep != nil && time.Since(swept) > sweepPause:
			sweep()
			swept = time.Now()
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return -1, r.waitFault(ctx, path, object, time.Since(start))
		}
		pause = min(max(2*pause, minLockPause), maxLockPause)
	}
}

// tryDir opens and locks the directory at path without waiting. The lock counts
// only if the directory is still the one at path afterwards: its last holder may
// have removed it, and somebody may have made another one. The errors are ErrBusy
// and those of system calls, ENOENT above all.
func (r *Root) tryDir(path string) (int, error) { return r.flockDir(path, unix.LOCK_EX) }

// flockDir is tryDir for a lock of either kind, LOCK_EX or LOCK_SH.
func (r *Root) flockDir(path string, how int) (int, error) {
	fd, err := openDir(r.fd, path)
	if err != nil {
		return -1, err
	}
	if err := tryFlock(fd, how); err != nil {
		unix.Close(fd)
		return -1, err
	}
	ok, err := same(fd, r.fd, path)
	if err == nil && !ok {
		err = unix.ENOENT
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (r *Root) waitFault(ctx context.Context, path, object string, waited time.Duration) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("waiting for the lock of %s: %w", object, context.Cause(ctx))
	}
	cause := fmt.Errorf("%w for %v", ErrDeadline, waited.Round(time.Millisecond))
	remedy := "wait until it is done, then try again"
	if holder := r.holder(path); holder != "" {
		cause = fmt.Errorf("%w: %s", cause, holder)
		remedy = "if that process is stopped, continue or end it, then try again"
	}
	return fault.New(object, cause, remedy)
}

// Owner returns what l locks.
func (l *Lock) Owner() Owner { return l.owner }

// Release gives the lock back. Before that it removes what is left empty: the
// directories between owner and entries, and the owner's own. Those who wait for
// the lock notice and start over. Releasing again does nothing.
func (l *Lock) Release() error {
	if l.fd < 0 {
		return nil
	}
	r := l.root
	var errs []error
	if l.shared {
		// Below the open directory nobody but sweepers is at work, and they do the same.
		errs = append(errs, l.tidy())
	}
	// A sweeper removes the directory only if it is the only one: who finds it at its path
	// and removes it a moment later may remove the next one. If it is stopped here, others
	// wait; so nothing else is done here.
	if !l.shared || tryFlock(l.fd, unix.LOCK_EX) == nil {
		if ok, err := same(l.fd, r.fd, l.owner.path()); err != nil || !ok {
			// Not ours to tidy: somebody has removed the directory.
			errs = append(errs, r.pathError("release", l.owner.path(), err))
		} else {
			if !l.shared {
				errs = append(errs, l.tidy())
			}
			errs = append(errs, r.pathError("rmdir", l.owner.path(), rmdir(r.fd, l.owner.path())))
		}
	}
	r.mu.Lock()
	if r.held[l.owner] == l {
		delete(r.held, l.owner)
	}
	r.mu.Unlock()
	unix.Close(l.fd)
	l.fd = -1
	return errors.Join(errs...)
}

// tidy removes the empty directories between an owner and its entries.
func (l *Lock) tidy() error {
	if !l.owner.IsSandbox() {
		return nil
	}
	return l.root.pathError("tidy", l.owner.path(), l.pruneSandbox())
}

func (l *Lock) pruneSandbox() error {
	names, err := listDir(l.fd, ".")
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == hookDir || isNetwork(name) {
			ifnames, err := listDir(l.fd, name)
			if err != nil {
				return err
			}
			for _, ifname := range ifnames {
				if err := rmdir(l.fd, name+"/"+ifname); err != nil {
					return err
				}
			}
		}
		if err := rmdir(l.fd, name); err != nil {
			return err
		}
	}
	return nil
}
