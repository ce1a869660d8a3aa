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
// .data and .bss if they have the same variables; otherwise these are carried over by
// name.
func (s *Succession) decideSection(name string, ref specs.MapRef, spec *ebpf.MapSpec, have *ebpf.Map) (keep bool, err error) {
	if err := s.l.setVariables(ref, spec); err != nil {
		return false, err
	}
	var was []Variable
	if refs := s.before.maps[name]; len(refs) > 0 {
		was = variablesIn(s.before.objects[refs[0].Object], refs[0].Symbol)
	}
	is := variablesIn(s.l.objects[ref.Object], ref.Symbol)
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
	if fits && len(changed) == 0 {
		return true, nil
	}
	var fields []copied
	for _, v := range is {
		i := slices.IndexFunc(was, func(o Variable) bool { return o.Name == v.Name })
		switch {
		case i < 0 || changed[v.Name]:
			continue
		case was[i].Size != v.Size || !layoutOf(was[i].Type, v.Type).same:
			return false, notCarried(fmt.Errorf("variable %s has another type now", v.Name))
		}
		fields = append(fields, copied{was[i].Offset, v.Offset, v.Size})
	}
	if len(was) == 0 || len(is) == 0 {
		return false, notCarried(errors.New("no names of its variables are known"))
	}
	s.move(name, func() error { return copyVariables(have, s.Maps[name], fields) })
	return false, nil
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
	if len(spec.Contents) != 1 {
		return false
	}
	want, ok := spec.Contents[0].Value.([]byte)
	now, err := have.LookupBytes(uint32(0))
	return ok && err == nil && bytes.Equal(want, now)
}

func copyVariables(from, to *ebpf.Map, fields []copied) error {
	old, err := from.LookupBytes(uint32(0))
	if err != nil {
		return err
	}
	now, err := to.LookupBytes(uint32(0))
	if err != nil {
		return err
	}
	for _, f := range fields {
		if int(f.from+f.size) <= len(old) && int(f.to+f.size) <= len(now) {
			copy(now[f.to:f.to+f.size], old[f.from:])
		}
	}
	return to.Put(uint32(0), now)
}
