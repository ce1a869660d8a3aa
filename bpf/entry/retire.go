// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// RetiredCap is how many entries may drain at once; beyond it the oldest are
// detached, and reported to Warn.
const RetiredCap = 1024

// retire moves an entry to retired/ by one rename and removes what may go.
func (s *Session) retire(p pin.Place, reason string) error {
	var on pin.Target
	if rec, err := s.readRecord(p); err == nil {
		on = retiredTarget(p, rec)
	}
	r, err := s.Root.RetireFrom(p, reason, on)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody else retired it
	}
	if err != nil {
		return err
	}
	if err := s.settle(r, settleDrained); !skippable(err) {
		// It is retired; a later sweep finishes.
		s.warn(err)
	}
	return s.capRetired()
}

// retiredTarget returns what the links of an entry are on, for its name in retired/. What
// the hook has attached to an interface has the container's cgroup in its record, too.
func retiredTarget(p pin.Place, rec *pin.Record) pin.Target {
	switch kind := p.Kind(); {
	case (kind == pin.InterfacePlace || kind == pin.HookInterfacePlace || kind == pin.NetnsPlace) && rec.Netns != nil:
		return pin.Target{Netns: rec.Netns.Cookie}
	case rec.Cgroup != nil:
		return pin.Target{Cgroup: rec.Cgroup.ID}
	}
	return pin.Target{}
}

// takeDown removes an entry whose target lives on, so that it can be made anew. The
// descriptors are held across it: when it returns, the links are off.
func (s *Session) takeDown(e *pin.Entry) error {
	var held []*attach.Link
	for _, name := range e.Links() {
		if l, err := attach.OpenPinned(e.LinkPath(name)); err == nil {
			held = append(held, l)
		}
	}
	errs := []error{s.removeEntry(e)}
	for _, l := range held {
		s.takeOff(l)
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// settling says which links of a retired entry are removed.
type settling int

const (
	settleDrained settling = iota // those that have nothing left to do
	settleAll                     // all of them
)

// settle removes those links of a retired entry that have nothing left to do:
// severed ones, all if the policy says `teardown: detach` or if the interface goes
// back to the host when the namespace ends, netfilter links, which would hold their
// namespace for ever, and those of tracing programs, which would run for ever. With its
// last link the entry goes.
func (s *Session) settle(p pin.Place, how settling) error {
	e, err := s.Root.Entry(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// A record that can't be read does not keep severed links alive.
	if rec, err := e.Record(); err == nil && (rec.Teardown == specs.Detach || outlives(&rec)) {
		how = settleAll
	}
	left := 0
	for _, name := range e.Links() {
		removed, err := s.settleLink(e, name, how)
		if err != nil {
			return fmt.Errorf("retired %s: link %s: %w", p, name, err)
		}
		if !removed {
			left++
		}
	}
	filters, err := s.settleFilters(e, how)
	if err != nil {
		return fmt.Errorf("retired %s: %w", p, err)
	}
	if left+filters > 0 {
		return nil
	}
	return e.Remove()
}

// drains reports whether a link is in force, and the kernel will sever it by itself.
func drains(info attach.Info) bool {
	return info.State == attach.Live && info.Hook.Target() != specs.TargetKernel
}

// outlives reports whether an entry is attached to an interface that lives on after
// its namespace: on the host the program would see what is none of its business.
func outlives(rec *pin.Record) bool {
	return rec.Interface != nil && !rec.Interface.DiesWithNetns &&
		slices.ContainsFunc(rec.Programs, func(p pin.ProgramRecord) bool { return p.Target == specs.TargetInterface })
}

// settleLink removes one link's pin. The descriptor is held across it, so that the
// link is gone when this returns.
func (s *Session) settleLink(e *pin.Entry, name string, how settling) (removed bool, err error) {
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
	if how != settleAll && drains(info) {
		return false, nil
	}
	s.takeOff(l)
	return true, e.RemoveLink(name)
}

// takeOff detaches a link that is to go. Closing the last descriptor would do
// so, but somebody else may have one open and be stopped: a sweep, or a listing. The
// kernel keeps a network namespace as long as a netfilter link is attached to it.
// Tracing links can't be detached.
func (s *Session) takeOff(l *attach.Link) {
	if err := l.Detach(); err != nil && !errors.Is(err, ebpf.ErrNotSupported) {
		s.warn(err)
	}
}

// capRetired detaches the oldest retired entries beyond RetiredCap.
func (s *Session) capRetired() error {
	limit := cmp.Or(s.retiredCap, RetiredCap)
	n, err := s.Root.RetiredCount()
	if err != nil || n <= limit {
		return err
	}
	names, err := s.Root.Retired() // oldest first
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range names[:max(len(names)-limit, 0)] {
		s.warn(fmt.Errorf("retired %s: detached while still draining: more than %d entries drain", p, limit))
		errs = append(errs, s.settle(p, settleAll))
	}
	return errors.Join(errs...)
}
