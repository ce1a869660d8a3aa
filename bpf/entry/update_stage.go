// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs/fault"
)

// stage fills the maps that could not be kept, attaches what the new version adds, and
// pins everything in a staging directory, the intent last. Until then dying undoes it;
// afterwards whoever finds the intent finishes it.
func (s *Session) stage(ctx context.Context, policy string, changes []*change) (_ *pin.Pending, err error) {
	st, err := s.Root.Stage()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Discard()) }()
	s.at("staging")
	intent := pin.Intent{Policy: policy, Generation: s.Plans.Generation(), Entries: make([]pin.IntentEntry, len(changes))}
	for i, c := range changes {
		if intent.Entries[i], err = s.stageOne(st, c); err != nil {
			return nil, err
		}
	}
	// As late as possible: what the running programs write from here on to a map that
	// is not kept is lost.
	loadCtx, cancel := context.WithTimeoutCause(ctx, LoadTimeout, tookTooLong("copying maps", LoadTimeout))
	defer cancel()
	for _, c := range changes {
		if c.next != nil {
			if err := c.next.Migrate(loadCtx); err != nil {
				return nil, err
			}
		}
	}
	s.at("staged")
	// Last of all: what is added runs from here on, beside what it may stand in for, and
	// must not write to maps before these hold what the running ones do.
	attachCtx, cancel := context.WithTimeoutCause(ctx, AttachTimeout, tookTooLong("attaching", AttachTimeout))
	defer cancel()
	for i, c := range changes {
		if err := s.stageAdded(attachCtx, st, c, &intent.Entries[i]); err != nil {
			return nil, err
		}
	}
	s.at("attached")
	return st.Commit(intent)
}

// stageAdded attaches what the new version of an entry adds, and pins it with the record.
func (s *Session) stageAdded(ctx context.Context, st *pin.Staging, c *change, e *pin.IntentEntry) error {
	if err := s.attachAdded(ctx, c); err != nil {
		return err
	}
	for _, a := range c.adds {
		file, err := st.PinObject(a.link)
		if err != nil {
			return err
		}
		e.Moves = append(e.Moves, pin.IntentMove{Staged: file, Link: c.rows[a.row].Name})
	}
	rec := *c.item.Record
	rec.Programs, rec.Maps = c.rows, nil
	if rec.Programs == nil {
		rec.Programs = []pin.ProgramRecord{}
	}
	if c.next != nil {
		rec.Maps = slices.Sorted(maps.Keys(c.next.Maps))
	}
	rec.Digest, rec.Generation = c.digest, s.Plans.Generation()
	rec.OnError, rec.Teardown, rec.Scope = c.plan.OnError, c.plan.Teardown, c.plan.Scope
	file, err := st.PinRecord(rec)
	if err != nil {
		return err
	}
	e.Moves = append(e.Moves, pin.IntentMove{Staged: file, Record: true})
	return nil
}

func (s *Session) attachAdded(ctx context.Context, c *change) error {
	for i := range c.adds {
		a := &c.adds[i]
		if err := expired(ctx); err != nil {
			return fault.New("policy "+c.want.Policy, err, "the node is overloaded: try again")
		}
		built, err := s.attachOne(c.next.Collection, a.choice, c.sub, c.want)
		if err != nil {
			return fault.New("policy "+c.want.Policy+": program "+a.choice.attachment.Name, err, "")
		}
		a.link = built.link
		row := &c.rows[a.row]
		row.Mode, row.Ifindex = built.attachment.Mode, built.info.Ifindex
		row.LinkID, row.ProgramID, row.Tag = built.info.LinkID, built.info.ProgramID, built.info.ProgramTag
	}
	return nil
}

// stageOne pins what one entry needs, but for what is attached last.
func (s *Session) stageOne(st *pin.Staging, c *change) (pin.IntentEntry, error) {
	e := pin.IntentEntry{
		Place: c.item.Place.String(), Published: c.item.Record.Created, From: c.item.Record.Digest, To: c.digest,
		Swaps: []pin.IntentSwap{}, Moves: []pin.IntentMove{}, DropLinks: c.dropLinks, DropMaps: c.dropMaps,
	}
	staged := map[*ebpf.Program]pin.IntentProgram{}
	program := func(p *ebpf.Program) (pin.IntentProgram, error) {
		if done, ok := staged[p]; ok {
			return done, nil
		}
		var out pin.IntentProgram
		info, err := p.Info()
		if err == nil {
			id, _ := info.ID()
			out.ID, out.Tag = uint32(id), info.Tag
			out.Staged, err = st.PinObject(p)
		}
		staged[p] = out
		return out, err
	}
	for _, w := range c.swaps {
		old, err := program(w.old)
		if err != nil {
			return e, err
		}
		now, err := program(w.now)
		if err != nil {
			return e, err
		}
		row := &c.rows[w.row]
		row.ProgramID, row.Tag = now.ID, now.Tag
		e.Swaps = append(e.Swaps, pin.IntentSwap{Link: row.Name, LinkID: row.LinkID, Old: old, New: now})
	}
	if c.next == nil {
		return e, nil
	}
	for _, name := range slices.Sorted(maps.Keys(c.next.Maps)) {
		if slices.Contains(c.next.Kept, name) {
			continue
		}
		file, err := st.PinObject(c.next.Maps[name])
		if err != nil {
			return e, err
		}
		e.Moves = append(e.Moves, pin.IntentMove{Staged: file, Map: name})
	}
	return e, nil
}

// at tells a test that an update has come to a step.
func (s *Session) at(step string) {
	if s.step != nil {
		s.step(step)
	}
}

// openStagedProgram opens a program that an intent needs and makes sure that it is the
// one that was meant.
func openStagedProgram(p *pin.Pending, want pin.IntentProgram) (*ebpf.Program, error) {
	prog, err := ebpf.LoadPinnedProgram(p.Path(want.Staged), nil)
	if err != nil {
		return nil, err
	}
	info, err := prog.Info()
	if err == nil {
		if id, _ := info.ID(); uint32(id) != want.ID || info.Tag != want.Tag {
			err = fmt.Errorf("%w: program %d (%s), meant was %d (%s)", pin.ErrDamaged, id, info.Tag, want.ID, want.Tag)
		}
	}
	if err != nil {
		return nil, errors.Join(err, prog.Close())
	}
	return prog, nil
}

// hold opens the pinned links at paths, so that they are gone when they are unpinned
// and the returned function has been called.
func hold(paths ...string) func() error {
	var held []*attach.Link
	for _, path := range paths {
		if l, err := attach.OpenPinned(path); err == nil {
			held = append(held, l)
		}
	}
	return func() error {
		var errs []error
		for _, l := range held {
			errs = append(errs, l.Close())
		}
		return errors.Join(errs...)
	}
}
