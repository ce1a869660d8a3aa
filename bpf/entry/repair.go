// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
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
	if err := s.checkWritable(); err != nil {
		return nil, err
	}
	s.FinishIntents(ctx)
	lock, err := s.lockExisting(ctx, owner)
	if lock == nil || err != nil {
		return nil, err
	}
	defer s.release(lock)
	return s.repairEntry(ctx, p), nil
}

// repairEntry is Repair for an entry whose owner is locked.
func (s *Session) repairEntry(ctx context.Context, p pin.Place) []Finding {
	s.warn(s.settlePlace(ctx, p))
	it, ok := s.Look(p)
	if !ok {
		return nil
	}
	findings := s.Verify(it)
	mended := false
	for i := range findings {
		switch f := &findings[i]; {
		case f.Problem == ProblemReplaced:
			// What is there now is another interface: whoever made it must ask for programs.
		case f.Problem.Drift():
			f.Repaired, f.Err = s.repair(ctx, it, f)
			mended = mended || f.Err == nil
		case f.Problem == ProblemUnknown && f.Program != "":
			s.retryNetfilter(ctx, it, f)
		}
	}
	if mended {
		s.repairRest(ctx, p, findings)
	}
	return findings
}

// repairRest looks again at what was mended: what was unpinned may have been detached
// or updated as well. What it does is added to the findings.
func (s *Session) repairRest(ctx context.Context, p pin.Place, findings []Finding) {
	it, ok := s.Look(p)
	if !ok {
		return
	}
	for _, rest := range s.Verify(it) {
		i := slices.IndexFunc(findings, func(f Finding) bool { return f.Program == rest.Program })
		if i < 0 || findings[i].Err != nil || findings[i].Repaired == "" || !rest.Problem.Drift() || rest.Problem == ProblemReplaced {
			continue
		}
		f := &findings[i]
		f.Detail += "; " + rest.Detail
		how, err := s.repair(ctx, it, &rest)
		f.Repaired, f.Err = f.Repaired+"; "+how, err
	}
}

// mend repairs an entry on the way and says so. mended is false if something is
// left; err then says what, unless the entry's target is gone.
func (s *Session) mend(ctx context.Context, p pin.Place) (mended bool, err error) {
	mended = true
	for _, f := range s.repairEntry(ctx, p) {
		switch {
		case f.Problem == ProblemUnknown && f.Err == nil, f.Problem == ProblemUnconfirmed:
		case f.Problem == ProblemUpdating: // the old program runs, or the new one
		case f.Repaired != "" && f.Err == nil:
			s.warn(fmt.Errorf("%s: program %s: %s: %s", p, f.Program, f.Detail, f.Repaired))
		default:
			mended = false
			if f.Problem != ProblemEnded {
				err = errors.Join(err, fault.New(p.String()+": program "+f.Program, cmp.Or(f.Err, errors.New(f.Detail)), "see `linkpin verify`"))
			}
		}
	}
	return mended, err
}

// repair mends one link and brings the record into step.
func (s *Session) repair(ctx context.Context, it Item, f *Finding) (string, error) {
	e, err := s.Root.Entry(it.Place)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(it.Record.Programs, func(p pin.ProgramRecord) bool { return p.Name == f.Program })
	row := &it.Record.Programs[i]
	if row.Filter != nil {
		return s.repairFilter(ctx, e, it, i, f.Problem)
	}
	if f.Problem == ProblemUnpinned {
		return "pinned again", s.repin(e, row)
	}
	if f.Problem == ProblemLink && sameTarget(it.Links[i].Info, it.Record, row) && it.Links[i].Info.ProgramTag == row.Tag {
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
	} else if err := s.reattach(ctx, e, row, prog, t); err != nil {
		return "", err
	} else {
		how = "new link, " + how
	}
	return how, e.ReplaceRecord(*it.Record)
}

// sameTarget reports whether a live link is attached where the record says.
func sameTarget(info attach.Info, rec *pin.Record, row *pin.ProgramRecord) bool {
	if info.State != attach.Live || info.Hook != row.Hook {
		return false
	}
	switch row.Target {
	case specs.TargetCgroup, specs.TargetPodCgroup:
		return rec.Cgroup != nil && info.CgroupID == rec.Cgroup.ID
	case specs.TargetInterface:
		return info.Ifindex == row.Ifindex
	case specs.TargetKernel:
		return true // its place is fixed in the program, whose tag is compared
	}
	return rec.Netns != nil && info.NetnsInode == rec.Netns.Inode
}

func (s *Session) repin(e *pin.Entry, row *pin.ProgramRecord) error {
	l, err := attach.OpenID(row.LinkID)
	if err != nil {
		return err
	}
	defer l.Close()
	return e.ReplaceLink(row.Name, l)
}

// freeing is how long the kernel may take from taking a link's id away to taking its
// program off, which waits for a lock that the whole network shares.
const freeing = time.Second

// reattach makes a link anew. What a repair that was killed has made instead, and left
// in staging, goes first: the program would run twice.
func (s *Session) reattach(ctx context.Context, e *pin.Entry, row *pin.ProgramRecord, prog *ebpf.Program, t attach.Target) error {
	s.dropAbandoned(ctx)
	var l *attach.Link
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		var err error
		l, err = attach.Attach(prog, specs.Attachment{
			Name: row.Name, Hook: row.Hook, Side: row.Side, Mode: row.Mode, Netfilter: row.Netfilter,
		}, t)
		if err == nil {
			break
		}
		// The lost link itself may be in the way still. One that is not lost stays there: of a
		// netfilter link nobody knows before whether it is attached.
		if !errors.Is(err, attach.ErrExist) && !errors.Is(err, attach.ErrBusy) || time.Since(start) > freeing || linkExists(row.LinkID) {
			return err
		}
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
	if row.Target == specs.TargetInterface {
		row.Ifindex = info.Ifindex
	}
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
	ctx, cancel := context.WithTimeoutCause(ctx, LoadTimeout, tookTooLong("loading", LoadTimeout))
	defer cancel()
	col, err := load.Load(ctx, load.Options{
		Plan: plan, Object: s.object, Attach: []string{row.Name}, Maps: maps,
		Values: values(sub, Want{Interface: t.Interface, Kind: row.Target, Cgroup: t.Cgroup}),
	})
	if err != nil {
		closeMaps()
		return nil, "", nil, err
	}
	free = func() { s.warn(col.Close()); closeMaps() }
	return col.Programs[row.Key], "program loaded again", free, nil
}
