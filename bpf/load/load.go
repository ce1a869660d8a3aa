// SPDX-License-Identifier: Apache-2.0

// Package load turns a plan and its ELF objects into programs and maps in the
// kernel. It is mechanical: whatever needs judgement or BTF values was decided
// by bpf/prepare. It attaches nothing and pins nothing; the file descriptors of
// the Collection own everything, so that a process that dies leaves nothing.
package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// Options say what to load.
type Options struct {
	// Plan is the policy to load. Never nil, never changed.
	Plan *specs.Plan
	// Object returns the ELF file with the given SHA-256 (lower-case hex). It is
	// called once for each object that is needed. Never nil.
	Object func(sha256 string) ([]byte, error)
	// Values fill the holes of constants and map entries. Only what the wanted
	// programs and their maps use has to be there.
	Values Values
	// Attach names the attachments whose programs are wanted
	// (specs.Attachment.Name). An unknown name is an error.
	Attach []string
	// Programs names programs that are wanted besides (specs.PlanProgram.Key). May
	// be empty: tail-call targets come by themselves.
	Programs []string
	// Maps are existing maps to use instead of new ones, by plan name. Each must
	// fit the plan. They stay the caller's, and their contents are left alone. May
	// be nil; maps that no wanted program uses are passed over.
	Maps map[string]*ebpf.Map
}

// Collection is what was loaded. The caller must Close it, after whatever is to
// stay has been pinned or linked.
type Collection struct {
	// Programs are the loaded programs, by specs.PlanProgram.Key.
	Programs map[string]*ebpf.Program
	// Maps are the maps that they use, by specs.PlanMap.Name; the objects' own data
	// sections are called ".rodata" or "object/.rodata". A program array loses its
	// programs when its last descriptor and pin are gone: pin it.
	Maps map[string]*ebpf.Map
}

// Close closes all descriptors.
func (c *Collection) Close() error {
	var errs []error
	for _, p := range c.Programs {
		errs = append(errs, p.Close())
	}
	for _, m := range c.Maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// Load loads the programs behind the wanted attachments, the programs that they
// can tail-call, and the maps that these use; nothing else is made. ctx's
// deadline is checked between bpf calls. Errors are *fault.Error; a program that
// the kernel refuses gives one that wraps *RefusedError. On any error everything
// is closed again.
func Load(ctx context.Context, o Options) (_ *Collection, err error) {
	l := newLoader(ctx, o)
	defer func() {
		if err != nil {
			_ = l.out.Close() // the descriptors are gone either way; err says what matters
		}
	}()
	for _, step := range []func() error{l.want, l.makeMaps, l.loadPrograms, l.fillReferences} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return l.out, nil
}

// loader is one call of Load.
type loader struct {
	late     func() error // why there is no time left; nil while there is
	o        Options
	plans    map[string]*specs.PlanProgram    // by key
	mapOf    map[specs.MapRef]*specs.PlanMap  // by each of its members
	objects  map[string]*ebpf.CollectionSpec  // parsed so far, by PlanObject.Name
	programs []*specs.PlanProgram             // wanted, in the order they were found
	maps     map[string][]specs.MapRef        // used by the wanted programs, by name: the members in use
	sections map[specs.MapRef]map[uint32]bool // offsets in data sections that the wanted programs use
	fixups   bool                             // the plan's fixups are for the running kernel
	out      *Collection
}

func newLoader(ctx context.Context, o Options) *loader {
	l := &loader{
		late: func() error { return context.Cause(ctx) }, o: o,
		plans:    make(map[string]*specs.PlanProgram, len(o.Plan.Programs)),
		mapOf:    make(map[specs.MapRef]*specs.PlanMap, len(o.Plan.Maps)),
		objects:  make(map[string]*ebpf.CollectionSpec, len(o.Plan.Objects)),
		maps:     make(map[string][]specs.MapRef, len(o.Plan.Maps)),
		sections: make(map[specs.MapRef]map[uint32]bool),
		fixups:   o.Plan.Kernel == Kernel(),
		out:      &Collection{Programs: map[string]*ebpf.Program{}, Maps: map[string]*ebpf.Map{}},
	}
	for i := range o.Plan.Programs {
		l.plans[o.Plan.Programs[i].Key] = &o.Plan.Programs[i]
	}
	for i := range o.Plan.Maps {
		for _, m := range o.Plan.Maps[i].Members {
			l.mapOf[m] = &o.Plan.Maps[i]
		}
	}
	return l
}

// fail is an error about one part of the policy.
func (l *loader) fail(what string, cause error, remedy string) error {
	return fault.New("policy "+l.o.Plan.Name+": "+what, cause, remedy)
}

// expired is asked before every bpf call that creates something: none of these
// calls can be interrupted.
func (l *loader) expired() error {
	if err := l.late(); err != nil {
		return fault.New("policy "+l.o.Plan.Name, fmt.Errorf("not loaded in time: %w", err), "the node is overloaded: try again")
	}
	return nil
}

// want finds all programs and maps that have to be made. It makes no bpf calls.
func (l *loader) want() error {
	queue := slices.Clone(l.o.Programs)
	for _, name := range l.o.Attach {
		key, ok := l.attachment(name)
		if !ok {
			return l.fail("attachment "+name, errDamaged, remedyApply)
		}
		queue = append(queue, key)
	}
	seen := map[string]bool{}
	for len(queue) > 0 {
		key := queue[0]
		queue = queue[1:]
		if seen[key] {
			continue
		}
		seen[key] = true
		p, ok := l.plans[key]
		if !ok {
			return l.fail("program "+key, errDamaged, remedyApply)
		}
		more, err := l.wantProgram(p)
		if err != nil {
			return err
		}
		queue = append(queue, more...)
	}
	return nil
}

func (l *loader) attachment(name string) (key string, ok bool) {
	for i := range l.o.Plan.Programs {
		for j := range l.o.Plan.Programs[i].Attachments {
			if l.o.Plan.Programs[i].Attachments[j].Name == name {
				return l.o.Plan.Programs[i].Key, true
			}
		}
	}
	return "", false
}

// wantProgram adds a program and its maps, and returns the keys of the programs
// that it can tail-call.
func (l *loader) wantProgram(p *specs.PlanProgram) ([]string, error) {
	obj, err := l.object(p.Object)
	if err != nil {
		return nil, err
	}
	spec := obj.Programs[p.Symbol]
	if spec == nil {
		return nil, l.fail("program "+p.Key, errDamaged, remedyApply)
	}
	l.programs = append(l.programs, p)
	var callees []string
	for _, r := range References(spec) {
		more, err := l.wantMap(specs.MapRef{Object: p.Object, Symbol: r.Map})
		if err != nil {
			return nil, err
		}
		callees = append(callees, more...)
		if r.Direct {
			ref := specs.MapRef{Object: p.Object, Symbol: r.Map}
			if l.sections[ref] == nil {
				l.sections[ref] = map[uint32]bool{}
			}
			l.sections[ref][r.Offset] = true
		}
	}
	return callees, nil
}

// wantMap adds a map and, for a map of maps, what its object puts into it. It
// returns the keys of the programs in its slots. Of a map that several objects
// share only the members that are used matter: an object whose programs are not
// wanted is not even parsed.
func (l *loader) wantMap(ref specs.MapRef) ([]string, error) {
	m := l.mapOf[ref]
	if m == nil {
		m = &specs.PlanMap{Name: mapName(ref), Members: []specs.MapRef{ref}}
		l.mapOf[ref] = m
	}
	if slices.Contains(l.maps[m.Name], ref) {
		return nil, nil
	}
	l.maps[m.Name] = append(l.maps[m.Name], ref)
	spec := l.objects[ref.Object].Maps[ref.Symbol]
	if spec == nil {
		return nil, l.fail("map "+m.Name, errDamaged, remedyApply)
	}
	var callees []string
	for _, e := range m.Entries {
		if e.Program != "" && l.o.Maps[m.Name] == nil {
			callees = append(callees, e.Program)
		}
	}
	for _, inner := range innerReferences(spec) {
		more, err := l.wantMap(specs.MapRef{Object: ref.Object, Symbol: inner})
		if err != nil {
			return nil, err
		}
		callees = append(callees, more...)
	}
	return callees, nil
}

// mapNames returns the wanted maps in a fixed order, so that errors do not change
// from run to run.
func (l *loader) mapNames() []string { return slices.Sorted(maps.Keys(l.maps)) }

func mapName(ref specs.MapRef) string {
	if ref.Object == "" {
		return ref.Symbol
	}
	return ref.Object + "/" + ref.Symbol
}
