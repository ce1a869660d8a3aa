// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// Repair mends the drift of one entry: it pins again what was unpinned, and
// attaches again what was taken off, with the same program where that still
// exists and otherwise with one loaded from the applied plan against the entry's
// pinned maps. It never touches what is not ours. The findings are those after
// the repair: what was mended has Repaired set.
func (s *Session) Repair(ctx context.Context, p pin.Place) ([]Finding, error) {
	owner, ok := p.Owner()
	if !ok {
		return nil, nil
	}
	lock, err := s.lockExisting(ctx, owner)
	if lock == nil || err != nil {
		return nil, err
	}
	defer lock.Release()
	it, ok := s.Look(p)
	if !ok {
		return nil, nil
	}
	findings := s.Verify(it)
	for i := range findings {
		f := &findings[i]
		if f.Problem.Drift() {
			f.Repaired, f.Err = s.repair(ctx, it, f)
		}
	}
	return findings, nil
}

// repair mends one link and brings the record into step.
func (s *Session) repair(ctx context.Context, it Item, f *Finding) (string, error) {
	e, err := s.Root.Entry(it.Place)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(it.Record.Programs, func(p pin.ProgramRecord) bool { return p.Name == f.Program })
	row := &it.Record.Programs[i]
	if f.Problem == ProblemUnpinned {
		return "pinned again", s.repin(e, row)
	}
	if f.Problem == ProblemLink && it.Links[i].Info.State == attach.Live && it.Links[i].Info.ProgramTag == row.Tag {
		// A repair was killed between pin and record.
		row.LinkID, row.ProgramID = it.Links[i].Info.LinkID, it.Links[i].Info.ProgramID
		return "recorded again", e.ReplaceRecord(*it.Record)
	}
	t, done, err := s.reopen(it.Place, it.Record, *row)
	if err != nil {
		return "", err
	}
	defer done()
	prog, how, free, err := s.program(ctx, e, it, i, t)
	if err != nil {
		return "", err
	}
	defer free()
	if f.Problem == ProblemProgram {
		if err := s.swap(e, row, prog); err != nil {
			return "", err
		}
		how = "program put back, " + how
	} else if err := s.reattach(e, row, prog, t); err != nil {
		return "", err
	} else {
		how = "new link, " + how
	}
	return how, e.ReplaceRecord(*it.Record)
}

func (s *Session) repin(e *pin.Entry, row *pin.ProgramRecord) error {
	l, err := attach.OpenID(row.LinkID)
	if err != nil {
		return err
	}
	defer l.Close()
	return e.ReplaceLink(row.Name, l)
}

func (s *Session) reattach(e *pin.Entry, row *pin.ProgramRecord, prog *ebpf.Program, t attach.Target) error {
	l, err := attach.Attach(prog, specs.Attachment{
		Name: row.Name, Hook: row.Hook, Side: row.Side, Mode: row.Mode, Netfilter: row.Netfilter,
	}, t)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := e.ReplaceLink(row.Name, l); err != nil {
		return err
	}
	return note(row, l)
}

// swap puts the recorded program back into a live link.
func (s *Session) swap(e *pin.Entry, row *pin.ProgramRecord, prog *ebpf.Program) error {
	l, err := attach.OpenPinned(e.LinkPath(row.Name))
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Update(prog); err != nil {
		return err
	}
	return note(row, l)
}

func note(row *pin.ProgramRecord, l *attach.Link) error {
	info, err := l.Info()
	if err != nil {
		return err
	}
	row.LinkID, row.ProgramID, row.Tag = info.LinkID, info.ProgramID, info.ProgramTag
	return nil
}

// program finds the recorded program, or loads it again. free gives it up.
func (s *Session) program(ctx context.Context, e *pin.Entry, it Item, i int, t attach.Target) (_ *ebpf.Program, how string, free func(), err error) {
	row := it.Record.Programs[i]
	if p, err := ebpf.NewProgramFromID(ebpf.ProgramID(row.ProgramID)); err == nil {
		info, err := p.Info()
		if err == nil && info.Tag == row.Tag {
			return p, "same program", func() { s.warn(p.Close()) }, nil
		}
		s.warn(p.Close())
	}
	if s.Plans == nil {
		return nil, "", nil, fmt.Errorf("program %d is gone and no policies are applied", row.ProgramID)
	}
	plan, err := s.Plans.PlanByDigest(it.Record.Digest)
	if err != nil {
		return nil, "", nil, fmt.Errorf("program %d is gone and its policy was applied anew since: %w", row.ProgramID, err)
	}
	maps := map[string]*ebpf.Map{}
	closeMaps := func() {
		for _, m := range maps {
			s.warn(m.Close())
		}
	}
	for _, name := range e.Maps() {
		m, err := ebpf.LoadPinnedMap(e.MapPath(name), nil)
		if err != nil {
			closeMaps()
			return nil, "", nil, err
		}
		maps[name] = m
	}
	sub := &Subject{Identity: it.Record.Identity, PID: it.Record.PID, Cgroup: t.Cgroup, Netns: t.Netns}
	if t.Interface != nil {
		sub.Netns = t.Interface.Netns
	}
	col, err := load.Load(ctx, load.Options{
		Plan: plan, Object: s.Plans.Object, Attach: []string{row.Name}, Maps: maps,
		Values: values(sub, Want{Interface: t.Interface}),
	})
	if err != nil {
		closeMaps()
		return nil, "", nil, err
	}
	free = func() { s.warn(col.Close()); closeMaps() }
	return col.Programs[row.Key], "program loaded again", free, nil
}
