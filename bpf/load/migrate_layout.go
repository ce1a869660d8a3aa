// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// field is a part of a key or value that is not a struct itself.
type field struct {
	path   string // names joined by dots; empty for a plain value
	offset uint32 // bytes
	size   uint32 // bytes
	shape  string // two fields of the same shape can be copied
}

// layout compares two versions of a key or value.
type layout struct {
	same    bool // also if neither is known
	unknown bool // neither is known
	fields  []copied
	why     error // why the old can't become the new; nil if it can
}

// resized is for a size that the two policies set otherwise: where the fields are not
// known, equal sizes alone are no sign of equal fields if one of them was made to fit.
func (l *layout) resized() {
	if l.unknown {
		l.same, l.why = false, errors.New("the policy sets its size otherwise, and there is no BTF that names its fields")
	}
}

// copied is a field that is taken over.
type copied struct{ from, to, size uint32 }

// layoutOf compares types by their fields' names, places and shapes. Enums are
// integers here, and signedness does not matter.
func layoutOf(old, now btf.Type) layout {
	switch {
	case old == nil && now == nil:
		return layout{same: true, unknown: true}
	case old == nil:
		return layout{why: errors.New("the running version has no BTF that names the fields")}
	case now == nil:
		return layout{why: errors.New("the new version has no BTF that names the fields")}
	}
	was, is := fieldsOf(old), fieldsOf(now)
	l := layout{same: slices.Equal(was, is)}
	if l.same {
		if i := slices.IndexFunc(was, func(f field) bool { return special(f.shape) }); i >= 0 {
			l.why = fmt.Errorf("field %q is the kernel's own", was[i].path)
		}
		return l
	}
	for _, f := range was {
		i := slices.IndexFunc(is, func(g field) bool { return g.path == f.path })
		switch {
		case special(f.shape):
			l.why = fmt.Errorf("field %q is the kernel's own", f.path)
		case i < 0:
			l.why = fmt.Errorf("field %q is not in the new version", f.path)
		case is[i].shape != f.shape || strings.Contains(f.shape, ":"):
			l.why = fmt.Errorf("%q was %s and is %s now", f.path, f.shape, is[i].shape)
		default:
			l.fields = append(l.fields, copied{f.offset, is[i].offset, f.size})
			continue
		}
		if f.path == "" && i >= 0 {
			l.why = fmt.Errorf("it was %s and is %s now", f.shape, is[i].shape)
		}
		break
	}
	return l
}

// converter returns how a value of one CPU becomes one of size bytes.
func (l layout) converter(size uint32) func([]byte) []byte {
	if l.same {
		return func(b []byte) []byte { return b }
	}
	return func(b []byte) []byte {
		out := make([]byte, size)
		for _, f := range l.fields {
			if int(f.from+f.size) <= len(b) && f.to+f.size <= size {
				copy(out[f.to:f.to+f.size], b[f.from:])
			}
		}
		return out
	}
}

func fieldsOf(t btf.Type) []field {
	var out []field
	appendFields(&out, "", 0, t)
	return out
}

func appendFields(out *[]field, path string, offset uint32, t btf.Type) {
	s, ok := btf.UnderlyingType(t).(*btf.Struct)
	if !ok || special("struct "+s.Name) {
		size, err := btf.Sizeof(t)
		if err != nil {
			size = 0
		}
		*out = append(*out, field{path, offset, uint32(size), shapeOf(t)})
		return
	}
	for _, m := range s.Members {
		name := path
		if m.Name != "" {
			name = strings.TrimPrefix(path+"."+m.Name, ".")
		}
		if m.BitfieldSize != 0 {
			*out = append(*out, field{name, offset, 0, fmt.Sprintf("bits %d:%d", m.Offset, m.BitfieldSize)})
			continue
		}
		appendFields(out, name, offset+m.Offset.Bytes(), m.Type)
	}
}

// shapeOf describes a type so that equal texts mean equal bytes. Texts with a colon
// are of bit fields, which are never moved.
func shapeOf(t btf.Type) string {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Int:
		return fmt.Sprintf("%d bytes", t.Size)
	case *btf.Enum:
		return fmt.Sprintf("%d bytes", t.Size)
	case *btf.Float:
		return fmt.Sprintf("float of %d bytes", t.Size)
	case *btf.Pointer:
		return "a pointer"
	case *btf.Array:
		return fmt.Sprintf("%d times %s", t.Nelems, shapeOf(t.Type))
	case *btf.Struct:
		if special("struct " + t.Name) {
			return "struct " + t.Name
		}
		return fmt.Sprintf("struct of %d bytes {%s}", t.Size, shapesOf(t.Members))
	case *btf.Union:
		return fmt.Sprintf("union of %d bytes {%s}", t.Size, shapesOf(t.Members))
	}
	return fmt.Sprintf("%T", t)
}

func shapesOf(members []btf.Member) string {
	texts := make([]string, len(members))
	for i, m := range members {
		texts[i] = fmt.Sprintf("%s at bit %d, %s", m.Name, m.Offset, shapeOf(m.Type))
		if m.BitfieldSize != 0 {
			texts[i] += fmt.Sprintf(":%d", m.BitfieldSize)
		}
	}
	return strings.Join(texts, "; ")
}

// special reports whether a shape holds what the kernel keeps in map values and user
// space can't copy: timers, locks, pointers.
func special(shape string) bool {
	if strings.Contains(shape, "a pointer") {
		return true
	}
	for _, name := range []string{"bpf_timer", "bpf_wq", "bpf_spin_lock", "bpf_res_spin_lock", "bpf_list_head", "bpf_list_node", "bpf_rb_root", "bpf_rb_node", "bpf_refcount", "bpf_task_work"} {
		if strings.Contains(shape, "struct "+name) {
			return true
		}
	}
	return false
}
