// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/specs"
)

// decideSection is decide for a data section: .rodata is kept if it holds the same,
// .data and .bss if they have the same variables and start with the same values;
// otherwise the variables are carried over by name.
func (s *Succession) decideSection(name string, ref specs.MapRef, spec *ebpf.MapSpec, have *ebpf.Map) (keep bool, err error) {
	if err := s.l.setVariables(ref, spec); err != nil {
		return false, err
	}
	var was []Variable
	var start []byte
	if refs := s.before.maps[name]; len(refs) > 0 {
		was = variablesIn(s.before.objects[refs[0].Object], refs[0].Symbol)
		start = s.before.initial(refs[0])
	}
	is := variablesIn(s.l.objects[ref.Object], ref.Symbol)
	begin := contentsOf(spec)
	fits := spec.Compatible(have) == nil && slices.EqualFunc(was, is, sameVariable)
	if strings.HasPrefix(ref.Symbol, ".rodata") {
		return fits && holds(have, spec), nil
	}
	changed := map[string]bool{}
	for _, v := range is {
		if constantOf(s.before.o.Plan, ref.Object, v.Name) != constantOf(s.l.o.Plan, ref.Object, v.Name) {
			changed[v.Name] = true
		}
	}
	if fits && len(changed) == 0 && (start == nil || bytes.Equal(start, begin)) {
		return true, nil
	}
	var fields []carried
	for _, v := range is {
		i := slices.IndexFunc(was, func(o Variable) bool { return o.Name == v.Name })
		switch {
		case i < 0 || changed[v.Name]:
			continue
		case was[i].Size != v.Size || !layoutOf(was[i].Type, v.Type).same:
			return false, notCarried(fmt.Errorf("variable %s has another type now", v.Name))
		}
		f := carried{copied: copied{was[i].Offset, v.Offset, v.Size}}
		if then, now := part(start, was[i]), part(begin, v); then != nil && !bytes.Equal(then, now) {
			f.unless = then
		}
		fields = append(fields, f)
	}
	if len(was) == 0 || len(is) == 0 {
		return false, notCarried(errors.New("no names of its variables are known"))
	}
	s.move(name, func() error { return copyVariables(have, s.Maps[name], fields) })
	return false, nil
}

// carried is a variable that is taken over, unless it still holds what the running
// version was loaded with and the new one is loaded with something else.
type carried struct {
	copied
	unless []byte // nil: it is taken over whatever it holds
}

// initial returns what a data section was loaded with; nil if that can't be told any
// more. Holes of constants are filled with what is so now.
func (l *loader) initial(ref specs.MapRef) []byte {
	m := l.mapOf[ref]
	if m == nil {
		return nil
	}
	spec, err := l.mapSpec(m)
	if err != nil || l.setVariables(ref, spec) != nil {
		return nil
	}
	return contentsOf(spec)
}

// contentsOf returns a copy of what a data section is loaded with; nil if its object
// does not say.
func contentsOf(spec *ebpf.MapSpec) []byte {
	if len(spec.Contents) != 1 {
		return nil
	}
	b, _ := spec.Contents[0].Value.([]byte)
	return bytes.Clone(b)
}

// part returns the bytes of a variable; nil if the section is shorter.
func part(section []byte, v Variable) []byte {
	if uint64(v.Offset)+uint64(v.Size) > uint64(len(section)) {
		return nil
	}
	return section[v.Offset : v.Offset+v.Size]
}

func variablesIn(spec *ebpf.CollectionSpec, section string) []Variable {
	vars := slices.DeleteFunc(Variables(spec), func(v Variable) bool { return v.Section != section })
	slices.SortFunc(vars, func(a, b Variable) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), strings.Compare(a.Name, b.Name))
	})
	return vars
}

func sameVariable(a, b Variable) bool {
	return a.Name == b.Name && a.Offset == b.Offset && a.Size == b.Size && layoutOf(a.Type, b.Type).same
}

// constantOf returns what a plan says of a variable, in a form that can be compared.
func constantOf(plan *specs.Plan, object, symbol string) string {
	for _, c := range plan.Constants {
		if c.Object == object && c.Symbol == symbol {
			return fmt.Sprintf("%x %v", c.Value.Data, c.Value.Holes)
		}
	}
	return ""
}

// holds reports whether the section that is loaded holds what a new one would.
func holds(have *ebpf.Map, spec *ebpf.MapSpec) bool {
	want := contentsOf(spec)
	now, err := have.LookupBytes(uint32(0))
	return want != nil && err == nil && bytes.Equal(want, now)
}

func copyVariables(from, to *ebpf.Map, fields []carried) error {
	old, err := from.LookupBytes(uint32(0))
	if err != nil {
		return err
	}
	now, err := to.LookupBytes(uint32(0))
	if err != nil {
		return err
	}
	for _, f := range fields {
		if int(f.from+f.size) > len(old) || int(f.to+f.size) > len(now) {
			continue
		}
		value := old[f.from : f.from+f.size]
		if f.unless != nil && bytes.Equal(value, f.unless) {
			continue
		}
		copy(now[f.to:], value)
	}
	return to.Put(uint32(0), now)
}
