// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs/fault"
)

// FinishIntents finishes every update that its maker has left unfinished and nobody is
// at work on. It never waits. Errors go to Warn.
func (s *Session) FinishIntents(ctx context.Context) {
	names, err := s.Root.StagingNames()
	s.warn(err)
	for _, name := range names {
		if _, _, err := s.Root.ReadIntent(name); err != nil {
			if !noIntent(err) {
				s.warn(err)
			}
			continue
		}
		if err := s.finishIntent(ctx, name); err != nil && !skippable(err) {
			s.warn(err)
		}
	}
}

// noIntent reports whether there is no intent in a staging directory, or it has gone.
func noIntent(err error) bool {
	return errors.Is(err, pin.ErrIncomplete) || errors.Is(err, fs.ErrNotExist)
}

// PendingGenerations returns the generations of the applied set that unfinished updates
// lead to. What can't be read is an error.
func (s *Session) PendingGenerations() ([]string, error) {
	names, err := s.Root.StagingNames()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range names {
		in, _, err := s.Root.ReadIntent(name)
		switch {
		case err == nil:
			out = append(out, in.Generation)
		case !noIntent(err):
			return nil, err
		}
	}
	return out, nil
}

// Unfinished returns the intent that is about an entry; ok is false if there is none.
// It takes no locks: the update may be under way.
func (s *Session) Unfinished(p pin.Place) (in pin.Intent, ok bool) {
	names, err := s.Root.StagingNames()
	if err != nil {
		return in, false
	}
	for _, name := range names {
		if in, _, err := s.Root.ReadIntent(name); err == nil && concerns(&in, p) {
			return in, true
		}
	}
	return pin.Intent{}, false
}

func concerns(in *pin.Intent, p pin.Place) bool {
	return slices.ContainsFunc(in.Entries, func(e pin.IntentEntry) bool { return e.Place == p.String() })
}

// settlePlace finishes the unfinished updates of an entry whose owner is locked. The
// error wraps pin.ErrBusy if that can't be done now. An update that can't be read may be
// about any entry.
func (s *Session) settlePlace(ctx context.Context, p pin.Place) error {
	names, err := s.Root.StagingNames()
	if err != nil {
		return err
	}
	for _, name := range names {
		in, _, err := s.Root.ReadIntent(name)
		if noIntent(err) || len(in.Entries) > 0 && !concerns(&in, p) {
			continue
		}
		if err != nil {
			return err
		}
		if err := s.finishIntent(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("an unfinished update: %w", err)
		}
	}
	return nil
}

// finishIntent finishes one update that its maker has left. Locks are taken in the
// order of all others, without waiting; those that the session holds already are good.
func (s *Session) finishIntent(ctx context.Context, name string) error {
	p, err := s.Root.OpenPending(name)
	if err != nil {
		return err
	}
	defer p.Close()
	owners, err := p.Intent.Owners()
	if err != nil {
		return err
	}
	for _, o := range owners {
		if s.Root.Holds(o) {
			continue
		}
		lock, err := s.Root.TryLock(o)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended
		}
		if err != nil {
			return err
		}
		defer s.release(lock)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, AttachTimeout, tookTooLong("exchanging programs", AttachTimeout))
	defer cancel()
	return s.carryOut(ctx, p)
}

// errLeft means that an update was left unfinished: its intent is still there.
var errLeft = errors.New("the update is not finished")

func left(p *pin.Pending, err error) error {
	if err == nil {
		return nil
	}
	return fault.New("policy "+p.Intent.Policy, fmt.Errorf("%w: %w", errLeft, err), "`linkpin gc` finishes it")
}

// carryOut rolls an intent forward, or back if one of its links refuses: then the error
// says which and why, and everything is as it was. Any other error wraps errLeft, and
// the intent stays. The locks of all owners that still exist must be held. It can be
// done again from the beginning, wherever it was interrupted.
func (s *Session) carryOut(ctx context.Context, p *pin.Pending) error {
	s.at("intent")
	there, err := s.stillThere(p)
	if err != nil {
		return left(p, err)
	}
	if !p.Decided() {
		if refusal := s.swapAll(ctx, p, there); refusal != nil {
			s.at("refused")
			if err := s.rollBack(p, there); err != nil {
				return left(p, errors.Join(refusal, err))
			}
			return refusal
		}
		if err := p.Decide(); err != nil {
			return left(p, err)
		}
		s.at("decided")
	}
	for _, e := range there {
		if err := s.finalise(p, e); err != nil {
			return left(p, err)
		}
		s.at("finalised")
	}
	return left(p, p.Remove())
}

// stillThere returns the entries of an intent that have not been retired, removed or
// made anew since. Whether an entry is still there must be known of each: to leave one
// out is to update the others without it.
func (s *Session) stillThere(p *pin.Pending) ([]*pin.IntentEntry, error) {
	var there []*pin.IntentEntry
	for i := range p.Intent.Entries {
		e := &p.Intent.Entries[i]
		place, err := pin.ParsePlace(e.Place)
		if err != nil {
			return nil, err
		}
		rec, err := s.readRecord(place)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fault.New(e.Place, err, "see `linkpin verify`")
		case !rec.Created.Equal(e.Published) || rec.Digest != e.From && rec.Digest != e.To:
			continue
		}
		if owner, ok := place.Owner(); !ok || !s.Root.Holds(owner) {
			return nil, fault.New(e.Place, pin.ErrBusy, "")
		}
		there = append(there, e)
	}
	return there, nil
}

// swapAll gives every link its new program. An error means that one of them refuses.
func (s *Session) swapAll(ctx context.Context, p *pin.Pending, there []*pin.IntentEntry) error {
	for _, e := range there {
		for i := range e.Swaps {
			w := &e.Swaps[i]
			err := expired(ctx)
			if err == nil {
				err = s.swapLink(p, e, w.Link, w.LinkID, w.Old, w.New)
			}
			if err != nil {
				return fault.New(e.Place+": program "+w.Link, err, "")
			}
			s.at("swapped")
		}
	}
	return nil
}

// swapLink puts one program in the place of another. A link whose target has gone, or
// that is gone itself, has nothing to refuse.
func (s *Session) swapLink(p *pin.Pending, e *pin.IntentEntry, link string, id uint32, from, to pin.IntentProgram) error {
	l, err := s.openLink(e, link, id)
	if err != nil || l == nil {
		return err
	}
	defer func() { s.warn(l.Close()) }()
	info, err := l.Info()
	if err != nil {
		return err
	}
	if info.ProgramID == to.ID {
		return nil
	}
	now, err := openStagedProgram(p, to)
	if err != nil {
		return err
	}
	defer func() { s.warn(now.Close()) }()
	old, err := openStagedProgram(p, from)
	if err != nil {
		return err
	}
	defer func() { s.warn(old.Close()) }()
	if err := l.Replace(now, old); err != nil && !errors.Is(err, target.ErrGone) {
		return err
	}
	return nil
}

// openLink opens a link of an entry, by its id if somebody has unpinned it; nil if it
// is gone.
func (s *Session) openLink(e *pin.IntentEntry, name string, id uint32) (*attach.Link, error) {
	place, err := pin.ParsePlace(e.Place)
	if err != nil {
		return nil, err
	}
	entry, err := s.Root.Entry(place)
	if err != nil {
		return nil, err
	}
	l, err := attach.OpenPinned(entry.LinkPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		l, err = attach.OpenID(id)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no link is an answer
	}
	return l, err
}

// rollBack gives every link that has the new program the old one again, and takes off
// what was added. A link that holds neither stays as it is: somebody else has changed
// it, and verify shows it.
func (s *Session) rollBack(p *pin.Pending, there []*pin.IntentEntry) error {
	for _, e := range there {
		for i := range e.Swaps {
			w := &e.Swaps[i]
			err := s.swapLink(p, e, w.Link, w.LinkID, w.New, w.Old)
			if err != nil && !errors.Is(err, attach.ErrForeign) {
				return err // the intent stays: whoever finds it tries again
			}
			s.at("swapped back")
		}
	}
	var staged []string
	for _, e := range p.Intent.Entries {
		for _, m := range e.Moves {
			if m.Link != "" {
				staged = append(staged, p.Path(m.Staged))
			}
		}
	}
	release := hold(staged...)
	return errors.Join(p.Remove(), release())
}

// finalise brings the pins of an entry into step with its links.
func (s *Session) finalise(p *pin.Pending, e *pin.IntentEntry) error {
	place, err := pin.ParsePlace(e.Place)
	if err != nil {
		return err
	}
	entry, err := s.Root.Entry(place)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var off []string // what is attached no more
	for _, name := range e.DropLinks {
		off = append(off, entry.LinkPath(name))
	}
	for _, m := range e.Moves {
		if m.Link != "" { // the new one, if it was moved before: then holding it does nothing
			off = append(off, entry.LinkPath(m.Link))
		}
	}
	release := hold(off...)
	return errors.Join(p.Finalise(e), release())
}
