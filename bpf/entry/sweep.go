// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"io/fs"

	"github.com/linkpin/linkpin/bpf/pin"
)

// sweepSize is how many entries of each kind one invocation looks at on its way
// out: enough to heal a node within as many starts as it has containers, and a
// cost that does not grow with their number.
const sweepSize = 2

// Sweep looks at a few entries from a random start and removes what has ended.
// What is busy is skipped. Errors go to Warn: a sweep never fails its invocation.
func (s *Session) Sweep(ctx context.Context) {
	for _, sample := range []struct {
		dir   pin.Dir
		sweep func(context.Context, string) error
	}{
		{pin.DirRetired, s.sweepRetired},
		{pin.DirStaging, s.sweepStaging},
		{pin.DirContainers, s.sweepContainer},
		{pin.DirSandboxes, s.sweepSandboxDir},
		{pin.DirNetns, s.sweepNetns},
	} {
		names, err := s.Root.Sample(sample.dir, sweepSize)
		if err != nil {
			s.warn(err)
			continue
		}
		for _, name := range names {
			if err := sample.sweep(ctx, name); err != nil && !skippable(err) {
				s.warn(err)
			}
		}
	}
}

// skippable reports errors that mean that somebody else is at work on an entry.
func skippable(err error) bool {
	return errors.Is(err, pin.ErrBusy) || errors.Is(err, pin.ErrNotExist) || errors.Is(err, fs.ErrNotExist)
}

func (s *Session) sweepRetired(_ context.Context, name string) error {
	return s.settle(pin.RetiredEntry(name), settleDrained)
}

func (s *Session) sweepStaging(ctx context.Context, name string) error {
	err := s.Root.RemoveStagingFilters(name, s.dropFilters)
	if errors.Is(err, pin.ErrUnfinished) {
		return s.finishIntent(ctx, name)
	}
	return err
}

func (s *Session) sweepNetns(_ context.Context, name string) error {
	cookie, err := pin.ParseCookie(name)
	if err != nil {
		return err
	}
	return s.Root.RemoveDangling(cookie)
}

func (s *Session) sweepContainer(ctx context.Context, name string) error {
	key, err := pin.ParseKey(name)
	if err != nil {
		return err
	}
	owner := pin.Container(key)
	if over, err := s.anyOver(owner); err != nil || !over {
		return err
	}
	lock, err := s.Root.TrySweep(owner)
	if err != nil {
		return err
	}
	defer s.release(lock)
	return s.endContainer(ctx, key, s.Root.TrySweep)
}

func (s *Session) sweepSandboxDir(ctx context.Context, name string) error {
	key, err := pin.ParseKey(name)
	if err != nil {
		return err
	}
	owner := pin.Sandbox(key)
	if over, err := s.anyOver(owner); err != nil || !over {
		return err
	}
	lock, err := s.Root.TrySweep(owner)
	if err != nil {
		return err
	}
	defer s.release(lock)
	return s.sweepSandbox(ctx, key)
}

// sweepSandbox removes members that have ended, and retires entries that have
// lost their target or, if the hook made them, their last member. The sandbox's
// lock must be held.
func (s *Session) sweepSandbox(ctx context.Context, key pin.Key) error {
	members, err := s.Root.Members(key)
	if err != nil {
		return err
	}
	left := 0
	for _, m := range members {
		ended, err := s.memberEnded(key, m)
		if err != nil {
			return err
		}
		if !ended {
			left++
			continue
		}
		if err := s.Root.RemoveMember(key, m); err != nil {
			return err
		}
	}
	places, err := s.Root.Entries(pin.Sandbox(key))
	if err != nil {
		return err
	}
	var errs []error
	cookies := map[uint64]bool{}
	for _, p := range places {
		rec, err := s.readRecord(p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if rec.Netns != nil {
			cookies[rec.Netns.Cookie] = true
		}
		over, reason := rec.By == pin.ByHook && left == 0, reasonLeft
		if !over {
			reason = reasonSevered
			over, err = s.sandboxEntryOver(p, rec)
		}
		if err == nil && over {
			err = s.retire(p, reason)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, s.tidySandbox(ctx, key, cookies))...)
}
