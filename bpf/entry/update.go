// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// UpdateOptions say what Update is about.
type UpdateOptions struct {
	// Policies are the names of policies, all of them applied.
	Policies []string
	// Only picks the units of which one entry passes; nil: all.
	Only func(Item) bool
	// Selects reports whether the applied version of a policy still chooses a container
	// or sandbox, whose recorded identity is given together with what its pod asks for;
	// nil: it does. What it does not choose is left as it is.
	Selects func(policy string, id specs.Identity) bool
	// Mode says whether anything is changed.
	Mode UpdateMode
	// Done is called with each unit when it is done; may be nil.
	Done func(UnitUpdate)
}

// UpdateMode says how far an update goes.
type UpdateMode int

// The modes.
const (
	UpdateNow UpdateMode = iota
	// UpdateDryRun loads the new programs, so that the verifier and the maps have their
	// say, and changes nothing.
	UpdateDryRun
)

// Outcome is what became of a unit.
type Outcome string

// The outcomes.
const (
	OutcomeUpdated     Outcome = "updated"
	OutcomeWouldUpdate Outcome = "would-update" // UpdateDryRun
	OutcomeCurrent     Outcome = "current"      // there was nothing to do
	OutcomeRefused     Outcome = "refused"      // everything is as it was; Err says why
	OutcomeUnfinished  Outcome = "unfinished"   // begun, and kept from its end by Err: whoever finds it finishes it, gc above all
	OutcomeUnselected  Outcome = "unselected"   // the applied version does not choose it any more: left as it is
	OutcomeEnded       Outcome = "ended"        // its container or interface is gone
)

// UnitUpdate is one unit of an update: the entries of a policy at a container, or at
// all containers that share a sandbox and at the sandbox. They are updated together or
// not at all.
type UnitUpdate struct {
	Policy   string
	Items    []Item // as they were before
	From, To string // digests; From is that of the first entry that was not up to date
	Outcome  Outcome
	// Swapped, Added and Removed count links.
	Swapped, Added, Removed int
	// Migrated are the maps that were made anew and took over what the old ones held.
	Migrated []string
	// Dropped are the maps that the new version does not have: what they held is gone.
	Dropped []string
	Err     error
}

var (
	// ErrFixedLink means that an attachment would have to change whose link the kernel
	// never gives another program.
	ErrFixedLink = errors.New("the kernel can't exchange the program of such a link")
	// ErrMoved means that a policy attaches to something else than before.
	ErrMoved = errors.New("the new version attaches to what the running one does not")
	// ErrDrift means that an entry is not as recorded.
	ErrDrift = errors.New("is not as it was recorded")
)

const remedyRestart = "restart the container"

// Update brings the entries of policies that were made of another version to the
// applied one (guarantee 7): every link holds the old program or the new one at any
// time, and of a unit all links do or none. Plans must be set. Each unit has its own
// deadlines and its own errors; the error returned is one that concerns all.
func (s *Session) Update(ctx context.Context, o UpdateOptions) ([]UnitUpdate, error) {
	if o.Mode == UpdateNow {
		s.FinishIntents(ctx)
	}
	var out []UnitUpdate
	for _, policy := range o.Policies {
		if _, _, err := s.Plan(policy); err != nil {
			return out, err
		}
		units, err := s.units(policy)
		if err != nil {
			return out, err
		}
		for _, u := range units {
			if o.Only != nil && !slices.ContainsFunc(u.items, o.Only) {
				continue
			}
			if err := expired(ctx); err != nil {
				return out, err
			}
			r := s.updateUnit(ctx, u, o)
			out = append(out, r)
			if o.Done != nil {
				o.Done(r)
			}
		}
	}
	return out, nil
}

// unit is what is updated together.
type unit struct {
	policy string
	items  []Item
}

// units groups the entries of a policy by the sandboxes that they belong to.
func (s *Session) units(policy string) ([]*unit, error) {
	var order []*unit
	byOwner := map[pin.Owner]*unit{}
	err := s.Walk(func(it Item) error {
		owner, ok := it.Place.Owner()
		if !ok || it.Place.Policy() != policy && (it.Record == nil || it.Record.Policy != policy) {
			return nil
		}
		if it.Record != nil && it.Record.Sandbox != "" {
			owner = pin.Sandbox(it.Record.Sandbox)
		}
		u := byOwner[owner]
		if u == nil {
			u = &unit{policy: policy}
			byOwner[owner] = u
			order = append(order, u)
		}
		u.items = append(u.items, it)
		return nil
	})
	return order, err
}

// updateUnit updates one unit.
func (s *Session) updateUnit(ctx context.Context, u *unit, o UpdateOptions) UnitUpdate {
	r := UnitUpdate{Policy: u.policy, Items: u.items}
	r.To, _ = s.digest(u.policy)
	refuse := func(err error) UnitUpdate {
		r.Outcome, r.Err = OutcomeRefused, err
		return r
	}
	for _, it := range u.items {
		if it.Record == nil {
			return refuse(fault.New(it.Place.String(), it.Err, "see `linkpin verify`"))
		}
		if r.From == "" && it.Record.Digest != r.To {
			r.From = it.Record.Digest
		}
	}
	switch {
	case r.From == "":
		r.From, r.Outcome = r.To, OutcomeCurrent
		return r
	case !s.selected(u, o):
		r.Outcome = OutcomeUnselected
		return r
	}
	var err error
	if o.Mode == UpdateDryRun {
		err = s.preview(ctx, u, &r)
	} else {
		err = s.exchange(ctx, u, o, &r)
	}
	switch {
	case errors.Is(err, errLeft):
		r.Outcome, r.Err = OutcomeUnfinished, err
	case err != nil:
		return refuse(err)
	case r.Outcome == "":
		r.Outcome = OutcomeUpdated
	}
	return r
}

// selected reports whether a policy still chooses all of a unit.
func (s *Session) selected(u *unit, o UpdateOptions) bool {
	if o.Selects == nil {
		return true
	}
	for _, it := range u.items {
		if it.Record == nil {
			continue // it is refused later
		}
		id := it.Record.Identity
		if it.Record.Sandbox != "" {
			id.Annotations = specs.WithPod(id.Annotations, s.noted(it.Record))
		}
		if !o.Selects(u.policy, id) {
			return false
		}
	}
	return true
}

// noted returns what the pod of an entry asks for.
func (s *Session) noted(rec *pin.Record) map[string]string {
	places, err := s.Root.Entries(pin.Sandbox(rec.Sandbox))
	if err != nil {
		return nil
	}
	var out map[string]string
	for _, p := range places {
		if !isNote(p) {
			continue
		}
		if note, err := s.readRecord(p); err == nil {
			out = specs.WithPod(out, note.Identity.Annotations)
		} else {
			s.warnUnless(err, fs.ErrNotExist)
		}
	}
	return out
}

// preview finds out what an update of a unit would do.
func (s *Session) preview(ctx context.Context, u *unit, r *UnitUpdate) error {
	changes, err := s.prepareUnit(ctx, u)
	defer s.closeChanges(changes)
	if err != nil {
		return err
	}
	if r.Outcome = OutcomeWouldUpdate; len(changes) == 0 {
		r.Outcome = u.nothingToDo(r.To)
	}
	r.count(changes)
	return nil
}

func (s *Session) closeChanges(changes []*change) {
	for _, c := range changes {
		s.warn(c.close())
	}
}

// nothingToDo says why there is nothing to do for a unit that was not up to date.
func (u *unit) nothingToDo(to string) Outcome {
	if slices.ContainsFunc(u.items, func(it Item) bool { return it.Record != nil && it.Record.Digest == to }) {
		return OutcomeCurrent // somebody else has updated it
	}
	return OutcomeEnded
}

// count says what changes do to links and maps.
func (r *UnitUpdate) count(changes []*change) {
	r.Swapped, r.Added, r.Removed, r.Migrated, r.Dropped = 0, 0, 0, nil, nil
	for _, c := range changes {
		r.Swapped += len(c.swaps)
		r.Added += len(c.adds)
		r.Removed += len(c.dropLinks) + c.replaced
		if c.next != nil {
			r.Migrated = append(r.Migrated, c.next.Migrated...)
		}
		for _, name := range c.dropMaps {
			if !strings.HasPrefix(path.Base(name), ".rodata") { // it held nothing that a program wrote
				r.Dropped = append(r.Dropped, name)
			}
		}
	}
}

// Name says whose entries a unit has, for people.
func (r *UnitUpdate) Name() string {
	var names []string
	for _, it := range r.Items {
		if it.Record == nil || it.Place.Kind() != pin.ContainerPlace {
			continue
		}
		names = append(names, it.Record.Identity.ContainerID)
	}
	if len(names) == 0 && len(r.Items) > 0 {
		if o, ok := r.Items[0].Place.Owner(); ok {
			return o.String()
		}
	}
	return fmt.Sprintf("container %s", strings.Join(names, ", "))
}
