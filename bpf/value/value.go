// SPDX-License-Identifier: Apache-2.0

package value

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
	"github.com/linkpin/linkpin/specs/policy"
)

// ErrUnsupported is in the chain of errors about types for which there is no
// notation: pointers, flexible arrays, functions, forward declarations, and BTF
// that contradicts itself.
var ErrUnsupported = errors.New("not supported as a value")

// maxSize bounds values, in bytes: BTF may claim any size.
const maxSize = 16 << 20

const (
	hexPrefix  = "hex:"
	textPrefix = "text:"
	bePrefix   = "be:"
)

// Encode returns the bytes of v as a value of type t. A *btf.Var stands for its
// type, and its name counts as the field's name. Every error is a *fault.Error
// on one line, with the place in the policy and ExitInput.
func Encode(t btf.Type, v *policy.Value) (specs.Bytes, error) {
	e, p, err := newEncoder(t, v)
	if err != nil {
		return specs.Bytes{}, err
	}
	if err := e.value(p, v); err != nil {
		return specs.Bytes{}, err
	}
	return e.bytes(), nil
}

// EncodeKey is Encode for the key of a map of type m with keys of size bytes.
// Keys of LPM tries may be CIDR prefixes. t is nil (or void) for a map without
// BTF, or with a key size other than what its BTF says.
func EncodeKey(t btf.Type, size uint32, m ebpf.MapType, v *policy.Value) (specs.Bytes, error) {
	if noType(t) {
		if m != ebpf.LPMTrie {
			return EncodeSized(size, v)
		}
		t = lpmKeyType(size)
	}
	e, p, err := newEncoder(t, v)
	if err != nil {
		return specs.Bytes{}, err
	}
	if len(e.data) != int(size) {
		return specs.Bytes{}, fail(v, "keep the object's key size",
			"the map's keys have %s, but %s has %s", countBytes(int(size)), TypeName(t), countBytes(len(e.data)))
	}
	if m == ebpf.LPMTrie {
		err = e.lpmKey(p, v)
	} else {
		err = e.value(p, v)
	}
	if err != nil {
		return specs.Bytes{}, err
	}
	return e.bytes(), nil
}

// EncodeSized returns the bytes of v where only the size is known: an integer
// (signed or not) of up to 16 bytes, an address, `text:…` or `hex:…`.
func EncodeSized(size uint32, v *policy.Value) (specs.Bytes, error) {
	t, asText := sizedType(size), false
	if v != nil && v.Kind == policy.ScalarValue {
		asText = strings.HasPrefix(v.Text, textPrefix) || isTextVariable(v.Text) && size != 8
		asHex := strings.HasPrefix(v.Text, hexPrefix)
		if size > maxIntSize && !asText && !asHex && !v.Null && !isVariable(v.Text) {
			return specs.Bytes{}, fail(v, fmt.Sprintf("write %s as hex:…", countBytes(int(size))),
				"there is no BTF type that says what %s means in %s", quote(v.Text), countBytes(int(size)))
		}
	}
	if asText {
		t = byteArray(size)
	}
	e, p, err := newEncoder(t, v)
	if err != nil {
		return specs.Bytes{}, err
	}
	if v.Kind != policy.ScalarValue {
		return specs.Bytes{}, fail(v, "write a number, an address or hex:…",
			"there is no BTF type that says what a %s means", kindName(v))
	}
	e.anySign = true
	if err := e.value(p, v); err != nil {
		return specs.Bytes{}, err
	}
	return e.bytes(), nil
}

// encoder fills the bytes of one value.
type encoder struct {
	data    []byte
	holes   []specs.Hole
	anySign bool // integers have no sign of their own: both ranges are accepted
}

// place is where a part of a value goes.
type place struct {
	typ  btf.Type // as declared, typedefs and qualifiers included
	off  int      // bytes from the start of the value
	name string   // of the nearest field or variable; may be empty
}

func newEncoder(t btf.Type, v *policy.Value) (*encoder, place, error) {
	if v == nil {
		return nil, place{}, fail(v, "", "a value of type %s is missing", TypeName(t))
	}
	p := place{typ: t}
	if variable, ok := t.(*btf.Var); ok {
		p.typ, p.name = variable.Type, variable.Name
	}
	size, err := check(p.typ)
	if err != nil {
		return nil, place{}, fail(v, "", "%w", err)
	}
	return &encoder{data: make([]byte, size)}, p, nil
}

func (e *encoder) bytes() specs.Bytes {
	return specs.Bytes{Data: e.data, Holes: e.holes}
}

// at returns the bytes of p.
func (e *encoder) at(p place) []byte {
	return e.data[p.off : p.off+sizeof(p.typ)]
}

// value encodes v at p.
func (e *encoder) value(p place, v *policy.Value) error {
	if v == nil {
		return fail(v, "", "a value of type %s is missing", TypeName(p.typ))
	}
	if v.Kind == policy.ScalarValue {
		if v.Null {
			return fail(v, "write 0, or leave it out", "null is no value for %s", TypeName(p.typ))
		}
		if digits, ok := strings.CutPrefix(v.Text, hexPrefix); ok {
			return e.hex(p, v, digits)
		}
		if isVariable(v.Text) {
			return e.variable(p, v)
		}
	}
	switch t := underlying(p.typ).(type) {
	case *btf.Int:
		return e.integer(p, t, v)
	case *btf.Enum:
		return e.enum(p, t, v)
	case *btf.Float:
		return e.float(p, t, v)
	case *btf.Array:
		return e.array(p, t, v)
	case *btf.Struct, *btf.Union:
		return e.composite(p, v)
	case *btf.Pointer:
		return fail(v, "leave it out", "%s: a pointer is %w", TypeName(p.typ), ErrUnsupported)
	default:
		return fail(v, "leave it out", "%s is %w", TypeName(p.typ), ErrUnsupported)
	}
}

// hex writes raw bytes.
func (e *encoder) hex(p place, v *policy.Value, digits string) error {
	dst := e.at(p)
	raw, err := parseHex(digits)
	if err != nil {
		return fail(v, "write two hexadecimal digits for each byte, nothing between them", "%s for %s: %w", quote(v.Text), TypeName(p.typ), err)
	}
	if len(raw) != len(dst) || len(dst) == 0 {
		return fail(v, "write every byte", "%s has %s, but %s has %s",
			quote(v.Text), countBytes(len(raw)), TypeName(p.typ), countBytes(len(dst)))
	}
	copy(dst, raw)
	return nil
}

// fail returns a *fault.Error about v.
func fail(v *policy.Value, remedy, format string, args ...any) error {
	object := ""
	if v != nil {
		object = v.Pos.String()
	}
	if object == "" {
		object = "value"
	}
	return fault.New(object, fmt.Errorf(format, args...), remedy).WithExit(fault.ExitInput)
}

// quote returns s in quotes, cut off where it gets too long for an error.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

func countBytes(n int) string {
	if n == 1 {
		return "1 byte"
	}
	return fmt.Sprintf("%d bytes", n)
}

func kindName(v *policy.Value) string {
	switch v.Kind {
	case policy.ListValue:
		return "list"
	case policy.MapValue:
		return "mapping"
	default:
		return "scalar"
	}
}

// list joins names for an error, at most 20 of them.
func list(names []string) string {
	const most = 20
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
