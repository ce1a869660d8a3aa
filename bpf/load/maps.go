// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/specs"
)

// makeMaps creates the wanted maps and writes what needs no other descriptor:
// variables and entries. Slots of program arrays come after the programs.
func (l *loader) makeMaps() error {
	for _, name := range l.mapNames() {
		m := l.mapOf[l.maps[name][0]]
		spec, err := l.mapSpec(m)
		if err != nil {
			return err
		}
		if have := l.o.Maps[name]; have != nil {
			if err := l.reuse(name, spec, have); err != nil {
				return err
			}
			continue
		}
		if err := l.makeMap(m, spec); err != nil {
			return err
		}
	}
	return nil
}

// reuse takes a duplicate of a map that exists already.
func (l *loader) reuse(name string, spec *ebpf.MapSpec, have *ebpf.Map) error {
	if err := spec.Compatible(have); err != nil {
		return l.fail("map "+name, fmt.Errorf("the existing one does not fit: %w", err), "the policy has changed: restart the container")
	}
	dup, err := have.Clone()
	if err != nil {
		return l.fail("map "+name, err, "")
	}
	l.out.Maps[name] = dup
	return nil
}

func (l *loader) makeMap(m *specs.PlanMap, spec *ebpf.MapSpec) error {
	ref := l.maps[m.Name][0]
	if IsDataSection(ref.Symbol) {
		if err := l.setVariables(ref, spec); err != nil {
			return err
		}
	} else {
		// What an object puts into its maps refers to other maps and programs by
		// name; fillReferences does that part.
		spec.Contents = nil
	}
	if err := l.expired(); err != nil {
		return err
	}
	created, err := withMemlock(func() (*ebpf.Map, error) { return ebpf.NewMap(spec) })
	if err != nil {
		return l.fail("map "+m.Name, err, "")
	}
	l.out.Maps[m.Name] = created
	return l.putEntries(m, created)
}

// mapSpec is what the object says, with the plan's changes. Maps are never pinned
// by the library: whatever an object says about pinning, linkpin decides.
func (l *loader) mapSpec(m *specs.PlanMap) (*ebpf.MapSpec, error) {
	var first *ebpf.MapSpec
	for _, ref := range l.maps[m.Name] {
		spec := MapSpec(l.objects[ref.Object].Maps[ref.Symbol], m)
		if first == nil {
			first = spec
			continue
		}
		if diff := Difference(first, spec); diff != "" {
			return nil, l.fail("map "+m.Name, fmt.Errorf("the objects disagree about its %s", diff), remedyApply)
		}
	}
	return first, nil
}

// MapSpec returns a copy of an object's map with the changes of a plan.
func MapSpec(spec *ebpf.MapSpec, m *specs.PlanMap) *ebpf.MapSpec {
	spec = spec.Copy()
	spec.Pinning, spec.Extra = ebpf.PinNone, nil
	if m.Type != nil {
		spec.Type = ebpf.MapType(*m.Type)
	}
	if m.MaxEntries != nil {
		spec.MaxEntries = *m.MaxEntries
	}
	if m.KeySize != nil && *m.KeySize != spec.KeySize {
		spec.KeySize, spec.Key = *m.KeySize, nil
	}
	if m.ValueSize != nil && *m.ValueSize != spec.ValueSize {
		spec.ValueSize, spec.Value = *m.ValueSize, nil
	}
	if m.Flags != nil {
		spec.Flags = *m.Flags
	}
	if spec.Key == nil || spec.Value == nil {
		spec.Key, spec.Value = nil, nil // the kernel wants both or none
	}
	if m.Inner != nil {
		spec.InnerMap = &ebpf.MapSpec{
			Name:    spec.Name + "_inner",
			Type:    ebpf.MapType(m.Inner.Type),
			KeySize: m.Inner.KeySize, ValueSize: m.Inner.ValueSize,
			MaxEntries: m.Inner.MaxEntries, Flags: m.Inner.Flags,
		}
	}
	if spec.InnerMap != nil {
		spec.InnerMap.Pinning, spec.InnerMap.Extra = ebpf.PinNone, nil
	}
	return spec
}

// Difference names the first property in which two maps that are to be one
// differ, as a policy calls it; "" if there is none.
func Difference(a, b *ebpf.MapSpec) string {
	switch {
	case a.Type != b.Type:
		return "type"
	case a.KeySize != b.KeySize:
		return "keySize"
	case a.ValueSize != b.ValueSize:
		return "valueSize"
	case a.MaxEntries != b.MaxEntries:
		return "maxEntries"
	case a.Flags != b.Flags:
		return "flags"
	}
	return ""
}

// setVariables writes the policy's constants into a data section. A constant that
// no wanted program looks at may lack the values for its holes: a policy can have
// programs for the cgroup and for the interface in one object.
func (l *loader) setVariables(section specs.MapRef, spec *ebpf.MapSpec) error {
	for i := range l.o.Plan.Constants {
		c := &l.o.Plan.Constants[i]
		if c.Object != section.Object {
			continue
		}
		v, ok := FindVariable(l.objects[c.Object], c.Symbol)
		if !ok {
			return l.fail("constant "+mapName(specs.MapRef{Object: c.Object, Symbol: c.Symbol}), errDamaged, remedyApply)
		}
		if v.Section != section.Symbol {
			continue
		}
		value, err := l.o.Values.fill(c.Value)
		if errors.Is(err, ErrNoValue) && !l.uses(section, v) {
			continue
		}
		if err == nil {
			err = setVariable(spec, v, value)
		}
		if err != nil {
			return l.fail("constant "+mapName(specs.MapRef{Object: c.Object, Symbol: c.Symbol}), err, "")
		}
	}
	return nil
}

// uses reports whether a wanted program takes the address of a variable.
func (l *loader) uses(section specs.MapRef, v Variable) bool {
	for off := range l.sections[section] {
		if off >= v.Offset && off < v.Offset+v.Size {
			return true
		}
	}
	return false
}

// fillReferences puts programs into program arrays and maps into maps of maps.
func (l *loader) fillReferences() error {
	for _, name := range l.mapNames() {
		if l.o.Maps[name] != nil {
			continue // its contents belong to whoever made it
		}
		m := l.mapOf[l.maps[name][0]]
		if err := l.fillSlots(m); err != nil {
			return err
		}
		for _, ref := range l.maps[name] {
			if err := l.fillInner(m, ref); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *loader) fillSlots(m *specs.PlanMap) error {
	for _, e := range m.Entries {
		if e.Program == "" {
			continue
		}
		if err := l.expired(); err != nil {
			return err
		}
		key, err := l.o.Values.fill(e.Key)
		if err == nil {
			err = l.out.Maps[m.Name].Put(key, l.out.Programs[e.Program])
		}
		if err != nil {
			return l.fail("map "+m.Name+": program "+e.Program, explainSlot(err), "")
		}
	}
	return nil
}

func (l *loader) fillInner(m *specs.PlanMap, ref specs.MapRef) error {
	spec := l.objects[ref.Object].Maps[ref.Symbol]
	if len(innerReferences(spec)) == 0 {
		return nil
	}
	for _, kv := range spec.Contents {
		inner, ok := kv.Value.(string)
		if !ok {
			continue
		}
		if err := l.expired(); err != nil {
			return err
		}
		to := l.mapOf[specs.MapRef{Object: ref.Object, Symbol: inner}]
		if err := l.out.Maps[m.Name].Put(kv.Key, l.out.Maps[to.Name]); err != nil {
			return l.fail("map "+m.Name+": inner map "+to.Name, err, "")
		}
	}
	return nil
}
