// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// repairFilter mends the filter of a row of a locked entry: it puts the recorded
// program back into it, or makes it anew, at its old priority if that is free.
func (s *Session) repairFilter(ctx context.Context, e *pin.Entry, it Item, i int, problem Problem) (string, error) {
	row := it.Record.Programs[i]
	t, done, err := s.reopen(it.Place, it.Record, row)
	if err != nil {
		return "", err
	}
	defer done()
	prog, how, free, err := s.filterProgram(ctx, e, it, i, t)
	if err != nil {
		return "", err
	}
	defer free()
	note, err := e.Filters()
	if errors.Is(err, pin.ErrNoRecord) {
		note, err = pin.Filters{Netns: it.Record.Netns, Sandbox: it.Record.Sandbox}, nil
	}
	if err != nil {
		return "", err
	}
	if problem == ProblemProgram {
		row, err = s.replaceFilter(e, row, note, prog, t)
		how = "program put back, " + how
	} else {
		row, err = s.renewFilter(e, row, note, prog, t)
		how = "new filter, " + how
	}
	if err != nil {
		return "", err
	}
	it.Record.Programs[i] = row
	return how, errors.Join(
		e.ReplaceProgram(row.Name, attach.ProgramPin{Program: prog}),
		e.ReplaceRecord(*it.Record),
	)
}

// replaceFilter puts a program into the filter of a row.
func (s *Session) replaceFilter(e *pin.Entry, row pin.ProgramRecord, note pin.Filters, prog *ebpf.Program, t attach.Target) (pin.ProgramRecord, error) {
	f := filterOf(row)
	info, err := prog.Info()
	if err != nil {
		return row, err
	}
	id, _ := info.ID()
	f.ProgramID, f.Tag = uint32(id), info.Tag
	next := inRow(row, f, row.Filter.MadeQdisc)
	note.Programs = append(slices.Clone(note.Programs), next)
	if err := e.ReplaceFilters(note); err != nil {
		return row, err
	}
	return next, f.Replace(prog, t.Interface.Netns)
}

// renewFilter makes the filter of a row anew. What a repair that was killed has left
// of it is taken off first.
func (s *Session) renewFilter(e *pin.Entry, row pin.ProgramRecord, note pin.Filters, prog *ebpf.Program, t attach.Target) (pin.ProgramRecord, error) {
	old := note
	old.Programs = slices.DeleteFunc(slices.Clone(note.Programs), func(p pin.ProgramRecord) bool { return p.Name != row.Name })
	if err := s.dropFilters(old); err != nil {
		return row, err
	}
	others := slices.DeleteFunc(slices.Clone(note.Programs), func(p pin.ProgramRecord) bool { return p.Name == row.Name })
	owner, _ := e.Place().Owner()
	_, next, err := s.addFilter(attach.FilterOptions{
		Program: prog, Target: t, Name: row.Filter.Name, Priority: row.Filter.Priority,
		Attachment: specs.Attachment{Name: row.Name, Hook: row.Hook, Side: row.Side},
	}, row, t.Interface.Netns, owner, func(row pin.ProgramRecord) error {
		note.Programs = append(slices.Clone(others), row)
		return e.ReplaceFilters(note)
	})
	return next, err
}

// filterProgram finds the program of a row's filter where it is pinned, or as that of a
// link is found.
func (s *Session) filterProgram(ctx context.Context, e *pin.Entry, it Item, i int, t attach.Target) (_ *ebpf.Program, how string, free func(), err error) {
	row := it.Record.Programs[i]
	if p, err := ebpf.LoadPinnedProgram(e.ProgramPath(row.Name), nil); err == nil {
		info, err := p.Info()
		if err == nil && info.Tag == row.Tag {
			return p, "same program", func() { s.warn(p.Close()) }, nil
		}
		s.warn(p.Close())
	}
	return s.program(ctx, e, it, i, t)
}

// deviceMoved reports whether the device of a filter has been moved to another
// namespace, which takes its filters off: then its peer is still on the host.
func deviceMoved(rec *pin.Record, row pin.ProgramRecord) bool {
	i := rec.Interface
	if row.Filter == nil || row.Side == specs.SideHost || i == nil || i.PeerIndex == 0 {
		return false
	}
	own, err := target.HostNetns()
	if err != nil {
		return false
	}
	defer own.Close()
	peer, err := own.Interface(i.PeerName)
	return err == nil && peer.Index == i.PeerIndex && peer.Kind == i.Kind
}
