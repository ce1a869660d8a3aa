// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// Reasons for which entries are retired; they are part of names in bpffs.
const (
	reasonEnded    = "ended"    // the container's cgroup is gone or empty
	reasonLeft     = "left"     // the sandbox's last container has ended
	reasonReplaced = "replaced" // the id came back with another cgroup or namespace
	reasonDeleted  = "deleted"  // CNI DEL
	reasonPod      = "pod"      // CNI DEL or GC, of what is on the pod's cgroup
	reasonInvalid  = "invalid"  // not among the attachments of CNI GC
	reasonSevered  = "severed"  // every link had lost its target
)

// ClaimContainer looks at what is recorded for the key of a container that is
// being created. It returns the policies that are in force for this very container
// as digests says, with every link live; what else is recorded for it is taken
// down, so that it can be made anew. Entries of a container that has ended are
// retired; if one belongs to another container that still runs, the error wraps
// ErrInUse. digests holds the digest of each policy that the container gets, and ""
// for the other applied policies: if one of these is in force, another hook in the
// container's list has attached it a moment ago, and it stays. The container's lock
// must be held, and no sandbox's.
func (s *Session) ClaimContainer(ctx context.Context, key pin.Key, sub *Subject, digests map[string]string) (have map[string]bool, err error) {
	places, err := s.Root.Entries(pin.Container(key))
	if err != nil {
		return nil, err
	}
	have = map[string]bool{}
	left := sandboxes{}
	for _, p := range places {
		e, rec, err := s.open(p)
		if err != nil {
			return nil, err
		}
		same, err := s.sameContainer(rec, sub)
		if err != nil {
			return nil, err
		}
		if same {
			digest, known := digests[rec.Policy]
			if known && (digest == "" || digest == rec.Digest) && s.inForce(e, rec, sub) {
				have[rec.Policy] = true
				continue
			}
			if known && digest == "" && rec.PID == sub.PID && rec.Start == uint64(sub.Start) {
				// Nobody but the hook that has attached it would attach it again.
				if err := s.keepOther(ctx, p, rec, sub); err != nil {
					return nil, err
				}
				continue
			}
		}
		if same {
			if err := s.takeDown(e); err != nil {
				return nil, err
			}
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
		left.add(rec)
		if err := s.retire(p, reasonReplaced); err != nil {
			return nil, err
		}
	}
	for sandbox, cookie := range left {
		if err := s.leaveSandbox(ctx, sandbox, cookie, s.Root.TrySweep); !skippable(err) {
			s.warn(err) // a sweep of the sandbox finds out by itself
		}
	}
	if sub.Cgroup == nil {
		return have, nil
	}
	// A runtime that was killed may leave a cgroup behind, and put the next container
	// into it: what drains there was attached for somebody else.
	return have, s.dropDrained(sub.Cgroup, reasonEnded, reasonReplaced)
}

// Disinherit takes down what a container that gets no policy would inherit with its
// cgroup: a runtime that was killed may leave one behind, with the links of the
// container before, recorded under the same key or retired meanwhile. What belongs to
// the very process stays: another hook has attached it.
func (s *Session) Disinherit(ctx context.Context, key pin.Key, sub *Subject) error {
	ctx, cancel := context.WithTimeout(ctx, LoadTimeout)
	defer cancel()
	lock, err := s.lockExisting(ctx, pin.Container(key))
	s.warn(err) // somebody else is at work on it
	if lock != nil {
		defer s.release(lock)
		if err := s.disinherit(key, sub); err != nil {
			return err
		}
	}
	return s.dropDrained(sub.Cgroup, reasonEnded, reasonReplaced)
}

func (s *Session) disinherit(key pin.Key, sub *Subject) error {
	places, err := s.Root.Entries(pin.Container(key))
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range places {
		e, rec, err := s.open(p)
		if err != nil {
			s.warn(err) // it keeps nobody from starting who wants nothing of it
			continue
		}
		if rec.PID == sub.PID && rec.Start == uint64(sub.Start) || rec.Cgroup == nil || rec.Cgroup.ID != sub.Cgroup.ID {
			continue
		}
		if ended, err := s.processEnded(rec); err != nil || !ended {
			s.warn(err)
			continue
		}
		errs = append(errs, s.takeDown(e))
	}
	return errors.Join(errs...)
}

// keepOther keeps a policy that another hook in the container's list has attached and
// that is no longer in force: somebody has meddled with it in between. What can't be
// mended refuses the container, unless the policy may be missing.
func (s *Session) keepOther(ctx context.Context, p pin.Place, rec *pin.Record, sub *Subject) error {
	mended, err := s.mend(ctx, p)
	if mended && rec.Cgroup != nil && sub.Cgroup != nil && rec.Cgroup.ID != sub.Cgroup.ID {
		mended, err = false, fmt.Errorf("its process has been moved to cgroup %s", sub.Cgroup.Path)
	}
	if mended {
		return nil
	}
	err = fault.New("container "+sub.Identity.ContainerID+": policy "+rec.Policy,
		errors.Join(errors.New("another hook has attached it, and it is no longer in force"), err), "start the container again")
	if rec.OnError == specs.Allow {
		s.warn(err)
		return nil
	}
	return err
}

// sameContainer reports whether a record is that of the container that is being
// created. Only what the kernel never gives twice counts: the first process with
// its start time, and the cgroup's id. A runtime may put a new container into a
// cgroup that is left over from the one before, whose process has ended: its entry
// is of the same cgroup, but of no use.
func (s *Session) sameContainer(rec *pin.Record, sub *Subject) (bool, error) {
	if rec.PID == sub.PID && rec.Start == uint64(sub.Start) {
		return true, nil
	}
	if rec.Cgroup == nil || sub.Cgroup == nil || rec.Cgroup.ID != sub.Cgroup.ID {
		return false, nil
	}
	return s.processEnded(rec)
}

// inForce reports whether an entry of the container that is being created still
// does what it says.
func (s *Session) inForce(e *pin.Entry, rec *pin.Record, sub *Subject) bool {
	return rec.PID == sub.PID && rec.Start == uint64(sub.Start) &&
		(rec.Cgroup == nil) == (sub.Cgroup == nil) && (rec.Cgroup == nil || rec.Cgroup.ID == sub.Cgroup.ID) &&
		(rec.Netns == nil || sub.Netns == nil || rec.Netns.Cookie == sub.Netns.Cookie) &&
		s.allLive(e, rec)
}

// open looks up an entry and its record. Nothing may be locked: an entry that goes while
// it is looked at gives pin.ErrNotExist, not a record that is missing.
func (s *Session) open(p pin.Place) (*pin.Entry, *pin.Record, error) {
	for try := 0; ; try++ {
		e, err := s.Root.Entry(p)
		if err != nil {
			return nil, nil, err
		}
		rec, err := e.Record()
		switch {
		case err == nil:
			return e, &rec, nil
		case errors.Is(err, pin.ErrNoRecord) && try < lookTries:
			continue
		case errors.Is(err, pin.ErrDamaged), errors.Is(err, pin.ErrUnfrozen), errors.Is(err, pin.ErrNoRecord):
			return nil, nil, fault.New(p.String(), err, "remove it by hand: rm -r "+s.Root.Path()+"/"+p.String())
		}
		return nil, nil, fault.New(p.String(), err, "")
	}
}

func (s *Session) readRecord(p pin.Place) (*pin.Record, error) {
	_, rec, err := s.open(p)
	return rec, err
}

// EndContainer retires what is recorded for a container, if it has ended; it does
// nothing if the container still runs or nothing is recorded. It is safe to call
// late, twice, or for an id that another runtime uses. found is false if there was
// nothing recorded.
func (s *Session) EndContainer(ctx context.Context, key pin.Key) (found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, LoadTimeout)
	defer cancel()
	lock, err := s.lockExisting(ctx, pin.Container(key))
	if lock == nil || err != nil {
		return false, err
	}
	defer s.release(lock)
	return true, s.endContainer(ctx, key, func(o pin.Owner) (*pin.Lock, error) { return s.Lock(ctx, o) })
}

// EndContainers is EndContainer for every container of an id, whatever its bundle:
// for a bundle that is gone, so that its real path can't be told any more. It
// lists all containers.
func (s *Session) EndContainers(ctx context.Context, id string) error {
	keys, err := s.Root.Containers()
	if err != nil {
		return err
	}
	var errs []error
	for _, key := range keys {
		if sameID(key, pin.ContainerKey(id, "")) {
			_, err := s.EndContainer(ctx, key)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sameID reports whether two containers have the same id: their keys differ only
// in the hash of the bundle, which comes last.
func sameID(a, b pin.Key) bool {
	return len(a) == len(b) && a[:strings.LastIndexByte(string(a), '-')+1] == b[:strings.LastIndexByte(string(b), '-')+1]
}

// locking takes the lock of a sandbox: it waits, or skips what is busy.
type locking func(pin.Owner) (*pin.Lock, error)

func (s *Session) endContainer(ctx context.Context, key pin.Key, lock locking) error {
	places, err := s.Root.Entries(pin.Container(key))
	if err != nil {
		return err
	}
	left := sandboxes{}
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
		left.add(rec)
		errs = append(errs, s.retire(p, reasonEnded))
	}
	for sandbox, cookie := range left {
		errs = append(errs, s.leaveSandbox(ctx, sandbox, cookie, lock))
	}
	return errors.Join(errs...)
}

// allLive reports whether every program of an entry is attached as recorded.
func (s *Session) allLive(e *pin.Entry, rec *pin.Record) bool {
	for _, p := range rec.Programs {
		info, err := s.rowInfo(e, rec, p)
		if err != nil || info.State == attach.Severed || info.LinkID != p.LinkID || info.ProgramID != p.ProgramID {
			return false
		}
	}
	return true
}
