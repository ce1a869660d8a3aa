// SPDX-License-Identifier: Apache-2.0

package value

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// randomType returns a type that has a notation, nested at most depth times.
func randomType(r *rand.Rand, depth int) btf.Type {
	leaves := []btf.Type{typeU8, typeS8, typeU16, typeS16, typeU32, typeInt, typeU64, typeS64, typeU128, typeS128,
		typeBe16, typeBe32, typeBe64, typeBool, typeChar, typeUchar, typeFloat, typeDouble, typeVerdict, typeErrno, typeMask,
		typeInAddr, typeIn6, typeV6, &btf.Int{Name: "_Bool", Size: 4, Encoding: btf.Bool}, &btf.Pointer{Target: typeInt},
		&btf.Enum{Name: "tiny", Size: 1, Signed: true, Values: []btf.EnumValue{{Name: "MINUS", Value: 1<<64 - 1}}},
		&btf.Float{Name: "long double", Size: 16}}
	kind := 0
	if depth > 0 {
		kind = r.IntN(9)
	}
	switch kind {
	case 1:
		sizes := []uint32{1, 2, 3, 4, 6, 8, 16}
		return arrayOf(randomType(r, depth-1), sizes[r.IntN(len(sizes))])
	case 2:
		sizes := []uint32{1, 2, 4, 6, 16}
		bytes := []btf.Type{typeU8, typeChar, typeS8}
		return arrayOf(bytes[r.IntN(len(bytes))], sizes[r.IntN(len(sizes))])
	case 3, 4:
		return structOf("s", randomMembers(r, depth)...)
	case 5:
		return packedOf("p", randomMembers(r, depth)...)
	case 6:
		return unionOf("u", randomMembers(r, depth)...)
	case 7:
		return &btf.Volatile{Type: &btf.Const{Type: typedef("t", randomType(r, depth-1))}}
	default:
		return leaves[r.IntN(len(leaves))]
	}
}

// fieldSerial makes the names of fields unique, as C demands of those of
// anonymous members.
func randomMembers(r *rand.Rand, depth int) []btf.Member {
	names := []string{"a", "addr", "ip6_", "proto", "x_be", "prefix", "nexthdr"}
	var ms []btf.Member
	for range 1 + r.IntN(4) {
		m := member(fmt.Sprintf("f%x_%s", r.Uint64(), names[r.IntN(len(names))]), randomType(r, depth-1))
		if r.IntN(8) == 0 { // the bare name, at most once
			m.Name = names[r.IntN(len(names))]
			if slices.ContainsFunc(ms, func(o btf.Member) bool { return o.Name == m.Name }) {
				continue
			}
		}
		switch u := underlying(m.Type).(type) {
		case *btf.Struct:
			if u.Name != "in_addr" && r.IntN(3) == 0 && !bareNames(u) {
				m.Name = ""
			}
		case *btf.Union:
			if r.IntN(3) == 0 && !bareNames(u) {
				m.Name = ""
			}
		case *btf.Int, *btf.Enum:
			if r.IntN(4) == 0 {
				m.BitfieldSize = btf.Bits(1 + r.IntN(sizeof(u)*8))
			}
		}
		ms = append(ms, m)
	}
	return ms
}

// bareNames says whether promoting the fields of t could make two of one name.
func bareNames(t btf.Type) bool {
	return slices.ContainsFunc(fieldsOf(t), func(f field) bool { return f.name[0] != 'f' })
}

// unpad returns b with everything zero that a value of type t does not show, so
// that it must come back as it was.
func unpad(t btf.Type, b []byte) []byte {
	keep := make([]byte, len(b))
	var mark func(t btf.Type, off int)
	mark = func(t btf.Type, off int) {
		var ms []btf.Member
		switch u := underlying(t).(type) {
		case *btf.Struct:
			ms = u.Members
		case *btf.Union:
			if m, ok := choose(u); ok {
				ms = []btf.Member{m}
				break
			}
			copy(keep[off:], slices.Repeat([]byte{255}, int(u.Size))) // all of it as hex
		case *btf.Array:
			for i := range int(u.Nelems) {
				mark(u.Type, off+i*sizeof(u.Type))
			}
		default:
			for i := range sizeof(t) {
				keep[off+i] = 255
			}
		}
		for _, m := range ms {
			if m.BitfieldSize == 0 {
				mark(m.Type, off+int(m.Offset/8))
				continue
			}
			for i := range uint(m.BitfieldSize) {
				at, mask := bitAt(uint(m.Offset), uint(m.BitfieldSize), i)
				keep[off+int(at)] |= mask
			}
		}
	}
	mark(t, 0)
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i] & keep[i]
	}
	return out
}

// roundTrip checks that Encode(Decode(data)) is data.
func roundTrip(t *testing.T, typ btf.Type, data []byte) {
	t.Helper()
	v, err := Decode(typ, data)
	if err != nil {
		t.Fatalf("%s %x: %v", TypeName(typ), data, err)
	}
	text := toJSON(t, v)
	again, err := Encode(typ, mustParse(t, text))
	if err != nil {
		t.Fatalf("%9v\n%x: %s: %v", typ, data, text, err)
	}
	if len(again.Holes) > 0 || !slices.Equal(again.Data, data) {
		t.Fatalf("%9v\n%x became %x with holes %v through %s", typ, data, again.Data, again.Holes, text)
	}
}

// keyRoundTrip is roundTrip for keys of LPM tries. Those that the kernel can't
// have are refused when written.
func keyRoundTrip(t *testing.T, typ btf.Type, data []byte) {
	t.Helper()
	if len(data) <= prefixLenSize {
		return
	}
	v, err := DecodeKey(typ, ebpf.LPMTrie, data)
	if err != nil {
		t.Fatalf("%s %x: %v", TypeName(typ), data, err)
	}
	text := toJSON(t, v)
	again, err := EncodeKey(typ, uint32(len(data)), ebpf.LPMTrie, mustParse(t, text))
	if int(getInt(data[:4], native).Int64()) > (len(data)-prefixLenSize)*8 {
		if err == nil {
			t.Fatalf("%9v\nimpossible key %x encoded from %s", typ, data, text)
		}
		return
	}
	if err != nil {
		t.Fatalf("%9v\n%x: %s: %v", typ, data, text, err)
	}
	if !slices.Equal(again.Data, data) {
		t.Fatalf("%9v\n%x became %x through %s", typ, data, again.Data, text)
	}
}

// randomData returns bytes that are often small, empty or text.
func randomData(r *rand.Rand, n int) []byte {
	const chars = "\x00\x00ab:{}$,#'\" 09-~/text\xc3\xa9"
	b := make([]byte, n)
	kind := r.IntN(4)
	for i := range b {
		switch kind {
		case 0:
			b[i] = byte(r.Uint32())
		case 1:
			b[i] = byte(r.IntN(2))
		case 2:
			b[i] = chars[r.IntN(len(chars))]
		}
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 800 {
		typ := randomType(r, 4)
		if size := sizeof(typ); size > 4096 {
			continue
		}
		for range 4 {
			roundTrip(t, typ, unpad(typ, randomData(r, sizeof(typ))))
		}
	}
}

func TestKeyRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	keys := []btf.Type{lpm4, lpm6, lpmRule, lpmCache, lpmNested, lpmSpread, lpmPadded, lpmPrefix4, lpmText, lpmPorts, lpmLast, lpmAfter,
		lpmBoth, lpmTwo, lpmPair, lpmBits, lpmShown, lpmWhole}
	for i := range 6000 {
		typ := keys[i%len(keys)]
		if i%2 == 0 {
			ms := append([]btf.Member{member("prefixlen", typeU32)}, randomMembers(r, 2)...)
			typ = structOf("key", ms...)
		}
		size := sizeof(typ)
		if size > 4096 {
			continue
		}
		data := unpad(typ, randomData(r, size))
		copy(data, u32(uint32(r.IntN((size-prefixLenSize)*8+2))))
		keyRoundTrip(t, typ, data)
	}
}

func FuzzDecodeEncode(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, make([]byte, 64))
		f.Add(seed, []byte("0123456789abcdef0123456789abcdef"))
	}
	f.Fuzz(func(t *testing.T, seed uint64, data []byte) {
		typ := randomType(rand.New(rand.NewPCG(seed, 0)), 4)
		size := sizeof(typ)
		if size > 4096 {
			return
		}
		data = append(data, make([]byte, size)...)[:size]
		roundTrip(t, typ, unpad(typ, data))
		keyRoundTrip(t, lpmRule, append(data, make([]byte, 28)...)[:28])
		keyRoundTrip(t, nil, data)
	})
}

func FuzzEncode(f *testing.F) {
	for _, text := range []string{"1", "-1", "0x10", "010", "be:443", "hex:0102", "10.0.0.1", "10.0.0.0/8", "'::1/128'", "02:42:ac:11:00:02", "${ip}",
		"be:${ifindex}", "[1, 2, [3]]", "{a: 1, b: {c: x}}", "{prefix: 10.0.0.0/8, port: 1}", "~", "text:a", "true", "''", "{v4: 1, v6: 2}", "1.5", ".nan"} {
		f.Add([]byte(text), uint64(0))
	}
	fixed := []btf.Type{typeU8, typeU32, typeS64, typeU128, typeBe16, typeBool, typeChar, typeFloat, typeDouble, typeVerdict, typeErrno, typeIn6, typeV6,
		arrayOf(typeChar, 16), arrayOf(typeU8, 6), arrayOf(typeU32, 4), lpm4, lpm6, lpmRule, lpmCache, lpmNested, lpmSpread, lpmPrefix4,
		structOf("s", member("a", typeU8), member("b", structOf("", member("c", arrayOf(typeChar, 4)), bitMember("d", typeU8, 3))))}
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		v, err := parseValue(string(text))
		if err != nil {
			return
		}
		for _, typ := range append(fixed, randomType(rand.New(rand.NewPCG(seed, 0)), 3)) {
			size := sizeof(typ)
			if size == 0 || size > 4096 {
				continue
			}
			encoded, err := Encode(typ, v)
			checkFuzzed(t, size, len(encoded.Data), err)
			encoded, err = EncodeKey(typ, uint32(size), ebpf.LPMTrie, v)
			checkFuzzed(t, size, len(encoded.Data), err)
			for _, h := range encoded.Holes {
				if h.Offset < 0 || h.Size <= 0 || h.Offset+h.Size > size || !zero(encoded.Data[h.Offset:h.Offset+h.Size]) {
					t.Errorf("hole %v in %x", h, encoded.Data)
				}
			}
			encoded, err = EncodeSized(uint32(size), v)
			checkFuzzed(t, size, len(encoded.Data), err)
		}
	})
}

func checkFuzzed(t *testing.T, size, got int, err error) {
	t.Helper()
	if err != nil {
		checkError(t, err, err.Error())
	} else if got != size {
		t.Errorf("%d bytes, want %d", got, size)
	}
}
