// SPDX-License-Identifier: Apache-2.0

package value

import (
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

var (
	typeChar   = &btf.Int{Name: "char", Size: 1, Encoding: btf.Signed}
	typeUchar  = &btf.Int{Name: "unsigned char", Size: 1}
	typeBool   = &btf.Int{Name: "_Bool", Size: 1, Encoding: btf.Bool}
	typeInt    = &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	typeU8     = typedef("__u8", typeUchar)
	typeS8     = typedef("__s8", &btf.Int{Name: "signed char", Size: 1, Encoding: btf.Signed})
	typeU16    = typedef("__u16", &btf.Int{Name: "unsigned short", Size: 2})
	typeS16    = typedef("__s16", &btf.Int{Name: "short", Size: 2, Encoding: btf.Signed})
	typeU32    = typedef("__u32", &btf.Int{Name: "unsigned int", Size: 4})
	typeU64    = typedef("__u64", &btf.Int{Name: "unsigned long long", Size: 8})
	typeS64    = typedef("__s64", &btf.Int{Name: "long long", Size: 8, Encoding: btf.Signed})
	typeU128   = typedef("__u128", &btf.Int{Name: "unsigned __int128", Size: 16})
	typeS128   = typedef("__s128", &btf.Int{Name: "__int128", Size: 16, Encoding: btf.Signed})
	typeBe16   = typedef("__be16", typeU16)
	typeBe32   = typedef("__be32", typeU32)
	typeBe64   = typedef("__be64", typeU64)
	typeFloat  = &btf.Float{Name: "float", Size: 4}
	typeDouble = &btf.Float{Name: "double", Size: 8}
	typeInAddr = structOf("in_addr", member("s_addr", typeBe32))
	typeIn6    = structOf("in6_addr", member("in6_u", unionOf("",
		member("u6_addr8", arrayOf(typeU8, 16)),
		member("u6_addr16", arrayOf(typeBe16, 8)),
		member("u6_addr32", arrayOf(typeBe32, 4)))))
	typeVerdict = &btf.Enum{Name: "verdict", Size: 4, Values: []btf.EnumValue{
		{Name: "VERDICT_DROP"}, {Name: "VERDICT_PASS", Value: 1}, {Name: "verdict_pass", Value: 2}, {Name: "LOG", Value: 0x80000000}}}
	typeErrno = &btf.Enum{Name: "errno", Size: 4, Signed: true, Values: []btf.EnumValue{
		{Name: "E_PERM", Value: 1<<64 - 1}, {Name: "E_OK"}}}
	typeMask = &btf.Enum{Name: "mask", Size: 8, Values: []btf.EnumValue{{Name: "ALL", Value: 1<<64 - 1}, {Name: "NONE"}}}
)

func typedef(name string, t btf.Type) btf.Type { return &btf.Typedef{Name: name, Type: t} }

func arrayOf(t btf.Type, n uint32) *btf.Array {
	return &btf.Array{Index: typeInt, Type: t, Nelems: n}
}

func member(name string, t btf.Type) btf.Member { return btf.Member{Name: name, Type: t} }

func bitMember(name string, t btf.Type, bits btf.Bits) btf.Member {
	return btf.Member{Name: name, Type: t, BitfieldSize: bits}
}

// alignOf returns the alignment of t in bytes.
func alignOf(t btf.Type) int {
	switch u := underlying(t).(type) {
	case *btf.Array:
		return alignOf(u.Type)
	case *btf.Struct, *btf.Union:
		n := 1
		ms, _ := members(u)
		for _, m := range ms {
			n = max(n, alignOf(m.Type))
		}
		return n
	default:
		return max(1, sizeof(t))
	}
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// structOf lays members out as C does, bitfields one after the other within
// units of their type.
func structOf(name string, ms ...btf.Member) *btf.Struct {
	bit, align := 0, 1
	for i, m := range ms {
		unit := sizeof(m.Type) * 8
		if m.BitfieldSize > 0 {
			if bit/unit != (bit+int(m.BitfieldSize)-1)/unit {
				bit = roundUp(bit, unit)
			}
			ms[i].Offset = btf.Bits(bit)
			bit += int(m.BitfieldSize)
		} else {
			bit = roundUp(bit, alignOf(m.Type)*8)
			ms[i].Offset = btf.Bits(bit)
			bit += unit
		}
		align = max(align, alignOf(m.Type))
	}
	return &btf.Struct{Name: name, Size: uint32(roundUp(bit, align*8) / 8), Members: ms}
}

// packedOf lays members out without padding.
func packedOf(name string, ms ...btf.Member) *btf.Struct {
	off := 0
	for i, m := range ms {
		ms[i].Offset = btf.Bits(off)
		off += sizeof(m.Type) * 8
	}
	return &btf.Struct{Name: name, Size: uint32(off / 8), Members: ms}
}

func unionOf(name string, ms ...btf.Member) *btf.Union {
	size, align := 0, 1
	for _, m := range ms {
		size, align = max(size, sizeof(m.Type)), max(align, alignOf(m.Type))
	}
	return &btf.Union{Name: name, Size: uint32(roundUp(size, align)), Members: ms}
}

func TestTypeName(t *testing.T) {
	proto := &btf.FuncProto{Return: typeInt}
	for _, c := range []struct {
		typ  btf.Type
		want string
	}{
		{nil, "no type"},
		{(*btf.Void)(nil), "void"},
		{typeU32, "__u32"},
		{&btf.Const{Type: typeU32}, "const __u32"},
		{&btf.Volatile{Type: &btf.Const{Type: typeU32}}, "volatile const __u32"},
		{arrayOf(typeChar, 16), "char[16]"},
		{arrayOf(arrayOf(typeU8, 6), 4), "__u8[4][6]"},
		{&btf.Const{Type: arrayOf(typeChar, 16)}, "const char[16]"},
		{&btf.Struct{Name: "rule"}, "struct rule"},
		{&btf.Struct{}, "struct {…}"},
		{&btf.Union{Name: "u"}, "union u"},
		{&btf.Enum{Name: "e"}, "enum e"},
		{&btf.Fwd{Name: "f", Kind: btf.FwdUnion}, "union f"},
		{&btf.Pointer{Target: (*btf.Void)(nil)}, "void *"},
		{&btf.Pointer{Target: &btf.Pointer{Target: &btf.Const{Type: typeChar}}}, "const char **"},
		{&btf.Const{Type: &btf.Pointer{Target: typeChar}}, "char * const"},
		{&btf.Pointer{Target: arrayOf(typeInt, 3)}, "int (*)[3]"},
		{&btf.Pointer{Target: proto}, "int (*)(…)"},
		{&btf.Pointer{Target: &btf.TypeTag{Value: "kptr", Type: &btf.Struct{Name: "task"}}}, "struct task *"},
		{&btf.Restrict{Type: &btf.Pointer{Target: typeInt}}, "int * restrict"},
		{&btf.Func{Name: "f", Type: proto}, "function f"},
		{&btf.Datasec{Name: ".rodata"}, "section .rodata"},
		{&btf.Var{Name: "v", Type: typeInt}, "int"},
		{&btf.Int{Size: 4}, "a type without a name"},
		{typeFloat, "float"},
	} {
		if got := TypeName(c.typ); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	loop := &btf.Pointer{}
	loop.Target = loop
	if got := TypeName(loop); !strings.HasPrefix(got, "…") || len(got) > 100 {
		t.Errorf("endless type: %q", got)
	}
}

// TestDamagedBTF has types that no compiler writes: they must not hang, panic or
// take all memory.
func TestDamagedBTF(t *testing.T) {
	self := &btf.Struct{Name: "self", Size: 4}
	self.Members = []btf.Member{{Name: "a", Type: self}}
	selfArray := &btf.Array{Nelems: 1}
	selfArray.Type = selfArray
	selfTypedef := &btf.Typedef{Name: "t"}
	selfTypedef.Type = selfTypedef
	var wide btf.Type = typeU8
	for range 40 { // 2^40 members
		wide = &btf.Union{Name: "w", Size: 1, Members: []btf.Member{{Name: "a", Type: wide}, {Name: "b", Type: wide}}}
	}
	for _, c := range []struct {
		typ  btf.Type
		want string
	}{
		{self, "struct self: its BTF is damaged (it contains itself): not supported as a value"},
		{selfArray, "its BTF is damaged (nested too deeply): not supported as a value"},
		{selfTypedef, "t is not supported as a value"},
		{wide, "union w: its BTF is damaged (too many members): not supported as a value"},
		{&btf.Int{Name: "i", Size: 17}, "i: its BTF is damaged (integer size): not supported as a value"},
		{&btf.Int{Name: "i"}, "i: its BTF is damaged (integer size): not supported as a value"},
		{&btf.Enum{Name: "e", Size: 9}, "enum e: its BTF is damaged (enum size): not supported as a value"},
		{arrayOf(typeU8, 1<<31), "__u8[2147483648]: its BTF is damaged (too many elements): not supported as a value"},
		{arrayOf(typeU64, 1<<22), "__u64[4194304] has 33554432 bytes, more than 16777216: not supported as a value"},
		{arrayOf(typeU8, 0), "__u8[0] has no size of its own: not supported as a value"},
		{&btf.Struct{Name: "s", Size: 2, Members: []btf.Member{{Name: "a", Type: typeU32}}},
			"struct s: its BTF is damaged (member a is outside): not supported as a value"},
		{&btf.Struct{Name: "s", Size: 8, Members: []btf.Member{{Name: "a", Type: typeU32, Offset: 1 << 31}}},
			"struct s: its BTF is damaged (member a is outside): not supported as a value"},
		{&btf.Struct{Name: "s", Size: 8, Members: []btf.Member{{Name: "a", Type: typeU32, Offset: 3}}},
			"struct s: its BTF is damaged (member a does not start at a byte): not supported as a value"},
		{&btf.Struct{Name: "s", Size: 8, Members: []btf.Member{{Name: "a", Type: typeFloat, BitfieldSize: 3}}},
			"struct s: its BTF is damaged (bitfield a is no integer): not supported as a value"},
		{&btf.Struct{Name: "s", Size: 8, Members: []btf.Member{{Name: "a", Type: typeU8, BitfieldSize: 9}}},
			"struct s: its BTF is damaged (bitfield a is larger than its type): not supported as a value"},
		{&btf.Struct{Name: "s", Size: 8, Members: []btf.Member{{Name: "a", Type: typeU8, BitfieldSize: 4, Offset: 62}}},
			"struct s: its BTF is damaged (member a is outside): not supported as a value"},
		{&btf.Struct{Name: "s", Size: 8, Members: []btf.Member{{Name: "a", Type: &btf.Fwd{Name: "f"}}}}, "struct f is not supported as a value"},
		{&btf.Datasec{Name: ".data", Size: 4}, "section .data is not supported as a value"},
		{&btf.FuncProto{Return: typeInt}, "int(…) is not supported as a value"},
		{(*btf.Void)(nil), "void is not supported as a value"},
		{&btf.Var{Name: "v", Type: nil}, "no BTF type: not supported as a value"},
	} {
		_, err := Encode(c.typ, mustParse(t, "1"))
		if err == nil || !errors.Is(err, ErrUnsupported) || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("Encode: %v, want %q", err, c.want)
			continue
		}
		checkError(t, err, err.Error())
		if _, err := Decode(c.typ, make([]byte, 4)); !errors.Is(err, ErrUnsupported) {
			t.Errorf("Decode: %v, want %q", err, c.want)
		}
	}
}
