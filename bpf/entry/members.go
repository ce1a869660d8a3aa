// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"io/fs"

	"github.com/linkpin/linkpin/bpf/pin"
)

// sandboxes are those that containers have left, with the cookies of their
// namespaces.
type sandboxes map[pin.Key]uint64

func (left sandboxes) add(rec *pin.Record) {
	if rec.Sandbox != "" && rec.Netns != nil {
		left[rec.Sandbox] = rec.Netns.Cookie
	}
}

// JoinSandbox records that a container uses a sandbox: what the hook attached
// there stays until the last such container has ended. Both locks must be held.
func (s *Session) JoinSandbox(sandbox, container pin.Key) error {
	return s.Root.AddMember(sandbox, container)
}

// AbandonSandbox takes back what a failed invocation has left of a sandbox besides
// entries: the membership of its container, unless that has entries there, and the
// index. In CNI container is empty. The locks must be held.
func (s *Session) AbandonSandbox(ctx context.Context, sandbox, container pin.Key, cookie uint64) error {
	if container != "" {
		ended, err := s.memberEnded(sandbox, container)
		if err == nil && ended {
			err = s.Root.RemoveMember(sandbox, container)
		}
		if err != nil {
			return err
		}
	}
	return s.tidySandbox(ctx, sandbox, map[uint64]bool{cookie: true})
}

// leaveSandbox is called when a container that had joined a sandbox has ended and
// its entries are retired: the last one to leave takes along what the hook attached.
func (s *Session) leaveSandbox(ctx context.Context, sandbox pin.Key, cookie uint64, take locking) error {
	lock, err := take(pin.Sandbox(sandbox))
	if errors.Is(err, pin.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.release(lock)
	err = s.sweepSandbox(ctx, sandbox)
	return errors.Join(err, s.tidySandbox(ctx, sandbox, map[uint64]bool{cookie: true}))
}

// runningMembers counts the containers of a sandbox that have not ended.
func (s *Session) runningMembers(sandbox pin.Key) (int, error) {
	members, err := s.Root.Members(sandbox)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, m := range members {
		ended, err := s.memberEnded(sandbox, m)
		if err != nil {
			return 0, err
		}
		if !ended {
			n++
		}
	}
	return n, nil
}

// memberEnded reports whether a container that joined a sandbox has no entry left
// that says so, or only such as have ended: its id may have come back with another
// namespace since. A container that is just being created holds the sandbox's
// lock, so it is never seen here without its entries.
func (s *Session) memberEnded(sandbox, container pin.Key) (bool, error) {
	places, err := s.Root.Entries(pin.Container(container))
	if err != nil {
		return false, err
	}
	for _, p := range places {
		rec, err := s.readRecord(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		if rec.Sandbox != sandbox {
			continue
		}
		if ended, err := s.containerEnded(rec); err != nil || !ended {
			return false, err
		}
	}
	return true, nil
}
