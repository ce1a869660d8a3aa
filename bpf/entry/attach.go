// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// Attach makes the wanted entries, in order, and publishes them in that order once
// all of them are attached. If one of a deny policy fails, none of them stays; one
// of an allow policy is left out and reported to Warn. The locks of the owners
// must be held. It returns the places that it published.
func (s *Session) Attach(ctx context.Context, sub *Subject, wants []Want) (published []pin.Place, err error) {
	var all []*built
	defer func() {
		for _, b := range all {
			b.close()
		}
	}()
	for _, w := range wants {
		b, err := s.build(ctx, sub, w)
		switch {
		case err == nil:
			all = append(all, b)
		case w.OnError == specs.Allow:
			s.warn(fmt.Errorf("policy %s left out (onError: allow): %w", w.Policy, err))
		default:
			return nil, err
		}
	}
	for _, b := range all {
		if err := s.publish(sub, b); err != nil {
			if b.want.OnError == specs.Allow {
				s.warn(fmt.Errorf("policy %s left out (onError: allow): %w", b.want.Policy, err))
				continue
			}
			return nil, errors.Join(err, s.undo(published))
		}
		published = append(published, b.want.Place)
	}
	return published, nil
}

// undo removes entries that were published in this invocation.
func (s *Session) undo(places []pin.Place) error {
	var errs []error
	for _, p := range places {
		e, err := s.Root.Entry(p)
		if err == nil {
			err = e.Remove()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// built is an entry that is attached but not published: its descriptors own it.
type built struct {
	want   Want
	plan   *specs.Plan
	digest string
	col    *load.Collection
	links  []builtLink
}

type builtLink struct {
	attachment specs.Attachment // with side and hook resolved
	key        string           // of the program
	link       *attach.Link
	info       attach.Info
}

// close gives up the descriptors. What was not published is destroyed with them.
func (b *built) close() {
	for _, l := range b.links {
		l.link.Close()
	}
	if b.col != nil {
		b.col.Close()
	}
}

// build loads and attaches one entry. On error nothing of it is left.
func (s *Session) build(ctx context.Context, sub *Subject, w Want) (_ *built, err error) {
	plan, digest, err := s.Plans.Plan(w.Policy)
	if err != nil {
		return nil, err
	}
	b := &built{want: w, plan: plan, digest: digest}
	defer func() {
		if err != nil {
			b.close()
		}
	}()

	chosen, err := choose(plan, w)
	if err != nil || len(chosen) == 0 {
		return b, err
	}
	names := make([]string, 0, len(chosen))
	for _, c := range chosen {
		names = append(names, c.attachment.Name)
	}
	loadCtx, cancel := context.WithTimeoutCause(ctx, LoadTimeout, fmt.Errorf("loading took more than %s: %w", LoadTimeout, context.DeadlineExceeded))
	defer cancel()
	b.col, err = load.Load(loadCtx, load.Options{
		Plan:   plan,
		Object: s.Plans.Object,
		Values: values(sub, w),
		Attach: names,
	})
	if err != nil {
		return nil, err
	}

	attachCtx, cancel := context.WithTimeoutCause(ctx, AttachTimeout, fmt.Errorf("attaching took more than %s: %w", AttachTimeout, context.DeadlineExceeded))
	defer cancel()
	for _, c := range chosen {
		if err := expired(attachCtx); err != nil {
			return nil, fault.New("policy "+w.Policy, err, "the node is overloaded: try again")
		}
		l, err := s.attachOne(b.col, c, sub, w)
		if err != nil {
			return nil, fault.New("policy "+w.Policy+": program "+c.attachment.Name, err, "")
		}
		b.links = append(b.links, l)
	}
	return b, nil
}

func (s *Session) attachOne(col *load.Collection, c choice, sub *Subject, w Want) (builtLink, error) {
	prog, ok := col.Programs[c.key]
	if !ok {
		return builtLink{}, fmt.Errorf("program %s was not loaded", c.key)
	}
	l, err := attach.Attach(prog, c.attachment, attachTarget(sub, w))
	if err != nil {
		return builtLink{}, err
	}
	info, err := l.Info()
	if err != nil {
		l.Close()
		return builtLink{}, err
	}
	if mode := l.Mode(); mode != "" {
		c.attachment.Mode = mode
	}
	return builtLink{attachment: c.attachment, key: c.key, link: l, info: info}, nil
}

func attachTarget(sub *Subject, w Want) attach.Target {
	switch w.Kind {
	case specs.TargetCgroup:
		return attach.Target{Cgroup: sub.Cgroup}
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
			if a.Hook.Target() != w.Kind {
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
func (s *Session) publish(sub *Subject, b *built) error {
	st, err := s.Root.Stage()
	if err != nil {
		return err
	}
	defer st.Discard()
	rec := s.record(sub, b)
	for _, l := range b.links {
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
	return st.Publish(b.want.Place)
}

func now() time.Time { return time.Now().UTC() }
