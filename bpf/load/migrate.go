// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/specs"
)

// Predecessor is the version of a policy that an entry runs.
type Predecessor struct {
	// Plan is what it was loaded from. Never nil, never changed.
	Plan *specs.Plan
	// Attach names its attachments, as Options.Attach.
	Attach []string
	// Maps are all maps that it has, by plan name. They stay the caller's, and must stay
	// open until Migrate has returned.
	Maps map[string]*ebpf.Map
}

// ErrNotCarried means that a map of the new version can't take over what its
// predecessor holds.
var ErrNotCarried = errors.New("what the running one holds can't be carried over")

const remedyRestart = "the policy has changed: restart the container"

// Succession is a collection that takes the place of a running one.
type Succession struct {
	*Collection
	// Kept are the maps that both share, by plan name, sorted; Migrated are those that
	// are new and get what the running ones hold.
	Kept, Migrated []string

	l, before *loader
	moves     []func() error
}

// Succeed loads a version of a policy that is to take the place of a running one.
// o.Maps must be empty. A map of the predecessor
//   - is kept, and with it all that it holds, if type, sizes, flags and the fields of
//     its keys and values are the same, and the policies set the same entries;
//   - has a new one in its place otherwise, which gets at Migrate what the running one
//     holds, key by key, if the keys have the same layout and each field of the old values has
//     one of that name and type in the new. Entries that the old policy sets and the new
//     one does not, or sets otherwise, are not carried over. Variables in .data and .bss
//     are carried over by name; one that still holds what it was loaded with gets what
//     the new version loads it with.
//
// Program arrays are always new, so that
// programs of two versions never call each other, and so is .rodata where it differs.
// Other kinds of maps (ring buffers, storage of sockets, maps of maps) are kept or
// refused: the error then wraps ErrNotCarried, and names the map. Other errors are those
// of Load.
func Succeed(ctx context.Context, o Options, p Predecessor) (_ *Succession, err error) {
	s := &Succession{
		l:      newLoader(ctx, o),
		before: newLoader(ctx, Options{Plan: p.Plan, Object: o.Object, Values: o.Values, Attach: p.Attach}),
	}
	s.Collection = s.l.out
	defer func() {
		if err != nil {
			_ = s.l.out.Close() // the descriptors are gone either way; err says what matters
		}
	}()
	if err := s.before.want(); err != nil {
		return nil, err
	}
	if err := s.l.want(); err != nil {
		return nil, err
	}
	kept := map[string]*ebpf.Map{}
	for _, nested := range []bool{false, true} { // maps of maps last: they depend on what is in them
		for _, name := range s.l.mapNames() {
			have := p.Maps[name]
			if have == nil || s.nested(name) != nested {
				continue
			}
			keep, err := s.decide(name, have, kept)
			if err != nil {
				return nil, s.l.fail("map "+name, err, remedyRestart)
			}
			if keep {
				kept[name] = have
				s.Kept = append(s.Kept, name)
			}
		}
	}
	slices.Sort(s.Kept)
	slices.Sort(s.Migrated)
	s.l.o.Maps = kept
	for _, step := range []func() error{s.l.makeMaps, s.l.loadPrograms, s.l.fillReferences} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Migrate carries over what the maps hold that are not kept. What running programs
// write to those between this and their end is lost: call it as late as possible.
// ctx's deadline is checked between maps. Errors wrap ErrNotCarried.
func (s *Succession) Migrate(ctx context.Context) error {
	s.l.late = func() error { return context.Cause(ctx) }
	for i, move := range s.moves {
		if err := s.l.expired(); err != nil {
			return err
		}
		if err := move(); err != nil {
			return s.l.fail("map "+s.Migrated[i], fmt.Errorf("%w: %w", ErrNotCarried, err), remedyRestart)
		}
	}
	return nil
}

// nested reports whether a map holds other maps.
func (s *Succession) nested(name string) bool {
	spec, err := s.l.mapSpec(s.l.mapOf[s.l.maps[name][0]])
	return err == nil && (spec.Type == ebpf.ArrayOfMaps || spec.Type == ebpf.HashOfMaps)
}

// decide finds out what becomes of one map: it is kept, or a new one will be made.
func (s *Succession) decide(name string, have *ebpf.Map, kept map[string]*ebpf.Map) (keep bool, err error) {
	ref := s.l.maps[name][0]
	m := s.l.mapOf[ref]
	spec, err := s.l.mapSpec(m)
	if err != nil {
		return false, err
	}
	if IsDataSection(ref.Symbol) {
		return s.decideSection(name, ref, spec, have)
	}
	misfit := spec.Compatible(have)
	old, now := planMap(s.before.o.Plan, name).Entries, m.Entries
	sameEntries := slices.EqualFunc(old, now, equalEntry)
	switch spec.Type {
	case ebpf.ProgramArray:
		return false, nil
	case ebpf.ArrayOfMaps, ebpf.HashOfMaps:
		is := s.l.innerOf(name)
		for _, in := range is {
			if kept[in.name] == nil {
				misfit = errors.Join(misfit, fmt.Errorf("map %s in it has changed", in.name))
			}
		}
		if !slices.Equal(is, s.before.innerOf(name)) {
			misfit = errors.Join(misfit, errors.New("the maps in it have changed"))
		}
		if misfit == nil && !sameEntries {
			misfit = errors.New("its entries in the policy have changed")
		}
		return misfit == nil, notCarried(misfit)
	}
	was := s.oldSpec(name)
	keys, values := layoutOf(was.Key, spec.Key), layoutOf(was.Value, spec.Value)
	then := planMap(s.before.o.Plan, name)
	if !sameNumber(then.KeySize, m.KeySize) {
		keys.resized()
	}
	if !sameNumber(then.ValueSize, m.ValueSize) {
		values.resized()
	}
	if misfit == nil && sameEntries && keys.same && values.same {
		return true, nil
	}
	if err := carries(spec, have, keys, values); err != nil {
		if misfit != nil {
			err = fmt.Errorf("%w (%w)", err, misfit)
		}
		return false, notCarried(err)
	}
	oldSet, err := s.before.filled(old)
	if err != nil {
		return false, err
	}
	newSet, err := s.l.filled(now)
	if err != nil {
		return false, err
	}
	c := &carrying{from: have, convert: values.converter(spec.ValueSize), old: oldSet, now: newSet}
	s.move(name, func() error { return c.run(s.Maps[name]) })
	return false, nil
}

func (s *Succession) move(name string, fn func() error) {
	s.Migrated = append(s.Migrated, name)
	s.moves = append(s.moves, fn)
}

func notCarried(why error) error {
	if why == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrNotCarried, why)
}

// oldSpec returns what the old object said of a map; an empty one if the running
// programs did not use it.
func (s *Succession) oldSpec(name string) *ebpf.MapSpec {
	if refs := s.before.maps[name]; len(refs) > 0 {
		if spec, err := s.before.mapSpec(s.before.mapOf[refs[0]]); err == nil {
			return spec
		}
	}
	return &ebpf.MapSpec{}
}

// planMap returns what a plan says of a map; nothing if it does not mention it.
func planMap(plan *specs.Plan, name string) *specs.PlanMap {
	for i := range plan.Maps {
		if plan.Maps[i].Name == name {
			return &plan.Maps[i]
		}
	}
	return &specs.PlanMap{}
}

func sameNumber(a, b *uint32) bool {
	return (a == nil) == (b == nil) && (a == nil || *a == *b)
}

// inner is a map that an object puts into a map of maps.
type inner struct{ key, name string }

// innerOf lists what the objects put into a map of maps, by plan names, sorted.
func (l *loader) innerOf(name string) []inner {
	var list []inner
	for _, ref := range l.maps[name] {
		for _, kv := range l.objects[ref.Object].Maps[ref.Symbol].Contents {
			symbol, ok := kv.Value.(string)
			if !ok {
				continue
			}
			in := inner{fmt.Sprint(kv.Key), ""}
			if m := l.mapOf[specs.MapRef{Object: ref.Object, Symbol: symbol}]; m != nil {
				in.name = m.Name
			}
			list = append(list, in)
		}
	}
	slices.SortFunc(list, func(a, b inner) int {
		return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.name, b.name))
	})
	return slices.Compact(list)
}

func equalEntry(a, b specs.PlanEntry) bool {
	return a.Program == b.Program && equalBytes(a.Key, b.Key) && equalBytes(a.Value, b.Value)
}

func equalBytes(a, b specs.Bytes) bool {
	return bytes.Equal(a.Data, b.Data) && slices.Equal(a.Holes, b.Holes)
}

// filled returns entries by key, with their holes filled.
func (l *loader) filled(entries []specs.PlanEntry) (map[string][]byte, error) {
	out := make(map[string][]byte, len(entries))
	for _, e := range entries {
		key, err := l.o.Values.fill(e.Key)
		if err != nil {
			return nil, err
		}
		value, err := l.o.Values.fill(e.Value)
		if err != nil {
			return nil, err
		}
		out[string(key)] = value
	}
	return out, nil
}
