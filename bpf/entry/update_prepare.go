// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// change is what an update does to one entry. Until it is staged its descriptors own
// everything new.
type change struct {
	item   Item
	entry  *pin.Entry
	plan   *specs.Plan // new
	old    *specs.Plan
	digest string // of plan

	sub    *Subject
	want   Want
	opened []func() error // targets

	maps      map[string]*ebpf.Map // of the running version
	next      *load.Succession     // nil if the new version has no program here
	rows      []pin.ProgramRecord  // of the new record; those of adds lack what only the link tells
	swaps     []swap
	adds      []adding
	dropLinks []string
	replaced  int      // links that go because an attachment of their name moves
	dropMaps  []string // what the new version does not have
}

// swap is a link that gets another program.
type swap struct {
	row      int // in change.rows
	old, now *ebpf.Program
	was      pin.ProgramRecord
}

// adding is an attachment that the running version does not have.
type adding struct {
	row    int
	choice choice
	link   *attach.Link
}

func (c *change) close() error {
	var errs []error
	for _, a := range c.adds {
		if a.link != nil {
			errs = append(errs, a.link.Close())
		}
	}
	for _, w := range c.swaps {
		errs = append(errs, w.old.Close())
	}
	if c.next != nil {
		errs = append(errs, c.next.Close())
	}
	for _, m := range c.maps {
		errs = append(errs, m.Close())
	}
	for _, done := range c.opened {
		errs = append(errs, done())
	}
	return errors.Join(errs...)
}

// prepareUnit loads what a unit needs, and finds out whether all of it can be
// exchanged. Nothing is attached or pinned yet. Entries that are up to date or have
// ended are left out. The caller must close the changes, also after an error.
func (s *Session) prepareUnit(ctx context.Context, u *unit) ([]*change, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, LoadTimeout, tookTooLong("loading", LoadTimeout))
	defer cancel()
	plan, digest, err := s.Plan(u.policy)
	if err != nil {
		return nil, err
	}
	var changes []*change
	for _, it := range u.items {
		if it.Record == nil {
			return changes, fault.New(it.Place.String(), it.Err, "see `linkpin verify`")
		}
		if it.Record.Digest == digest {
			continue
		}
		c := &change{item: it, plan: plan, digest: digest}
		changes = append(changes, c)
		switch err := s.openChange(c); {
		case errors.Is(err, errEnded):
			changes = changes[:len(changes)-1]
			if err := c.close(); err != nil {
				return changes, err
			}
			continue
		case err != nil:
			return changes, err
		}
	}
	if len(changes) == 0 {
		return nil, nil
	}
	if err := s.placed(u, changes, digest); err != nil {
		return changes, err
	}
	for _, c := range changes {
		if err := s.prepare(ctx, c); err != nil {
			return changes, fault.New(c.item.Place.String(), err, "")
		}
	}
	return changes, nil
}

// openChange finds the plan and the targets of an entry again, and makes sure that it
// is as recorded.
func (s *Session) openChange(c *change) (err error) {
	rec := c.item.Record
	if c.old, err = s.planByDigest(rec.Digest); err != nil {
		return fault.New(c.item.Place.String(), fmt.Errorf("the version it was attached with is not stored any more: %w", err), remedyRestart)
	}
	if c.entry, err = s.Root.Entry(c.item.Place); err != nil {
		return err
	}
	if err := s.openTargets(c); err != nil {
		return err
	}
	return s.asRecorded(c)
}

// asRecorded makes sure that an entry is as recorded; errEnded if what it was for is gone.
func (s *Session) asRecorded(c *change) error {
	for _, f := range s.Verify(c.item) {
		what := c.item.Place.String() + ": program " + f.Program
		switch {
		case f.Problem == ProblemEnded:
			return errEnded
		case f.Problem.Drift():
			return fault.New(what, fmt.Errorf("%w: %s", ErrDrift, f.Detail), "run `linkpin verify --repair` first")
		case f.Problem == ProblemUnknown && f.Err != nil:
			return fault.New(what, f.Err, "see `linkpin verify`") // an error is not an end
		}
	}
	return nil
}

// openTargets opens what the entry is attached to; errEnded if that is gone.
func (s *Session) openTargets(c *change) error {
	rec, p := c.item.Record, c.item.Place
	c.sub = &Subject{Identity: rec.Identity, PID: rec.PID, Start: target.ProcessStart(rec.Start)}
	c.want = Want{Policy: rec.Policy, Place: p, OnError: c.plan.OnError}
	ended := func(err error) error {
		if errors.Is(err, target.ErrGone) || errors.Is(err, target.ErrMismatch) {
			return errEnded
		}
		return err
	}
	switch p.Kind() {
	case pin.ContainerPlace, pin.PodCgroupPlace:
		c.want.Kind = specs.TargetCgroup
		if p.Kind() == pin.ContainerPlace {
			switch over, err := s.containerEnded(rec); {
			case err != nil:
				return err
			case over:
				return errEnded
			}
		}
		if rec.Netns != nil { // for its cookie alone
			c.sub.Netns = &target.Netns{Path: rec.Netns.Path, Inode: rec.Netns.Inode, Cookie: rec.Netns.Cookie}
		}
		if rec.Cgroup == nil {
			return nil
		}
		cg, err := target.OpenCgroup(rec.Cgroup.Path, rec.Cgroup.ID)
		if err != nil {
			return ended(err)
		}
		c.opened = append(c.opened, cg.Close)
		if p.Kind() == pin.PodCgroupPlace {
			c.want.Kind, c.want.Cgroup = specs.TargetPodCgroup, cg
			return nil
		}
		c.sub.Cgroup = cg
		return nil
	}
	ns, err := s.reopenNetns(p, rec)
	if err != nil {
		return ended(err)
	}
	c.opened = append(c.opened, ns.Close)
	c.sub.Netns = ns
	if p.Kind() == pin.NetnsPlace {
		c.want.Kind = specs.TargetNetns
		return nil
	}
	c.want.Kind = specs.TargetInterface
	if rec.Interface == nil {
		return fmt.Errorf("%w: no interface", pin.ErrDamaged)
	}
	if c.want.Interface, err = findInterface(ns, rec.Interface); err != nil {
		return ended(err)
	}
	return nil
}

// prepare loads the new version of one entry and compares it with the running one.
func (s *Session) prepare(ctx context.Context, c *change) error {
	chosen, err := choose(c.plan, c.want)
	if err != nil {
		return err
	}
	if err := s.openMaps(c); err != nil {
		return err
	}
	if len(chosen) > 0 {
		if c.next, err = load.Succeed(ctx, s.succession(c, chosen), load.Predecessor{
			Plan: c.old, Attach: attachments(c.item.Record), Maps: c.maps,
		}); err != nil {
			return err
		}
	}
	for _, ch := range chosen {
		if err := s.compareChoice(c, ch); err != nil {
			return fault.New("program "+ch.attachment.Name, err, remedyRestart)
		}
	}
	for _, row := range c.item.Record.Programs {
		if slices.ContainsFunc(c.rows, func(r pin.ProgramRecord) bool { return r.Name == row.Name }) {
			continue
		}
		if row.Filter != nil {
			return fault.New("program "+row.Name, fmt.Errorf("%w: it is a tc filter", ErrFixedLink), remedyRestart)
		}
		c.dropLinks = append(c.dropLinks, row.Name)
	}
	for _, name := range c.entry.Maps() {
		if c.next == nil || c.next.Maps[name] == nil {
			c.dropMaps = append(c.dropMaps, name)
		}
	}
	return nil
}

func (s *Session) succession(c *change, chosen []choice) load.Options {
	names := make([]string, 0, len(chosen))
	for _, ch := range chosen {
		names = append(names, ch.attachment.Name)
	}
	return load.Options{Plan: c.plan, Object: s.object, Values: values(c.sub, c.want), Attach: names}
}

func attachments(rec *pin.Record) []string {
	names := make([]string, 0, len(rec.Programs))
	for _, row := range rec.Programs {
		names = append(names, row.Name)
	}
	return names
}

func (s *Session) openMaps(c *change) error {
	c.maps = map[string]*ebpf.Map{}
	for _, name := range c.entry.Maps() {
		m, err := ebpf.LoadPinnedMap(c.entry.MapPath(name), nil)
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
		c.maps[name] = m
	}
	return nil
}

// compareChoice finds out what becomes of one attachment of the new version.
func (s *Session) compareChoice(c *change, ch choice) error {
	a := ch.attachment
	i := slices.IndexFunc(c.item.Record.Programs, func(r pin.ProgramRecord) bool { return r.Name == a.Name })
	same := i >= 0 && samePlace(c.item.Record.Programs[i], a)
	if same && !c.next.SameSection(ch.key, c.item.Record.Programs[i].Key) {
		// The kernel gives the link no program for another function or hook.
		if a.Hook.Target() == specs.TargetKernel {
			return fmt.Errorf("%w (%s of something else)", ErrFixedLink, a.Hook)
		}
		same = false
	}
	if !same {
		if i >= 0 && c.item.Record.Programs[i].Filter != nil {
			return fmt.Errorf("%w: it is a tc filter", ErrFixedLink)
		}
		if i >= 0 {
			c.replaced++
		}
		c.adds = append(c.adds, adding{row: len(c.rows), choice: ch})
		c.rows = append(c.rows, pin.ProgramRecord{Name: a.Name, Key: ch.key, Hook: a.Hook, Target: c.plan.Target(a.Hook), Side: a.Side, Netfilter: a.Netfilter})
		return nil
	}
	row := c.item.Record.Programs[i]
	was := row
	row.Key = ch.key
	c.rows = append(c.rows, row)
	if c.next.Unchanged(ch.key, was.Key, was.Tag) {
		return nil
	}
	if !exchangeable(row) {
		return fmt.Errorf("%w (%s)", ErrFixedLink, row.Hook)
	}
	now, ok := c.next.Programs[ch.key]
	if !ok {
		return fmt.Errorf("program %s was not loaded", ch.key)
	}
	old, err := ebpf.NewProgramFromID(ebpf.ProgramID(was.ProgramID))
	if err != nil {
		return fmt.Errorf("running program %d: %w", was.ProgramID, err)
	}
	c.swaps = append(c.swaps, swap{row: len(c.rows) - 1, old: old, now: now, was: was})
	return nil
}

// samePlace reports whether an attachment of the new version is where the running one
// is attached already.
func samePlace(row pin.ProgramRecord, a specs.Attachment) bool {
	sameMode := a.Mode == row.Mode || a.Mode == "" || a.Mode == specs.XDPAuto
	sameFilter := (row.Netfilter == nil) == (a.Netfilter == nil) && (row.Netfilter == nil || *row.Netfilter == *a.Netfilter)
	return row.Hook == a.Hook && row.Side == a.Side && sameMode && sameFilter
}

// exchangeable reports whether the kernel gives the link of a row another program.
func exchangeable(row pin.ProgramRecord) bool {
	return row.Filter == nil && row.Hook != specs.HookNetfilter && row.Hook.Target() != specs.TargetKernel
}
