// SPDX-License-Identifier: Apache-2.0

package value

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

func TestDecodeSize(t *testing.T) {
	_, err := Decode(typeU32, make([]byte, 5))
	if !errors.Is(err, ErrSize) || err.Error() != "__u32 has 4 bytes, not 5: wrong size" {
		t.Errorf("got %v", err)
	}
	if _, err := DecodeKey(lpm4, ebpf.LPMTrie, make([]byte, 4)); !errors.Is(err, ErrSize) {
		t.Errorf("got %v", err)
	}
	if _, err := DecodeKey(typeU32, ebpf.Hash, nil); !errors.Is(err, ErrSize) {
		t.Errorf("got %v", err)
	}
}

func TestDecodeTypes(t *testing.T) {
	for _, c := range []struct {
		typ  btf.Type
		data []byte
		want any
	}{
		{typeU8, []byte{1}, int64(1)},
		{typeU64, u64(1<<64 - 1), uint64(1<<64 - 1)},
		{typeS64, u64(1<<64 - 1), int64(-1)},
		{typeU128, slices.Repeat([]byte{255}, 16), json.Number("340282366920938463463374607431768211455")},
		{typeFloat, make([]byte, 4), float32(0)},
		{typeDouble, make([]byte, 8), float64(0)},
	} {
		if got, err := Decode(c.typ, c.data); err != nil || got != c.want {
			t.Errorf("%s: %T %v, %v, want %T", TypeName(c.typ), got, got, err, c.want)
		}
	}
}

func TestDecodeSized(t *testing.T) {
	for _, c := range []struct {
		data []byte
		want string
	}{
		{[]byte{200}, "200"},
		{u16(70), "70"},
		{u32(1<<32 - 1), "4294967295"},
		{u64(1<<64 - 1), "18446744073709551615"},
		{[]byte{1, 2, 3}, `"hex:010203"`},
		{make([]byte, 16), `"hex:00000000000000000000000000000000"`},
		{nil, `"hex:"`},
	} {
		if got := toJSON(t, DecodeSized(c.data)); got != c.want {
			t.Errorf("%x: %s, want %s", c.data, got, c.want)
		}
		if got, err := DecodeKey(nil, ebpf.Hash, c.data); err != nil || toJSON(t, got) != c.want {
			t.Errorf("key %x: %v, %v, want %s", c.data, got, err, c.want)
		}
		if len(c.data) == 0 {
			continue
		}
		again, err := EncodeSized(uint32(len(c.data)), mustParse(t, c.want))
		if err != nil || !slices.Equal(again.Data, c.data) {
			t.Errorf("%s again: %x, %v", c.want, again.Data, err)
		}
	}
}

func TestDecodeUnions(t *testing.T) {
	ptr := &btf.Pointer{Target: typeInt}
	for _, c := range []struct {
		typ  btf.Type
		data []byte
		want string
	}{
		// The member that covers most, not the first one of the same size: padding hides bytes.
		{unionOf("u", member("s", structOf("", member("a", typeU8), member("b", typeU32))), member("n", typeU64)), u64(1 << 8), `{"n":256}`},
		{unionOf("u", member("p", ptr), member("n", typeU64)), u64(7), `{"n":7}`},
		{unionOf("u", member("p", ptr), member("n", typeU8)), cat([]byte{7}, make([]byte, 7)), `{"n":7}`},
		{unionOf("u", member("p", ptr)), make([]byte, 8), `"hex:0000000000000000"`},
		{unionOf("u", member("none", arrayOf(typeU8, 0)), member("p", ptr)), []byte{7: 1}, `{"p":"hex:0000000000000001"}`},
		{&btf.Union{Name: "opaque", Size: 2}, []byte{1, 2}, `"hex:0102"`},
		{structOf("s", member("", unionOf("", member("p", ptr))), member("a", typeU64)), cat(make([]byte, 8), u64(1)), `{"a":1}`},
		{structOf("s", member("u", unionOf("", member("", structOf("", member("p", ptr), member("b", typeBool)))))), make([]byte, 16), `{"u":{"b":false}}`},
		{structOf("empty", member("", arrayOf(typeU8, 2))), []byte{1, 2}, "{}"},
		{unionOf("u", member("", structOf("", bitMember("x", typeU8, 3))), bitMember("y", typeU8, 4)), []byte{0}, `{"y":0}`},
		{unionOf("u", member("a", arrayOf(unionOf("", member("c", typeU8), member("d", typeU16)), 2)), member("e", typeU32)), make([]byte, 4), `{"a":[{"d":0},{"d":0}]}`},
		{structOf("s", bitMember("wide", typeBool, 4), member("b", typeU8)), []byte{0x33, 0}, `{"wide":3,"b":0}`},
	} {
		checkDecode(t, c.typ, c.data, c.want)
	}
}

func TestStructJSON(t *testing.T) {
	s := Struct{{"b", 1}, {"a", Struct{{"ü\"", []any{true, "<x>"}}}}}
	if got, want := toJSON(t, s), `{"b":1,"a":{"ü\"":[true,"\u003cx\u003e"]}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := (Struct{{"f", func() {}}}).MarshalJSON(); err == nil {
		t.Error("a function became JSON")
	}
}
