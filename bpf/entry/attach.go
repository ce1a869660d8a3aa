// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// Attach makes the wanted entries and publishes them in the order given, once all
// of them are attached. If one of a deny policy fails, none of them stays. A policy
// with onError: allow is left out as a whole and reported to Warn: half of it would
// look as if it were in force. The locks of the owners must be held. It returns the
// places that it published.
func (s *Session) Attach(ctx context.Context, sub *Subject, wants []Want) (published []pin.Place, err error) {
	if len(wants) > 0 {
		s.dropAbandoned(ctx, targets(sub, wants)...)
	}
	all := make([]*built, len(wants))
	for i, w := range wants {
		all[i] = &built{want: w}
	}
	defer func() {
		for _, b := range all {
			s.warn(s.giveUp(b))
			s.warn(b.close())
		}
	}()
	limit := cmp.Or(s.loadTimeout, LoadTimeout)
	loadCtx, cancel := context.WithTimeoutCause(ctx, limit, tookTooLong("loading", limit))
	defer cancel()
	kept, err := s.each(all, func(b *built) error { return s.load(loadCtx, sub, b) })
	if err != nil {
		return nil, err
	}
	limit = cmp.Or(s.attachTimeout, AttachTimeout)
	attachCtx, cancel := context.WithTimeoutCause(ctx, limit, tookTooLong("attaching", limit))
	defer cancel()
	kept, err = s.each(kept, func(b *built) error { return s.attach(attachCtx, sub, b) })
	if err != nil {
		return nil, err
	}
	if sub.Recheck != nil {
		if err := sub.Recheck(); err != nil {
			return nil, err
		}
	}
	kept, err = s.each(kept, func(b *built) error { return s.publish(sub, b) })
	for _, b := range all {
		switch {
		case !b.published:
		case slices.Contains(kept, b):
			published = append(published, b.want.Place)
		case err != nil:
			err = errors.Join(err, s.undo(b.want.Place))
		default:
			s.warn(s.undo(b.want.Place))
		}
	}
	return published, err
}

func tookTooLong(what string, limit time.Duration) error {
	return fmt.Errorf("%s took more than %s: %w", what, limit, context.DeadlineExceeded)
}

// each takes every entry one step further. It returns those that go on: a policy
// with onError: allow, of which one entry fails, is left out with all of them.
func (s *Session) each(all []*built, step func(*built) error) ([]*built, error) {
	failed := map[string]bool{}
	for _, b := range all {
		policy := b.want.Policy
		if failed[policy] {
			continue
		}
		if err := step(b); err != nil {
			if b.want.OnError != specs.Allow {
				return nil, err
			}
			s.warn(fmt.Errorf("policy %s left out (onError: allow): %w", policy, err))
			failed[policy] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(b *built) bool { return failed[b.want.Policy] }), nil
}

// undo removes an entry that was published in this invocation. Its links go with
// their descriptors.
func (s *Session) undo(p pin.Place) error {
	e, err := s.Root.Entry(p)
	if err != nil {
		return err
	}
	return s.removeEntry(e)
}

// built is an entry on its way: until it is published its descriptors own it.
type built struct {
	want      Want
	plan      *specs.Plan
	digest    string
	chosen    []choice
	col       *load.Collection
	links     []builtLink
	noted     noted // filters that are not links
	published bool
}

type builtLink struct {
	attachment specs.Attachment  // with side and hook resolved
	key        string            // of the program
	link       *attach.Link      // nil with filter
	filter     *pin.FilterRecord // stands in for a link; nil: there is one
	info       attach.Info
}

// close gives up the descriptors. What was not published is destroyed with them.
func (b *built) close() error {
	var errs []error
	for _, l := range b.links {
		if l.link != nil {
			errs = append(errs, l.link.Close())
		}
	}
	if b.col != nil {
		errs = append(errs, b.col.Close())
	}
	return errors.Join(errs...)
}

// load finds out what belongs to an entry and loads it.
func (s *Session) load(ctx context.Context, sub *Subject, b *built) (err error) {
	if b.plan, b.digest, err = s.Plan(b.want.Policy); err != nil {
		return err
	}
	if b.chosen, err = choose(b.plan, b.want); err != nil || len(b.chosen) == 0 {
		return err
	}
	names := make([]string, 0, len(b.chosen))
	for _, c := range b.chosen {
		names = append(names, c.attachment.Name)
	}
	b.col, err = load.Load(ctx, load.Options{
		Plan:   b.plan,
		Object: s.object,
		Values: values(sub, b.want),
		Attach: names,
	})
	return err
}

// attach makes the links of an entry.
func (s *Session) attach(ctx context.Context, sub *Subject, b *built) error {
	for _, c := range b.chosen {
		if err := expired(ctx); err != nil {
			return fault.New("policy "+b.want.Policy, err, "the node is overloaded: try again")
		}
		l, err := s.attachOne(b.col, c, sub, b.want)
		if attach.WithoutTCX(err) && b.plan.TCFallback == specs.FallbackClsact {
			l, err = s.attachFilter(sub, b, c)
		}
		if err != nil {
			return fault.New("policy "+b.want.Policy+": program "+c.attachment.Name, err, "")
		}
		b.links = append(b.links, l)
	}
	return nil
}

func (s *Session) attachOne(col *load.Collection, c choice, sub *Subject, w Want) (builtLink, error) {
	prog, ok := col.Programs[c.key]
	if !ok {
		return builtLink{}, fmt.Errorf("program %s was not loaded", c.key)
	}
	makeLink := attach.Attach
	if s.attachLink != nil {
		makeLink = s.attachLink
	}
	l, err := makeLink(prog, c.attachment, attachTarget(sub, w))
	if err != nil {
		return builtLink{}, err
	}
	info, err := l.Info()
	if err != nil {
		return builtLink{}, errors.Join(err, l.Close())
	}
	if mode := l.Mode(); mode != "" {
		c.attachment.Mode = mode
	}
	return builtLink{attachment: c.attachment, key: c.key, link: l, info: info}, nil
}

func attachTarget(sub *Subject, w Want) attach.Target {
	switch w.Kind {
	case specs.TargetCgroup, specs.TargetPodCgroup:
		return attach.Target{Cgroup: w.cgroup(sub)}
	case specs.TargetInterface:
		return attach.Target{Interface: w.Interface}
	case specs.TargetNetns:
		return attach.Target{Netns: sub.Netns}
	}
	return attach.Target{}
}

// choice is an attachment of a plan that belongs to the wanted entry.
type choice struct {
	key        string
	attachment specs.Attachment
}

// choose picks the attachments of a plan for one entry and resolves their sides.
func choose(plan *specs.Plan, w Want) ([]choice, error) {
	var out []choice
	for _, p := range plan.Programs {
		for _, a := range p.Attachments {
			kind := plan.Target(a.Hook)
			if kind == specs.TargetKernel && w.Place.Kind() == pin.ContainerPlace {
				kind = w.Kind // it belongs to no other entry, and lives as long as the container
			}
			if kind != w.Kind {
				continue
			}
			if w.Kind == specs.TargetInterface {
				if !a.OnInterface(w.Interface.Name) {
					continue
				}
				side, hook, err := attach.Resolve(a, w.Interface)
				if err != nil {
					return nil, fault.New("policy "+w.Policy+": program "+a.Name, err, "")
				}
				a.Side, a.Hook = side, hook
			}
			out = append(out, choice{key: p.Key, attachment: a})
		}
	}
	return out, nil
}

// Attaches reports whether a plan has a program for an interface of that name.
func Attaches(plan *specs.Plan, ifname string) bool {
	for _, p := range plan.Programs {
		for _, a := range p.Attachments {
			if a.Hook.Target() == specs.TargetInterface && a.OnInterface(ifname) {
				return true
			}
		}
	}
	return false
}

// publish pins a built entry in staging and makes it visible by one rename.
func (s *Session) publish(sub *Subject, b *built) (err error) {
	st := b.noted.staging // giveUp's, if it is not published
	if st == nil {
		if st, err = s.Root.StageFor(b.target(sub)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, st.Discard()) }()
	}
	rec := s.record(sub, b)
	for _, l := range b.links {
		if l.filter != nil {
			if err := st.PinProgram(l.attachment.Name, attach.ProgramPin{Program: b.col.Programs[l.key]}); err != nil {
				return err
			}
			continue
		}
		if err := st.PinLink(l.attachment.Name, l.link); err != nil {
			return err
		}
	}
	if b.col != nil {
		for _, name := range rec.Maps {
			if err := st.PinMap(name, b.col.Maps[name]); err != nil {
				return err
			}
		}
	}
	if err := st.WriteRecord(rec); err != nil {
		return err
	}
	err = st.Publish(b.want.Place)
	b.published = err == nil
	return err
}
