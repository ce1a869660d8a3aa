// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// errDamaged means that the plan names what its object does not have. Object and
// plan are checked against each other when a policy is applied, so somebody has
// changed the applied set, or another version of linkpin made it.
var errDamaged = errors.New("is not in the applied policy's object")

const remedyApply = "run `linkpin policy apply`"

// object parses an object of the plan once.
func (l *loader) object(name string) (*ebpf.CollectionSpec, error) {
	if spec, ok := l.objects[name]; ok {
		return spec, nil
	}
	for _, o := range l.o.Plan.Objects {
		if o.Name != name {
			continue
		}
		data, err := l.o.Object(o.SHA256)
		if err != nil {
			return nil, l.fail("object "+o.Origin, err, remedyApply)
		}
		spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(data))
		if err != nil {
			return nil, l.fail("object "+o.Origin, err, "")
		}
		l.objects[name] = spec
		return spec, nil
	}
	return nil, l.fail("object "+name, errDamaged, remedyApply)
}

// Reference is one use of a map by an instruction.
type Reference struct {
	Map    string // symbol of the map, or name of a data section
	Offset uint32 // Direct only: bytes from the start of the section, where a variable begins
	Direct bool   // the instruction takes the address of a variable
}

// References lists the maps that a program uses, subprograms included, in the
// order of its instructions. What the kernel fills (.kconfig) is not among them.
func References(p *ebpf.ProgramSpec) []Reference {
	var refs []Reference
	seen := map[Reference]bool{}
	for i := range p.Instructions {
		ins := &p.Instructions[i]
		if !ins.IsLoadFromMap() || ins.Reference() == "" {
			continue
		}
		r := Reference{Map: ins.Reference()}
		if ins.Src == asm.PseudoMapValue {
			r.Direct, r.Offset = true, uint32(uint64(ins.Constant)>>32)
		}
		if !seen[r] {
			seen[r] = true
			refs = append(refs, r)
		}
	}
	return refs
}

// innerReferences lists the maps that an object puts into a map of maps.
func innerReferences(m *ebpf.MapSpec) []string {
	if m.Type != ebpf.ArrayOfMaps && m.Type != ebpf.HashOfMaps {
		return nil
	}
	var names []string
	for _, kv := range m.Contents {
		if name, ok := kv.Value.(string); ok {
			names = append(names, name)
		}
	}
	return names
}

// Variable is a global or static variable of an object.
type Variable struct {
	Name    string
	Section string   // ".rodata", ".data.foo", ".bss"
	Offset  uint32   // bytes from the start of the section
	Size    uint32   // bytes
	Type    btf.Type // nil if the object has no BTF for it
}

// Variables lists the variables in an object's data sections, in no particular
// order. Static variables are known only from BTF; one inside a function is called
// "function.variable".
func Variables(spec *ebpf.CollectionSpec) []Variable {
	var vars []Variable
	for _, v := range spec.Variables {
		vars = append(vars, fromSpec(v))
	}
	for section, m := range spec.Maps {
		ds, ok := m.Value.(*btf.Datasec)
		if !ok || !IsDataSection(section) {
			continue
		}
		for _, info := range ds.Vars {
			v, ok := info.Type.(*btf.Var)
			if !ok || spec.Variables[v.Name] != nil {
				continue
			}
			vars = append(vars, Variable{Name: v.Name, Section: section, Offset: info.Offset, Size: info.Size, Type: v.Type})
		}
	}
	return vars
}

func fromSpec(v *ebpf.VariableSpec) Variable {
	out := Variable{Name: v.Name, Section: v.SectionName, Offset: v.Offset, Size: v.Size()}
	if v.Type != nil {
		out.Type = v.Type.Type
	}
	return out
}

// FindVariable finds a variable by name.
func FindVariable(spec *ebpf.CollectionSpec, name string) (Variable, bool) {
	if v := spec.Variables[name]; v != nil {
		return fromSpec(v), true
	}
	for _, v := range Variables(spec) {
		if v.Name == name {
			return v, true
		}
	}
	return Variable{}, false
}

// IsDataSection reports whether the map of that name in an object is a data
// section and not a map that the object declares.
func IsDataSection(name string) bool {
	return name == ".bss" || strings.HasPrefix(name, ".data") || strings.HasPrefix(name, ".rodata")
}

// setVariable overwrites a variable in the contents of its section.
func setVariable(m *ebpf.MapSpec, v Variable, value []byte) error {
	if len(m.Contents) != 1 {
		return fmt.Errorf("section %s has no contents", v.Section)
	}
	data, ok := m.Contents[0].Value.([]byte)
	if !ok || uint64(v.Offset)+uint64(v.Size) > uint64(len(data)) || int(v.Size) != len(value) {
		return fmt.Errorf("variable %s has %d bytes in its object, and %d in the plan", v.Name, v.Size, len(value))
	}
	copy(data[v.Offset:], value)
	return nil
}
