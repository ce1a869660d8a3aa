// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs/fault"
)

// unitTries bounds how often a unit is looked at anew because others have changed it
// between loading and locking. The last time everything is done under the locks.
const unitTries = 3

var errUnitChanged = errors.New("containers come and go in its sandbox all the time")

// exchange updates a unit. Hooks wait for its locks, and give up after LockTimeout:
// programs are loaded before these are taken, and under them it is only made sure that
// what they were loaded for is still so.
func (s *Session) exchange(ctx context.Context, u *unit, o UpdateOptions, r *UnitUpdate) error {
	for try := 1; try <= unitTries; try++ {
		a := attempt{underLock: try == unitTries}
		if !a.underLock {
			a.changes, a.err = s.prepareUnit(ctx, u)
			s.at("prepared")
		}
		if again, err := s.exchangeLocked(ctx, u, o, r, &a); !again {
			return err
		}
	}
	return fault.New("policy "+u.policy, errUnitChanged, "try again")
}

// attempt is what was prepared of a unit without its locks.
type attempt struct {
	changes   []*change
	err       error // why it could not be
	underLock bool  // nothing was: it will be under the locks
}

// exchangeLocked does what has to be done under the locks of a unit. again is true if
// the unit is not what was prepared any more; u is what it is now.
func (s *Session) exchangeLocked(ctx context.Context, u *unit, o UpdateOptions, r *UnitUpdate, a *attempt) (again bool, err error) {
	defer func() { s.closeChanges(a.changes) }()
	owners := u.owners()
	locks, err := s.lockUnit(ctx, owners)
	defer func() {
		for _, l := range slices.Backward(locks) {
			s.release(l)
		}
		s.at("released")
	}()
	if err != nil {
		return false, err
	}
	s.at("locked")
	if err := s.settleUnit(ctx, u); err != nil {
		return false, err
	}
	changed, err := s.reread(u)
	if err != nil {
		return false, err
	}
	r.Items = u.items
	grown := slices.ContainsFunc(u.owners(), func(o pin.Owner) bool { return !slices.Contains(owners, o) })
	switch {
	case grown, changed && !a.underLock:
		return true, nil
	case !s.selected(u, o):
		r.Outcome = OutcomeUnselected
		return false, nil
	case a.underLock:
		a.changes, a.err = s.prepareUnit(ctx, u)
	case a.err == nil:
		a.err = s.stillSo(a.changes)
	}
	if a.err != nil {
		return errors.Is(a.err, errUnitChanged), a.err
	}
	r.count(a.changes)
	if len(a.changes) == 0 {
		r.Outcome = u.nothingToDo(r.To)
		return false, nil
	}
	pending, err := s.stage(ctx, u.policy, a.changes)
	if err != nil {
		return false, err
	}
	defer pending.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, AttachTimeout, tookTooLong("exchanging programs", AttachTimeout))
	defer cancel()
	return false, s.carryOut(ctx, pending)
}

// owners returns whose locks a unit needs, in the order that all keep to: containers,
// then the sandbox.
func (u *unit) owners() []pin.Owner {
	var owners []pin.Owner
	for _, it := range u.items {
		if o, ok := it.Place.Owner(); ok {
			owners = append(owners, o)
		}
		if it.Record != nil && it.Record.Sandbox != "" { // nobody joins it meanwhile
			owners = append(owners, pin.Sandbox(it.Record.Sandbox))
		}
	}
	return pin.SortOwners(owners)
}

// has reports whether there is anything of an owner to be locked.
func (s *Session) has(o pin.Owner) bool {
	if places, err := s.Root.Entries(o); err != nil || len(places) > 0 {
		return true
	}
	if !o.IsSandbox() {
		return false
	}
	members, err := s.Root.Members(o.Key())
	return err != nil || len(members) > 0
}

// lockUnit locks the owners of a unit. What has ended meanwhile is left out.
func (s *Session) lockUnit(ctx context.Context, owners []pin.Owner) (locks []*pin.Lock, err error) {
	ctx, cancel := context.WithTimeout(ctx, LoadTimeout)
	defer cancel()
	for _, o := range owners {
		if !s.has(o) {
			continue
		}
		l, err := s.Lock(ctx, o)
		if err != nil {
			return locks, err
		}
		locks = append(locks, l)
	}
	return locks, nil
}

// settleUnit finishes what others have left unfinished in a unit.
func (s *Session) settleUnit(ctx context.Context, u *unit) error {
	for _, it := range u.items {
		err := s.settlePlace(ctx, it.Place)
		var f *fault.Error
		switch {
		case err == nil:
		case errors.As(err, &f) && f.Remedy != "":
			return err
		default:
			return fault.New(it.Place.String(), err, "`linkpin gc` finishes it")
		}
	}
	return nil
}

// reread lists the entries of a unit again, with those of containers that have joined
// its sandbox since, and reports whether they are others than before.
func (s *Session) reread(u *unit) (changed bool, err error) {
	owners := u.owners()
	for _, o := range slices.Clone(owners) {
		if !o.IsSandbox() {
			continue
		}
		members, err := s.Root.Members(o.Key())
		if err != nil {
			return false, err
		}
		for _, m := range members {
			owners = append(owners, pin.Container(m))
		}
	}
	var items []Item
	for _, o := range pin.SortOwners(owners) {
		places, err := s.Root.Entries(o)
		if err != nil {
			return false, err
		}
		for _, p := range places {
			it, ok := s.Look(p)
			if ok && (p.Policy() == u.policy || it.Record != nil && it.Record.Policy == u.policy) {
				items = append(items, it)
			}
		}
	}
	was := u.items
	u.items = items
	return !slices.EqualFunc(sorted(was), sorted(items), func(a, b Item) bool {
		return a.Place == b.Place && reflect.DeepEqual(a.Record, b.Record)
	}), nil
}

func sorted(items []Item) []Item {
	return slices.SortedFunc(slices.Values(items), func(a, b Item) int { return strings.Compare(a.Place.String(), b.Place.String()) })
}

// stillSo makes sure of what was prepared without the locks: the entries are as they
// were recorded, which reread has compared, and their maps are those that the programs
// were loaded for. The error wraps errUnitChanged if it has to be prepared again.
func (s *Session) stillSo(changes []*change) error {
	for _, c := range changes {
		if it, ok := s.Look(c.item.Place); ok {
			c.item = it
		}
		switch err := s.asRecorded(c); {
		case errors.Is(err, errEnded):
			return errUnitChanged
		case err != nil:
			return err
		}
		entry, err := s.Root.Entry(c.item.Place)
		if err != nil {
			return err
		}
		if !slices.Equal(entry.Maps(), c.entry.Maps()) {
			return errUnitChanged
		}
		c.entry = entry
		for name, m := range c.maps {
			if same, err := sameMap(entry.MapPath(name), m); err != nil {
				return fmt.Errorf("map %s: %w", name, err)
			} else if !same {
				return errUnitChanged
			}
		}
	}
	return nil
}

// sameMap reports whether a map is the one that is pinned at path.
func sameMap(path string, m *ebpf.Map) (bool, error) {
	pinned, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return false, err
	}
	defer pinned.Close()
	a, err := pinned.Info()
	if err != nil {
		return false, err
	}
	b, err := m.Info()
	if err != nil {
		return false, err
	}
	x, _ := a.ID()
	y, _ := b.ID()
	return x == y, nil
}
