// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"

	"github.com/linkpin/linkpin/bpf/pin"
)

// Lock locks an owner, making its directory if there is none; see pin.Root.Lock. It does
// not wait for a sweeper that is stopped: what has ended it takes away itself.
func (s *Session) Lock(ctx context.Context, o pin.Owner) (*pin.Lock, error) {
	return s.Root.LockSweeping(ctx, o, func() {
		var err error
		if o.IsSandbox() {
			err = s.sweepSandboxDir(ctx, string(o.Key()))
		} else {
			err = s.sweepContainer(ctx, string(o.Key()))
		}
		if !skippable(err) {
			s.warn(err)
		}
		s.settleLatest()
	})
}

// latest is how many retired entries who waits for a lock looks at.
const latest = 32

// settleLatest finishes what has been retired last: a sweeper that was stopped right
// after the rename may have left a link that keeps a namespace, and with it the rest of
// what is swept.
func (s *Session) settleLatest() {
	places, err := s.Root.Retired() // oldest first
	s.warn(err)
	for _, p := range places[max(len(places)-latest, 0):] {
		if err := s.settle(p, settleDrained); !skippable(err) {
			s.warn(err)
		}
	}
}

// lockExisting locks an owner that has entries; it returns nil if there are none.
// pin.LockTimeout applies if ctx has no deadline.
func (s *Session) lockExisting(ctx context.Context, o pin.Owner) (*pin.Lock, error) {
	places, err := s.Root.Entries(o)
	if err != nil {
		return nil, err
	}
	if len(places) == 0 {
		return nil, nil
	}
	return s.Lock(ctx, o)
}

// anyOver reports, without a lock, whether an owner has an entry that is over, or none at
// all. Sweepers ask before they lock: whose entries are in force is held up by nobody.
func (s *Session) anyOver(o pin.Owner) (bool, error) {
	places, err := s.Root.Entries(o)
	if err != nil || len(places) == 0 {
		return err == nil, err
	}
	var errs []error
	for _, p := range places {
		rec, err := s.readRecord(p)
		if err == nil {
			var over bool
			if over, err = s.over(Item{Place: p, Record: rec}); over && err == nil {
				return true, nil
			}
		}
		if !skippable(err) {
			errs = append(errs, err)
		}
	}
	return false, errors.Join(errs...)
}
