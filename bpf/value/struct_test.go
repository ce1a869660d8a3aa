// SPDX-License-Identifier: Apache-2.0

package value

import (
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/specs/policy"
)

func TestArrays(t *testing.T) {
	inner := structOf("inner", member("a", typeU8), member("b", typeU16))
	runEncode(t, []encodeCase{
		{typ: arrayOf(typeU16, 3), yaml: "[1, 2, 3]", want: cat(u16(1), u16(2), u16(3)), back: "[1,2,3]"},
		{typ: arrayOf(typeU16, 3), yaml: "[1]", want: cat(u16(1), u16(0), u16(0)), back: "[1,0,0]"},
		{typ: arrayOf(typeU16, 3), yaml: "[]", want: make([]byte, 6)},
		{typ: arrayOf(typeU16, 3), yaml: "7", want: cat(u16(7), u16(0), u16(0))},
		{typ: arrayOf(typeU8, 3), yaml: "[1, 0x02, 3]", want: []byte{1, 2, 3}, back: `"hex:010203"`},
		{typ: arrayOf(typeU8, 3), yaml: "9", want: []byte{9, 0, 0}},
		{typ: arrayOf(typeS8, 2), yaml: "[-1, 1]", want: []byte{255, 1}, back: `"hex:ff01"`},
		{typ: arrayOf(arrayOf(typeU16, 2), 2), yaml: "[[1, 2], [3]]", want: cat(u16(1), u16(2), u16(3), u16(0)), back: "[[1,2],[3,0]]"},
		{typ: arrayOf(inner, 2), yaml: "[{a: 1}, {b: 2}]", want: cat([]byte{1, 0, 0, 0, 0, 0}, u16(2)), back: `[{"a":1,"b":0},{"a":0,"b":2}]`},
		{typ: arrayOf(inner, 2), yaml: "{b: 2}", want: cat([]byte{0, 0}, u16(2), []byte{0, 0, 0, 0})},
		{typ: arrayOf(arrayOf(inner, 1), 1), yaml: "{b: 2}", want: cat([]byte{0, 0}, u16(2))},
		{typ: arrayOf(typeVerdict, 2), yaml: "[LOG, 1]", want: cat(u32(0x80000000), u32(1)), back: `["LOG","VERDICT_PASS"]`},
		{typ: typedef("list_t", &btf.Const{Type: arrayOf(typedef("p", typeBe16), 2)}), yaml: "[80, 443]", want: []byte{0, 80, 1, 0xbb}, back: "[80,443]"},
	})
	runFail(t, []failCase{
		{arrayOf(typeU16, 2), "[1, 2, 3]", "p.yaml:1: v: 3 elements do not fit __u16[2]; leave out what does not fit"},
		{arrayOf(typeU16, 2), "[1, 70000]", "p.yaml:1: v[1]: 70000 does not fit __u16; write a number from 0 to 65535"},
		{arrayOf(typeU16, 2), "[1, null]", "p.yaml:1: v[1]: null is no value for __u16; write 0, or leave it out"},
		{arrayOf(typeU16, 2), "\n- 1\n- x", `p.yaml:3: v[1]: "x" is no number, which __u16 needs; write a number from 0 to 65535`},
		{arrayOf(typeU16, 2), "{a: 1}", "p.yaml:1: v: a mapping does not fit __u16[2]; write a list"},
		{arrayOf(typeU8, 2), "256", "p.yaml:1: v: 256 does not fit __u8; write a number from 0 to 255"},
		{arrayOf(typeChar, 4), "[[1]]", "p.yaml:1: v[0]: a list does not fit char; write one number"},
	})
}

func TestText(t *testing.T) {
	c := func(n uint32) btf.Type { return arrayOf(typeChar, n) }
	runEncode(t, []encodeCase{
		{typ: c(8), yaml: "eth0", want: []byte("eth0\x00\x00\x00\x00"), back: `"eth0"`},
		{typ: c(5), yaml: "eth0", want: []byte("eth0\x00"), back: `"eth0"`},
		{typ: c(4), yaml: `""`, want: make([]byte, 4), back: `""`},
		{typ: c(4), yaml: "12", want: []byte("12\x00\x00"), back: `"12"`},
		{typ: c(8), yaml: "true", want: []byte("true\x00\x00\x00\x00"), back: `"true"`},
		{typ: c(4), yaml: "é", want: []byte("é\x00\x00"), back: `"é"`},
		{typ: c(4), yaml: "[a, 98]", want: []byte("ab\x00\x00"), back: `"ab"`},
		{typ: c(16), yaml: "2001:db8::1", want: []byte("2001:db8::1\x00\x00\x00\x00\x00"), back: `"2001:db8::1"`},
		{typ: c(4), yaml: "'::'", want: []byte("::\x00\x00"), back: `"::"`},
		{typ: c(8), yaml: "text:a", want: []byte("a\x00\x00\x00\x00\x00\x00\x00"), back: `"a"`},
		{typ: c(10), yaml: "text:hex:01", want: []byte("hex:01\x00\x00\x00\x00"), back: `"text:hex:01"`},
		{typ: c(12), yaml: "text:text:x", want: []byte("text:x\x00\x00\x00\x00\x00\x00"), back: `"text:text:x"`},
		{typ: c(10), yaml: "'text:${ip}'", want: []byte("${ip}\x00\x00\x00\x00\x00"), back: `"text:${ip}"`},
		{typ: c(10), yaml: "be:5", want: []byte("be:5\x00\x00\x00\x00\x00\x00"), back: `"be:5"`},
		{typ: arrayOf(c(4), 2), yaml: "[ab, cd]", want: []byte("ab\x00\x00cd\x00\x00"), back: `["ab","cd"]`},
		{typ: arrayOf(c(4), 2), yaml: "ab", want: []byte("ab\x00\x00\x00\x00\x00\x00")},
		{typ: arrayOf(typeU8, 4), yaml: "text:eth0", want: []byte("eth0"), back: `"hex:65746830"`},
		{typ: arrayOf(typeU8, 6), yaml: "text:eth0", want: []byte("eth0\x00\x00")},
		{typ: arrayOf(typeU8, 16), yaml: "'text:::1'", want: append([]byte("::1"), make([]byte, 13)...)},
	})
	for data, want := range map[string]string{
		"abcd":      `"hex:61626364"`, // no NUL
		"a\x00b":    `"hex:610062"`,   // something after it
		"\xff\x00":  `"hex:ff00"`,
		"a\nb\x00":  `"hex:610a6200"`,
		"a b\x00":   `"a b"`,
		"\x1b[\x00": `"hex:1b5b00"`,
	} {
		checkDecode(t, c(uint32(len(data))), []byte(data), want)
	}
	runFail(t, []failCase{
		{c(4), "eth0", `p.yaml:1: v: "eth0" and a NUL (5 bytes) do not fit char[4]; write a shorter one, or hex:…`},
		{c(4), "text:eth0", `p.yaml:1: v: "eth0" and a NUL (5 bytes) do not fit char[4]; write a shorter one, or hex:…`},
		{arrayOf(typeU8, 4), "text:eth00", `p.yaml:1: v: "eth00" (5 bytes) do not fit __u8[4]; write a shorter one, or hex:…`},
		{c(4), `"a\0b"`, `p.yaml:1: v: "a\x00b" for char[4] has a NUL inside; write hex:…`},
		{c(32), "id-${ip}", `p.yaml:1: v: "id-${ip}" has a variable inside of text; write ${…} alone, or text:… if it is meant literally`},
		{c(4), "null", "p.yaml:1: v: null is no value for char[4]; write 0, or leave it out"},
		{arrayOf(typeU8, 8), "eth0", `p.yaml:1: v: "eth0" does not fit __u8[8]; write a list of numbers, hex:…, or text:eth0 for its characters`},
		{arrayOf(typeU8, 3), "eth0", `p.yaml:1: v: "eth0" does not fit __u8[3]; write a list of numbers, hex:…`},
	})
}

func TestStructs(t *testing.T) {
	rule := structOf("rule",
		member("proto", typeU8), member("port", typeBe16), member("limit", typeU64),
		member("peer", structOf("", member("addr", typeIn6), member("name", arrayOf(typeChar, 5)))))
	anonymous := structOf("anon",
		member("kind", typeU8),
		member("", unionOf("", member("v4", typeInAddr), member("v6", typeIn6),
			member("", structOf("", member("lo", typeU64), member("hi", typeU64))))),
		member("", structOf("", member("x", typeU16))))
	runEncode(t, []encodeCase{
		{typ: rule, yaml: "{limit: 5, proto: tcp, port: 443, peer: {addr: 10.0.0.1, name: ab}}",
			want: cat([]byte{6, 0, 1, 0xbb, 0, 0, 0, 0}, u64(5), []byte{10: 0xff, 0xff, 10, 0, 0, 1}, []byte("ab\x00\x00\x00\x00\x00\x00")),
			back: `{"proto":"tcp","port":443,"limit":5,"peer":{"addr":"10.0.0.1","name":"ab"}}`},
		{typ: rule, yaml: "{}", want: make([]byte, 40)},
		{typ: packedOf("packed", member("a", typeU8), member("b", typeU32)), yaml: "{a: 1, b: 2}", want: cat([]byte{1}, u32(2)), back: `{"a":1,"b":2}`},
		{typ: anonymous, yaml: "{kind: 1, hi: 2, lo: 3, x: 4}", want: cat([]byte{1, 0, 0, 0, 0, 0, 0, 0}, u64(3), u64(2), u16(4), make([]byte, 6))},
		{typ: anonymous, yaml: "{v4: 10.0.0.1}", want: append([]byte{8: 10, 11: 1}, make([]byte, 20)...)},
		{typ: anonymous, yaml: "{v6: '::1'}", want: append([]byte{23: 1}, make([]byte, 8)...), back: `{"kind":0,"v6":"::1","x":0}`},
		{typ: anonymous, yaml: "{x: 4}", want: cat(make([]byte, 24), u16(4), make([]byte, 6))},
	})
	runFail(t, []failCase{
		{rule, "{prot: 6}", `p.yaml:1: v.prot: "prot" is no field of struct rule; its fields: proto, port, limit, peer`},
		{rule, "{Proto: 6}", `p.yaml:1: v.Proto: "Proto" is no field of struct rule; its fields: proto, port, limit, peer`},
		{rule, "\npeer:\n  nome: x", `p.yaml:3: v.peer.nome: "nome" is no field of struct {…}; its fields: addr, name`},
		{rule, "{port: 70000}", `p.yaml:1: v.port: 70000 does not fit __be16; write a number from 0 to 65535`},
		{rule, "{port: null}", `p.yaml:1: v.port: null is no value for __be16; write 0, or leave it out`},
		{rule, "[1]", `p.yaml:1: v: a list does not fit struct rule; write a mapping of its fields: proto, port, limit, peer`},
		{rule, "5", `p.yaml:1: v: "5" does not fit struct rule; write a mapping of its fields: proto, port, limit, peer`},
		{rule, "10.0.0.1", `p.yaml:1: v: "10.0.0.1" does not fit struct rule; write a mapping of its fields: proto, port, limit, peer`},
		{anonymous, "{v4: 10.0.0.1, hi: 1}", `p.yaml:1: v.hi: v4 and hi of struct anon share their bytes; leave one of them out`},
		{anonymous, "{y: 1}", `p.yaml:1: v.y: "y" is no field of struct anon; its fields: kind, v4, v6, lo, hi, x`},
	})
	twice := &policy.Value{Kind: policy.MapValue,
		Keys:  []*policy.Value{{Text: "x"}, {Text: "x"}},
		Items: []*policy.Value{{Text: "1"}, {Text: "2"}}}
	_, err := Encode(anonymous, twice)
	checkError(t, err, `value: field "x" stands twice; write it once`)
}

func TestUnions(t *testing.T) {
	u := unionOf("u", member("b", typeU8), member("n", typeU32), member("p", &btf.Pointer{Target: typeInt}), member("h", arrayOf(typeU16, 2)))
	nested := unionOf("n",
		member("", structOf("", member("a", typeU16), member("b", unionOf("", member("c", typeU8), member("d", typeU16))))),
		member("", unionOf("", member("e", typeU32), member("f", typeU8))))
	runEncode(t, []encodeCase{
		{typ: u, yaml: "{b: 1}", want: []byte{1, 0, 0, 0, 0, 0, 0, 0}},
		{typ: u, yaml: "{n: 258}", want: append(u32(258), 0, 0, 0, 0), back: `{"n":258}`},
		{typ: nested, yaml: "{a: 1, b: {d: 2}}", want: cat(u16(1), u16(2)), back: `{"a":1,"b":{"d":2}}`},
		{typ: nested, yaml: "{f: 9}", want: []byte{9, 0, 0, 0}},
		{typ: unionOf("p", member("p", &btf.Pointer{Target: typeInt})), yaml: "hex:0000000000000001", want: []byte{7: 1}, back: `{"p":"hex:0000000000000001"}`},
	})
	runFail(t, []failCase{
		{u, "{}", "p.yaml:1: v: union u needs exactly one member; write one of b, n, p, h"},
		{u, "{b: 1, n: 2}", "p.yaml:1: v.n: b and n of union u share their bytes; leave one of them out"},
		{u, "{m: 1}", `p.yaml:1: v.m: "m" is no field of union u; its fields: b, n, p, h`},
		{u, "1", `p.yaml:1: v: "1" does not fit union u; write a mapping of its fields: b, n, p, h`},
		{u, "{p: 0}", "p.yaml:1: v.p: int *: a pointer is not supported as a value; leave it out"},
		{nested, "{a: 1, e: 2}", "p.yaml:1: v.e: a and e of union n share their bytes; leave one of them out"},
		{nested, "{e: 1, f: 2}", "p.yaml:1: v.f: e and f of union n share their bytes; leave one of them out"},
		{nested, "{b: {c: 1, d: 2}}", "p.yaml:1: v.b.d: c and d of union {…} share their bytes; leave one of them out"},
	})
}

func TestBitfields(t *testing.T) {
	s := structOf("bits",
		bitMember("low", typeU8, 3), bitMember("flag", typeBool, 1), bitMember("neg", typeS8, 4),
		bitMember("wide", typeU32, 20), bitMember("verdict", typeErrno, 2), member("end", typeU8))
	want := []byte{0x05 | 0x08 | 0xe0, 0xa5, 0x5a, 0x08 | 0x30, 7, 0, 0, 0}
	if native.bigEndian() {
		want = []byte{0xa0 | 0x10 | 0x0e, 0x85, 0xaa, 0x50 | 0x0c, 7, 0, 0, 0}
	}
	text := `{"low":5,"flag":true,"neg":-2,"wide":547493,"verdict":"E_PERM","end":7}`
	runEncode(t, []encodeCase{
		{typ: s, yaml: text, want: want, back: text},
		// What clang before version 15 makes of an enum with E_PERM = -1.
		{typ: structOf("old", bitMember("e", &btf.Enum{Name: "e", Size: 4, Values: []btf.EnumValue{{Name: "SEVEN", Value: 7}, {Name: "E_PERM", Value: 1<<32 - 1}}}, 8)),
			yaml: "{e: E_PERM}", want: append([]byte{255}, 0, 0, 0), back: `{"e":"E_PERM"}`},
		{typ: s, yaml: "{flag: 1}", want: func() []byte {
			b := make([]byte, 8)
			b[0] = 0x08
			if native.bigEndian() {
				b[0] = 0x10
			}
			return b
		}()},
	})
	runFail(t, []failCase{
		{s, "{low: 8}", "p.yaml:1: v.low: 8 does not fit __u8:3; write a number from 0 to 7"},
		{s, "{neg: 8}", "p.yaml:1: v.neg: 8 does not fit __s8:4; write a number from -8 to 7"},
		{s, "{neg: -9}", "p.yaml:1: v.neg: -9 does not fit __s8:4; write a number from -8 to 7"},
		{s, "{flag: 2}", "p.yaml:1: v.flag: 2 does not fit _Bool:1; write a number from 0 to 1"},
		{s, "{verdict: 2}", "p.yaml:1: v.verdict: 2 does not fit enum errno:2; write a number from -2 to 1"},
		{s, "{low: [1]}", "p.yaml:1: v.low: a list does not fit __u8:3; write one number"},
		{s, "{low: null}", "p.yaml:1: v.low: null is no value for __u8:3; write 0, or leave it out"},
		{s, "{low: 'hex:01'}", `p.yaml:1: v.low: __u8:3 has no bytes of its own, so "hex:01" does not fit; write a number`},
		{s, "{low: 'be:1'}", `p.yaml:1: v.low: __u8:3 has no bytes of its own, so "be:1" does not fit; write a number`},
		{s, "{wide: '${ifindex}'}", "p.yaml:1: v.wide: ${ifindex} can't be written to __u32:20: only whole bytes are filled at attach time"},
		{s, "{wide: x}", `p.yaml:1: v.wide: "x" is no number, which __u32:20 needs; write a number from 0 to 1048575`},
	})
}

func TestUnsupportedMembers(t *testing.T) {
	ptr := &btf.Pointer{Target: structOf("task")}
	s := structOf("s", member("p", ptr), member("n", typeU32), member("spare", typeU32), member("tail", arrayOf(typeU8, 0)))
	runEncode(t, []encodeCase{
		{typ: s, yaml: "{n: 1}", want: cat(make([]byte, 8), u32(1), u32(0)), back: `{"n":1,"spare":0}`},
		{typ: s, yaml: "{p: hex:0100000000000000, n: 1}", want: cat([]byte{1, 0, 0, 0, 0, 0, 0, 0}, u32(1), u32(0)), back: `{"p":"hex:0100000000000000","n":1,"spare":0}`},
	})
	runFail(t, []failCase{
		{s, "{p: 0}", "p.yaml:1: v.p: struct task *: a pointer is not supported as a value; leave it out"},
		{s, "{tail: [1]}", "p.yaml:1: v.tail: __u8[0] tail has no size: not supported as a value; leave it out"},
		{ptr, "text", "p.yaml:1: v: struct task *: a pointer is not supported as a value; leave it out"},
	})
}
