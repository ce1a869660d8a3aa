// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// RetiredCap is how many entries may drain at once; beyond it the oldest are
// detached, and reported to Warn.
const RetiredCap = 1024

// retire moves an entry to retired/ by one rename and removes what may go.
func (s *Session) retire(p pin.Place, reason string) error {
	return s.retireAs(p, reason, settleDrained)
}

// retireDetached is retire for an entry whose links must not stay.
func (s *Session) retireDetached(p pin.Place, reason string) error {
	return s.retireAs(p, reason, settleAll)
}

func (s *Session) retireAs(p pin.Place, reason string, how settling) error {
	r, err := s.Root.Retire(p, reason)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody else retired it
	}
	if err != nil {
		return err
	}
	if _, err := s.settle(r, how); err != nil {
		// It is retired; a later sweep finishes.
		s.warn(err)
	}
	return s.capRetired()
}

// settling says which links of a retired entry are removed.
type settling int

const (
	settleDrained settling = iota // those that have nothing left to do
	settleAll                     // all of them
)

// settle removes those links of a retired entry that have nothing left to do:
// severed ones, all if the policy says `teardown: detach`, and netfilter links,
// which would hold their namespace for ever. With its last link the entry goes. It
// reports whether the entry is gone.
func (s *Session) settle(p pin.Place, how settling) (gone bool, err error) {
	e, err := s.Root.Entry(p)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	// A record that can't be read does not keep severed links alive.
	if rec, err := e.Record(); err == nil && rec.Teardown == specs.Detach {
		how = settleAll
	}
	left := 0
	for _, name := range e.Links() {
		removed, err := settleLink(e, name, how)
		if err != nil {
			return false, fmt.Errorf("retired %s: link %s: %w", p, name, err)
		}
		if !removed {
			left++
		}
	}
	if left > 0 {
		return false, nil
	}
	return true, e.Remove()
}

// settleLink removes one link's pin. The descriptor is held across it, so that the
// link is gone when this returns.
func settleLink(e *pin.Entry, name string, how settling) (removed bool, err error) {
	l, err := attach.OpenPinned(e.LinkPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	info, err := l.Info()
	if err != nil {
		return false, err
	}
	if how != settleAll && info.State == attach.Live {
		return false, nil
	}
	return true, e.RemoveLink(name)
}

// capRetired detaches the oldest retired entries beyond RetiredCap.
func (s *Session) capRetired() error {
	n, err := s.Root.RetiredCount()
	if err != nil || n <= RetiredCap {
		return err
	}
	names, err := s.Root.Retired() // oldest first
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range names[:max(len(names)-RetiredCap, 0)] {
		s.warn(fmt.Errorf("retired %s: detached while still draining: more than %d entries drain", p, RetiredCap))
		_, err := s.settle(p, settleAll)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
