// SPDX-License-Identifier: Apache-2.0

package value

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// maxIntSize is the size of __int128, the largest integer of C, in bytes.
const maxIntSize = 16

// maxParts bounds the members and elements of a type, counted through: BTF of a
// few bytes can describe more of them than there is time for.
const maxParts = 2 * maxSize

// noType says whether t carries no information.
func noType(t btf.Type) bool {
	if t == nil {
		return true
	}
	_, void := underlying(t).(*btf.Void)
	return void
}

// underlying skips typedefs and qualifiers.
func underlying(t btf.Type) btf.Type { return btf.UnderlyingType(t) }

// sizeof returns the size of t in bytes, 0 if it has none.
func sizeof(t btf.Type) int {
	n, _ := btf.Sizeof(t)
	return n
}

// members returns the members of a struct or union.
func members(t btf.Type) (ms []btf.Member, ok bool) {
	switch t := underlying(t).(type) {
	case *btf.Struct:
		return t.Members, true
	case *btf.Union:
		return t.Members, true
	default:
		return nil, false
	}
}

func isChar(t *btf.Int) bool {
	return t.Size == 1 && (t.Encoding&btf.Char != 0 || t.Name == "char")
}

func isBool(t *btf.Int) bool { return t.Encoding&btf.Bool != 0 }

func isSigned(t *btf.Int) bool { return t.Encoding&btf.Signed != 0 }

// byteElement returns the element type of an array of one-byte integers.
func byteElement(t *btf.Array) (*btf.Int, bool) {
	elem, ok := underlying(t.Type).(*btf.Int)
	if !ok || elem.Size != 1 || isBool(elem) {
		return nil, false
	}
	return elem, true
}

// inNetworkOrder says whether integers of type t in a field of that name are
// stored in network order.
func inNetworkOrder(t btf.Type, field string) bool {
	for _, name := range typedefs(t) {
		switch name {
		case "__be16", "__be32", "__be64", "be16", "be32", "be64", "in_port_t", "in_addr_t":
			return true
		}
	}
	words := strings.Split(strings.Trim(strings.ToLower(field), "_"), "_")
	return len(words) > 1 && (orderWord(words[0]) || orderWord(words[len(words)-1]))
}

func orderWord(s string) bool {
	switch s {
	case "be", "be16", "be32", "be64", "nbo":
		return true
	}
	return false
}

// typedefs returns the names of the typedefs that t is made of, outermost first.
func typedefs(t btf.Type) []string {
	var names []string
	for range 32 { // how far btf.UnderlyingType follows a chain
		td, ok := btf.QualifiedType(t).(*btf.Typedef)
		if !ok {
			break
		}
		names = append(names, td.Name)
		t = td.Type
	}
	return names
}

// check returns the size of t in bytes. After it t has no cycles, members lie
// inside of their struct, and walking it takes bounded time, so that nothing
// else needs to look at that.
func check(t btf.Type) (int, error) {
	if t == nil {
		return 0, fmt.Errorf("no BTF type: %w", ErrUnsupported)
	}
	c := checker{parts: make(map[btf.Type]int)}
	if _, err := c.check(t, 0); err != nil {
		return 0, err
	}
	size := sizeof(t)
	switch {
	case size == 0:
		return 0, fmt.Errorf("%s has no size of its own: %w", TypeName(t), ErrUnsupported)
	case size > maxSize:
		return 0, fmt.Errorf("%s has %d bytes, more than %d: %w", TypeName(t), size, maxSize, ErrUnsupported)
	}
	return size, nil
}

type checker struct {
	parts map[btf.Type]int // of structs and unions; -1 while they are walked
}

// check returns how many parts a walk over t meets.
func (c *checker) check(t btf.Type, depth int) (int, error) {
	if depth > 64 {
		return 0, damaged(t, "nested too deeply")
	}
	switch u := underlying(t).(type) {
	case *btf.Int:
		if u.Size == 0 || u.Size > maxIntSize {
			return 0, damaged(t, "integer size")
		}
		return 1, nil
	case *btf.Enum:
		if u.Size == 0 || u.Size > 8 {
			return 0, damaged(t, "enum size")
		}
		return 1, nil
	case *btf.Float, *btf.Pointer:
		return 1, nil
	case *btf.Array:
		n, err := c.check(u.Type, depth+1)
		if err != nil {
			return 0, err
		}
		if int64(n)*int64(u.Nelems) > maxParts {
			return 0, damaged(t, "too many elements")
		}
		return max(1, n*int(u.Nelems)), nil
	case *btf.Struct:
		return c.composite(t, u, u.Size, u.Members, depth)
	case *btf.Union:
		return c.composite(t, u, u.Size, u.Members, depth)
	default:
		return 0, fmt.Errorf("%s is %w", TypeName(t), ErrUnsupported)
	}
}

func (c *checker) composite(t, u btf.Type, size uint32, ms []btf.Member, depth int) (int, error) {
	if n, ok := c.parts[u]; ok {
		if n < 0 {
			return 0, damaged(t, "it contains itself")
		}
		return n, nil
	}
	c.parts[u] = -1
	total := 1
	for _, m := range ms {
		n, err := c.check(m.Type, depth+1)
		if err != nil {
			return 0, err
		}
		if total += n; total > maxParts {
			return 0, damaged(t, "too many members")
		}
		bits := uint64(sizeof(m.Type)) * 8
		if m.BitfieldSize > 0 {
			switch underlying(m.Type).(type) {
			case *btf.Int, *btf.Enum:
			default:
				return 0, damaged(t, "bitfield "+m.Name+" is no integer")
			}
			if uint64(m.BitfieldSize) > bits {
				return 0, damaged(t, "bitfield "+m.Name+" is larger than its type")
			}
			bits = uint64(m.BitfieldSize)
		} else if m.Offset%8 != 0 {
			return 0, damaged(t, "member "+m.Name+" does not start at a byte")
		}
		if uint64(m.Offset)+bits > uint64(size)*8 {
			return 0, damaged(t, "member "+m.Name+" is outside")
		}
	}
	c.parts[u] = total
	return total, nil
}

func damaged(t btf.Type, why string) error {
	return fmt.Errorf("%s: its BTF is damaged (%s): %w", TypeName(t), why, ErrUnsupported)
}

// sizedType is the type of a value of which only the size is known.
func sizedType(size uint32) btf.Type {
	if size == 0 || size > maxIntSize {
		return byteArray(size)
	}
	return &btf.Int{Name: countBytes(int(size)) + " without BTF", Size: size}
}

func byteArray(size uint32) btf.Type {
	return &btf.Array{Index: &btf.Int{Name: "int", Size: 4}, Type: &btf.Int{Name: "unsigned char", Size: 1}, Nelems: size}
}
