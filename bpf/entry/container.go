// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs/fault"
)

// Reasons for which entries are retired; they are part of names in bpffs.
const (
	reasonEnded    = "ended"    // the container's cgroup is gone or empty
	reasonReplaced = "replaced" // the id came back with another cgroup or namespace
	reasonDeleted  = "deleted"  // CNI DEL
	reasonInvalid  = "invalid"  // not among the attachments of CNI GC
	reasonSevered  = "severed"  // every link had lost its target
)

// ClaimContainer looks at what is recorded for the key of a container that is
// being created. It returns the policies whose entries belong to this very
// container and stay. Entries of a container that has ended are retired; if one
// belongs to another container that still runs, the error wraps ErrInUse. The
// container's lock must be held.
func (s *Session) ClaimContainer(key pin.Key, sub *Subject) (have map[string]bool, err error) {
	places, err := s.Root.Entries(pin.Container(key))
	if err != nil {
		return nil, err
	}
	have = map[string]bool{}
	for _, p := range places {
		rec, err := s.readRecord(p)
		if err != nil {
			return nil, err
		}
		if sameContainer(rec, sub) {
			have[rec.Policy] = true
			continue
		}
		ended, err := s.containerEnded(rec)
		if err != nil {
			return nil, err
		}
		if !ended {
			return nil, fault.New("container "+sub.Identity.ContainerID, fmt.Errorf("its id and bundle are those of pid %d: %w", rec.PID, ErrInUse),
				"delete that container first")
		}
		if err := s.retire(p, reasonReplaced); err != nil {
			return nil, err
		}
	}
	return have, nil
}

// sameContainer compares what the kernel never gives twice: the cgroup's id, or
// the first process with its start time.
func sameContainer(rec *pin.Record, sub *Subject) bool {
	if rec.Cgroup != nil && sub.Cgroup != nil {
		return rec.Cgroup.ID == sub.Cgroup.ID
	}
	return rec.PID == sub.PID && rec.Start == uint64(sub.Start)
}

func (s *Session) readRecord(p pin.Place) (*pin.Record, error) {
	e, err := s.Root.Entry(p)
	if err != nil {
		return nil, err
	}
	rec, err := e.Record()
	if err != nil {
		return nil, err
	}
	return &rec, nil
}

// EndContainer retires what is recorded for a container, if it has ended; it does
// nothing if the container still runs or nothing is recorded. It is safe to call
// late, twice, or for an id that another runtime uses.
func (s *Session) EndContainer(ctx context.Context, key pin.Key) error {
	lock, err := s.lockExisting(ctx, pin.Container(key))
	if lock == nil || err != nil {
		return err
	}
	defer lock.Release()
	return s.endContainer(ctx, key)
}

func (s *Session) endContainer(ctx context.Context, key pin.Key) error {
	places, err := s.Root.Entries(pin.Container(key))
	if err != nil {
		return err
	}
	sandboxes := map[pin.Key]bool{}
	var errs []error
	for _, p := range places {
		rec, err := s.readRecord(p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ended, err := s.containerEnded(rec)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !ended {
			return errors.Join(errs...)
		}
		if rec.Sandbox != "" {
			sandboxes[rec.Sandbox] = true
		}
		errs = append(errs, s.retire(p, reasonEnded))
	}
	for sandbox := range sandboxes {
		errs = append(errs, s.leaveSandbox(ctx, sandbox, key))
	}
	return errors.Join(errs...)
}

// lockExisting locks an owner that has entries or members; it returns nil if there
// is nothing to lock.
func (s *Session) lockExisting(ctx context.Context, o pin.Owner) (*pin.Lock, error) {
	places, err := s.Root.Entries(o)
	if err != nil {
		return nil, err
	}
	if len(places) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, LoadTimeout)
	defer cancel()
	return s.Root.Lock(ctx, o)
}

// allLive reports whether every program of an entry is attached as recorded.
func allLive(e *pin.Entry, rec *pin.Record) bool {
	for _, p := range rec.Programs {
		info, err := linkInfo(e.LinkPath(p.Name))
		if err != nil || info.State == attach.Severed || info.LinkID != p.LinkID || info.ProgramID != p.ProgramID {
			return false
		}
	}
	return true
}
