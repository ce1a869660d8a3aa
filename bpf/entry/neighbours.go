// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// Examination is one run of `linkpin verify` over a session. It remembers what was
// read, so that it must not outlive the run.
type Examination struct {
	// Ours says whether a program is in any of our records; nil: they are read for it. It
	// is asked about programs that stand beside those of an entry.
	Ours func(program uint32) bool

	s      *Session
	ours   map[uint32]bool // programs of all records; nil until somebody asks
	mended []Finding       // of the tree
}

// Examine begins a run.
func (s *Session) Examine() *Examination { return &Examination{s: s} }

// Entry returns what Verify finds, and looks around: whether the target is where it
// was, who stands in front of us, and whether others can find the entry.
func (x *Examination) Entry(it Item) []Finding {
	return append(x.s.Verify(it), x.around(it)...)
}

// Repair mends the drift of one entry, as Session.Repair does, and what Entry finds
// around it.
func (x *Examination) Repair(ctx context.Context, p pin.Place) ([]Finding, error) {
	owner, ok := p.Owner()
	if !ok {
		return nil, nil
	}
	if err := x.s.checkWritable(); err != nil {
		return nil, err
	}
	lock, err := x.s.lockExisting(ctx, owner)
	if lock == nil || err != nil {
		return nil, err
	}
	defer x.s.release(lock)
	findings := x.s.repairEntry(ctx, p)
	it, ok := x.s.Look(p)
	if !ok {
		return findings, nil
	}
	around := x.around(it)
	for i := range around {
		if f := &around[i]; f.Problem == ProblemIndex {
			f.Repaired, f.Err = x.reindex(ctx, it)
		}
	}
	return append(findings, around...), nil
}

func (x *Examination) around(it Item) []Finding {
	if it.Retired != nil || it.Record == nil {
		return nil
	}
	var out []Finding
	add := func(program string, p Problem, detail, remedy string) {
		out = append(out, Finding{Place: it.Place, Record: it.Record, Program: program, Problem: p, Detail: detail, Remedy: remedy})
	}
	cg := x.process(it, add)
	if cg != nil {
		defer func() { x.s.warn(cg.Close()) }()
	}
	x.index(it, add)
	for i, p := range it.Record.Programs {
		if p.Target == specs.TargetKernel {
			continue // it is nowhere in particular
		}
		if l := it.Links[i]; l.Err == nil && l.Info.State == attach.Live && l.Info.LinkID == p.LinkID {
			x.link(it, p, l.Info, cg, add)
		}
	}
	x.extra(it, add)
	if x.s.Outdated(it.Record) {
		add("", ProblemOutdated, "another version of the policy is applied", "`linkpin update "+it.Record.Policy+"`")
	}
	return out
}

type addFinding func(program string, p Problem, detail, remedy string)

// process finds out whether the container's first process is where its programs are. It
// returns the cgroup of the entry, which the caller must Close, or nil: if there is
// none, or it is not where it was.
func (x *Examination) process(it Item, add addFinding) *target.Cgroup {
	rec := it.Record
	if rec.Cgroup == nil || !slices.ContainsFunc(rec.Programs, func(p pin.ProgramRecord) bool { return p.Hook.Target() == specs.TargetCgroup }) {
		return nil
	}
	cg, err := target.OpenCgroup(rec.Cgroup.Path, rec.Cgroup.ID)
	switch {
	case errors.Is(err, target.ErrGone):
		// Its links say whether the cgroup is gone, or only somewhere else.
		ended, err := x.s.processEnded(rec)
		if !ended && err == nil && slices.ContainsFunc(it.Links, func(l LinkState) bool { return l.Info.CgroupID == rec.Cgroup.ID }) {
			add("", ProblemElsewhere, fmt.Sprintf("cgroup %d is not at %s, and process %d lives", rec.Cgroup.ID, rec.Cgroup.Path, rec.PID),
				"look where cgroup2 is mounted")
		}
		return nil
	case err != nil:
		add("", ProblemUnknown, fault.OneLine(err.Error()), "")
		return nil
	case it.Place.Kind() != pin.ContainerPlace || rec.PID <= 0:
		return cg
	}
	where, inside, err := target.PIDIn(x.s.Roots, cg, rec.PID, target.ProcessStart(rec.Start))
	switch {
	case errors.Is(err, target.ErrGone), err == nil && inside:
	case err != nil:
		add("", ProblemUnknown, fault.OneLine(err.Error()), "")
	default:
		add("", ProblemMoved, fmt.Sprintf("process %d is in cgroup %s, its programs are on %s", rec.PID, where, rec.Cgroup.Path),
			fmt.Sprintf("put it back (echo %d >%s/cgroup.procs); sockets that it opened meanwhile stay outside: better start the container again", rec.PID, rec.Cgroup.Path))
	}
	return cg
}

// link looks at the target of a live link and at what else is at its hook. cg is what
// process returned.
func (x *Examination) link(it Item, p pin.ProgramRecord, info attach.Info, cg *target.Cgroup, add addFinding) {
	if p.Hook.Target() == specs.TargetCgroup {
		if cg != nil {
			x.order(it, p, info, attach.Target{Cgroup: cg}, add)
		}
		return
	}
	t, done, err := x.s.reopen(it.Place, it.Record, p)
	elsewhere := func(detail string) {
		add(p.Name, ProblemElsewhere, fmt.Sprintf("link %d lives, but %s", p.LinkID, detail), "start the container again if nobody did that on purpose")
	}
	switch {
	case errors.Is(err, errReplaced) && !x.renumbered(it, p, info):
		add(p.Name, ProblemReplaced, fault.OneLine(err.Error()), "start the container again, or take the interface out of it and add it anew")
		return
	case p.Target != specs.TargetInterface && errors.Is(err, target.ErrGone):
		return // of a container that has ended, until it is swept; process looks at the others
	case errors.Is(err, target.ErrNoPeer):
		elsewhere(fmt.Sprintf("the host side of %s is in another network namespace", it.Record.Interface.Name))
		return
	case errors.Is(err, target.ErrGone):
		if ns, other := x.s.reopenNetns(it.Place, it.Record); other == nil {
			x.s.warn(ns.Close())
			elsewhere(fmt.Sprintf("interface %s is not in its network namespace any more", it.Record.Interface.Name))
		}
		return
	case errors.Is(err, errReplaced):
		return
	case err != nil:
		add(p.Name, ProblemUnknown, fault.OneLine(err.Error()), "")
		return
	}
	defer done()
	if i := t.Interface; i != nil {
		rec := it.Record.Interface
		if p.Side == specs.SideContainer && i.Name != rec.Name {
			add(p.Name, ProblemRenamed, fmt.Sprintf("interface %s is called %s now", rec.Name, i.Name), "")
		}
		if p.Side == specs.SideHost && rec.PeerName != "" && i.Peer.Name != rec.PeerName {
			add(p.Name, ProblemRenamed, fmt.Sprintf("interface %s is called %s now", rec.PeerName, i.Peer.Name), "")
		}
	}
	if p.Filter == nil {
		x.order(it, p, info, t, add)
	} else {
		x.filterOrder(it, p, t, add)
	}
}

// renumbered reports whether the interface that has the recorded name is the one that
// a link is on, with another index: it was in another namespace in between.
func (x *Examination) renumbered(it Item, p pin.ProgramRecord, info attach.Info) bool {
	moved := *it.Record.Interface
	moved.Index = info.Ifindex
	rec := *it.Record
	rec.Interface = &moved
	if p.Side != specs.SideContainer {
		return false
	}
	t, done, err := x.s.reopen(it.Place, &rec, p)
	if err != nil {
		return false
	}
	defer done()
	o, err := attach.OrderOf(p.Hook, p.Side, t, info.ProgramID)
	return err == nil && o.There
}

// order finds out who stands in front of a program.
func (x *Examination) order(it Item, p pin.ProgramRecord, info attach.Info, t attach.Target, add addFinding) {
	o, err := attach.OrderOf(p.Hook, p.Side, t, info.ProgramID)
	if err != nil || !o.Known {
		if err != nil {
			add(p.Name, ProblemUnknown, "its neighbours can't be told: "+fault.OneLine(err.Error()), "")
		}
		return
	}
	if o.Behind = x.foreign(it.Record, o.Behind); len(o.Behind) > 0 {
		add(p.Name, ProblemBehind, fmt.Sprintf("%s at %s, of this cgroup or one above, may change what ours has allowed",
			programTexts(o.Behind), p.Hook), whoseRemedy)
	}
	if !o.There {
		// Unless somebody is just updating it, the link is on another device.
		if it, ok := x.s.Look(it.Place); t.Interface != nil && ok && slices.ContainsFunc(it.Links, func(l LinkState) bool { return l.Info == info }) {
			add(p.Name, ProblemReplaced, fmt.Sprintf("link %d lives, but its program is not on interface %s: %v", p.LinkID, it.Record.Interface.Name, errReplaced),
				"start the container again, or take the interface out of it and add it anew")
		}
		return
	}
	others := x.foreign(it.Record, o.InFront)
	if len(others) == 0 {
		return
	}
	does := "sees what happens before ours and may change it"
	if t.Interface != nil {
		does = "sees packets before ours and may keep them from it"
	}
	add(p.Name, ProblemInFront, fmt.Sprintf("%s at %s %s", programTexts(others), p.Hook, does), whoseRemedy)
}

const whoseRemedy = "find out whose it is: bpftool prog show, bpftool cgroup tree"

func programTexts(ids []uint32) string {
	var texts []string
	for _, id := range ids {
		texts = append(texts, attach.ProgramText(id))
	}
	return strings.Join(texts, ", ")
}

// foreign returns the programs that are not in our records.
func (x *Examination) foreign(rec *pin.Record, ids []uint32) []uint32 {
	return slices.DeleteFunc(slices.Clone(ids), func(id uint32) bool { return x.isOurs(rec, id) })
}

// isOurs reports whether a program is in any of our records. They are read only if
// somebody is in front who is not in the same entry.
func (x *Examination) isOurs(rec *pin.Record, id uint32) bool {
	if slices.ContainsFunc(rec.Programs, func(p pin.ProgramRecord) bool { return p.ProgramID == id }) {
		return true
	}
	if x.Ours != nil {
		return x.Ours(id)
	}
	if x.ours == nil {
		x.ours = map[uint32]bool{}
		places, err := x.s.places()
		x.s.warn(err)
		for _, p := range places {
			if rec, err := x.s.readRecord(p); err == nil {
				for _, p := range rec.Programs {
					x.ours[p.ProgramID] = true
				}
			}
		}
	}
	return x.ours[id]
}

// extra finds pins in an entry that its record does not know.
func (x *Examination) extra(it Item, add addFinding) {
	e, err := x.s.Root.Entry(it.Place)
	if err != nil {
		return // gone since
	}
	for _, name := range e.Links() {
		if !slices.ContainsFunc(it.Record.Programs, func(p pin.ProgramRecord) bool { return p.Name == name }) {
			add(name, ProblemForeign, "a link is pinned there that is not in the record", "remove the pin if nobody knows it")
		}
	}
	for _, name := range e.Maps() {
		if !slices.Contains(it.Record.Maps, name) {
			add("", ProblemForeign, fmt.Sprintf("a map %s is pinned there that is not in the record", name), "remove the pin if nobody knows it")
		}
	}
}
