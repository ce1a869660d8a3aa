// SPDX-License-Identifier: Apache-2.0

package value

import (
	"math/big"
	"slices"
	"testing"

	"github.com/cilium/ebpf/btf"
)

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

func TestIntegers(t *testing.T) {
	i3 := &btf.Int{Name: "i3", Size: 3, Encoding: btf.Signed}
	runEncode(t, []encodeCase{
		{typ: typeU8, yaml: "255", want: []byte{255}, back: "255"},
		{typ: typeS8, yaml: "-128", want: []byte{128}, back: "-128"},
		{typ: typeU16, yaml: "443", want: u16(443), back: "443"},
		{typ: typeS16, yaml: "-2", want: u16(0xfffe), back: "-2"},
		{typ: typeU32, yaml: "0xffffffff", want: u32(0xffffffff), back: "4294967295"},
		{typ: typeU32, yaml: "0o17", want: u32(15), back: "15"},
		{typ: typeU32, yaml: "0b101", want: u32(5), back: "5"},
		{typ: typeU32, yaml: "1_000_000", want: u32(1000000), back: "1000000"},
		{typ: typeU32, yaml: "+7", want: u32(7), back: "7"},
		{typ: typeU32, yaml: "0", want: u32(0), back: "0"},
		{typ: typeU32, yaml: `"80"`, want: u32(80), back: "80"},
		{typ: typeInt, yaml: "-0x10", want: u32(0xfffffff0), back: "-16"},
		{typ: typeU64, yaml: "18446744073709551615", want: u64(1<<64 - 1), back: "18446744073709551615"},
		{typ: typeS64, yaml: "-9223372036854775808", want: u64(1 << 63), back: "-9223372036854775808"},
		{typ: typeU128, yaml: "340282366920938463463374607431768211455", want: slices.Repeat([]byte{255}, 16), back: "340282366920938463463374607431768211455"},
		{typ: typeS128, yaml: "-1", want: slices.Repeat([]byte{255}, 16), back: "-1"},
		{typ: &btf.Const{Type: &btf.Volatile{Type: &btf.TypeTag{Value: "x", Type: typedef("port_t", typeU16)}}}, yaml: "1", want: u16(1), back: "1"},
		{typ: structOf("s", member("a", i3)), yaml: "{a: -2}", want: func() []byte {
			if native.bigEndian() {
				return []byte{255, 255, 254}
			}
			return []byte{254, 255, 255}
		}(), back: `{"a":-2}`},
		{typ: &btf.Const{Type: &btf.Int{Name: "x", Size: 1, Encoding: btf.Signed | btf.Char}}, yaml: "-1", want: []byte{255}, back: "-1"},
	})
	runFail(t, []failCase{
		{typeU8, "256", "p.yaml:1: v: 256 does not fit __u8; write a number from 0 to 255"},
		{typeU8, "-1", "p.yaml:1: v: -1 does not fit __u8; write a number from 0 to 255"},
		{typeS8, "128", "p.yaml:1: v: 128 does not fit __s8; write a number from -128 to 127"},
		{typeS8, "-129", "p.yaml:1: v: -129 does not fit __s8; write a number from -128 to 127"},
		{typeU16, "70000", "p.yaml:1: v: 70000 does not fit __u16; write a number from 0 to 65535"},
		{typeU64, "18446744073709551616", "p.yaml:1: v: 18446744073709551616 does not fit __u64; write a number from 0 to 18446744073709551615"},
		{typeS64, "9223372036854775808", "p.yaml:1: v: 9223372036854775808 does not fit __s64; write a number from -9223372036854775808 to 9223372036854775807"},
		{typeU32, "010", `p.yaml:1: v: "010" for __u32: a leading zero could mean octal; leave out the zero, or write 0o… for octal`},
		{typeU32, "'-089'", `p.yaml:1: v: "-089" for __u32: a leading zero could mean octal; leave out the zero, or write 0o… for octal`},
		{typeU32, "00", `p.yaml:1: v: "00" for __u32: a leading zero could mean octal; leave out the zero, or write 0o… for octal`},
		{typeU16, "https", `p.yaml:1: v: "https" is no number, which __u16 needs; write a number from 0 to 65535`},
		{typeU32, "ten", `p.yaml:1: v: "ten" is no number, which __u32 needs; write a number from 0 to 4294967295, or an IP address`},
		{typeU32, "1.5", `p.yaml:1: v: "1.5" is no number, which __u32 needs; write a number from 0 to 4294967295, or an IP address`},
		{typeU16, "1e3", `p.yaml:1: v: "1e3" is no number, which __u16 needs; write a number from 0 to 65535`},
		{typeU16, "++1", `p.yaml:1: v: "++1" is no number, which __u16 needs; write a number from 0 to 65535`},
		{typeU16, "0x", `p.yaml:1: v: "0x" is no number, which __u16 needs; write a number from 0 to 65535`},
		{typeU16, `""`, `p.yaml:1: v: "" is no number, which __u16 needs; write a number from 0 to 65535`},
		{typeU8, "true", `p.yaml:1: v: "true" is no number, which __u8 needs; write 1`},
		{typeU8, "false", `p.yaml:1: v: "false" is no number, which __u8 needs; write 0`},
		{typeU8, "tcp", `p.yaml:1: v: "tcp" is no number, which __u8 needs; write a number from 0 to 255`},
		{typeU8, "null", "p.yaml:1: v: null is no value for __u8; write 0, or leave it out"},
		{typeU8, "~", "p.yaml:1: v: null is no value for __u8; write 0, or leave it out"},
		{typeU8, "[1]", "p.yaml:1: v: a list does not fit __u8; write one number"},
		{typeU8, "{a: 1}", "p.yaml:1: v: a mapping does not fit __u8; write one number"},
	})
}

func TestHugeNumbers(t *testing.T) {
	// Reading a number of many digits takes quadratic time.
	long := "0x" + string(slices.Repeat([]byte("f"), 1<<20))
	_, err := Encode(typeU64, mustParse(t, long))
	checkError(t, err, `p.yaml:1: v: "0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"… is no number, which __u64 needs; write a number from 0 to 18446744073709551615`)
	_, err = Encode(typeU64, mustParse(t, long[:100]))
	checkError(t, err, `p.yaml:1: v: "0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"… does not fit __u64; write a number from 0 to 18446744073709551615`)
}

func TestNetworkOrder(t *testing.T) {
	s := structOf("s",
		member("port", typedef("port_t", &btf.Const{Type: typeBe16})), member("port_be", typeU16), member("be_port", typeU16),
		member("x_be32", typeU32), member("bed", typeU16), member("be", typeU16), member("ports_be", arrayOf(typeU16, 2)))
	runEncode(t, []encodeCase{
		{typ: typeBe16, yaml: "443", want: []byte{1, 0xbb}, back: "443"},
		{typ: typeBe16, yaml: "be:443", want: []byte{1, 0xbb}},
		{typ: typeBe64, yaml: "1", want: []byte{7: 1}, back: "1"},
		{typ: typeBe32, yaml: "1", want: []byte{0, 0, 0, 1}, back: `"0.0.0.1"`},
		{typ: typedef("in_port_t", typeU16), yaml: "80", want: []byte{0, 80}, back: "80"},
		{typ: typeU16, yaml: "be:443", want: []byte{1, 0xbb}},
		{typ: typeU16, yaml: "be:0x1bb", want: []byte{1, 0xbb}},
		{typ: typeInt, yaml: "be:-2", want: []byte{255, 255, 255, 254}},
		{typ: typeU8, yaml: "be:5", want: []byte{5}},
		{typ: typeU128, yaml: "be:1", want: []byte{15: 1}},
		{typ: typeErrno, yaml: "be:E_PERM", want: []byte{255, 255, 255, 255}},
		{typ: typeVerdict, yaml: "be:1", want: []byte{0, 0, 0, 1}},
		{typ: s, yaml: "{port: 443, port_be: 443, be_port: 443, x_be32: 443, bed: 443, be: 443, ports_be: [1, 2]}",
			want: cat([]byte{1, 0xbb, 1, 0xbb, 1, 0xbb, 0, 0, 0, 0, 1, 0xbb}, u16(443), u16(443), []byte{0, 1, 0, 2}),
			back: `{"port":443,"port_be":443,"be_port":443,"x_be32":443,"bed":443,"be":443,"ports_be":[1,2]}`},
	})
	runFail(t, []failCase{
		{typeBe16, "65536", "p.yaml:1: v: 65536 does not fit __be16; write a number from 0 to 65535"},
		{typeU16, "be:65536", "p.yaml:1: v: 65536 does not fit __u16; write a number from 0 to 65535"},
		{typeU16, "be:http", `p.yaml:1: v: "http" is no number, which __u16 needs; write a number from 0 to 65535`},
		{typeU32, "be:10.0.0.1", `p.yaml:1: v: an address is always in network order, so "be:10.0.0.1" has one prefix too many; write 10.0.0.1`},
		{typeFloat, "be:1", `p.yaml:1: v: "be:1" is no number, which float needs; write a number, .inf or .nan`},
	})
}

func TestProtocols(t *testing.T) {
	s := structOf("s", member("proto", typeU8), member("l4proto", typeU16), member("nexthdr", typeInt), member("protos", typeU8),
		member("protocol", typeBe16), member("ip_proto", typeVerdict), member("next_header", arrayOf(typeU8, 3)), bitMember("protocol_", typeU32, 9))
	size := int(s.Size)
	runEncode(t, []encodeCase{
		{typ: structOf("s", member("proto", typeChar)), yaml: `{proto: "tcp"}`, want: []byte{6}, back: `{"proto":"tcp"}`},
		{typ: s, yaml: "{proto: tcp, l4proto: UDP, nexthdr: icmpv6, ip_proto: sctp, next_header: icmp, protocol_: sctp}",
			want: cat([]byte{6, 0}, u16(17), u32(58), []byte{0, 0, 0, 0}, u32(132), []byte{1, 0, 0, 0}, u32(132))[:size],
			back: `{"proto":"tcp","l4proto":"udp","nexthdr":"icmpv6","protos":0,"protocol":0,"ip_proto":132,"next_header":"hex:010000","protocol_":"sctp"}`},
		{typ: s, yaml: "{proto: 89}", want: append([]byte{89}, make([]byte, size-1)...),
			back: `{"proto":89,"l4proto":0,"nexthdr":0,"protos":0,"protocol":0,"ip_proto":"VERDICT_DROP","next_header":"hex:000000","protocol_":0}`},
	})
	runFail(t, []failCase{
		{s, "{proto: htpp}", `p.yaml:1: v.proto: "htpp" is no number, which __u8 needs; write a number from 0 to 255, or one of tcp, udp, icmp, icmpv6, sctp`},
		// In network order it is an ethertype.
		{s, "{protocol: tcp}", `p.yaml:1: v.protocol: "tcp" is no number, which __be16 needs; write a number from 0 to 65535`},
		{s, "{protos: tcp}", `p.yaml:1: v.protos: "tcp" is no number, which __u8 needs; write a number from 0 to 255`},
		{structOf("s", member("proto", typeS8)), "{proto: sctp}", `p.yaml:1: v.proto: sctp does not fit __s8; write a number from -128 to 127`},
	})
}

func TestBool(t *testing.T) {
	runEncode(t, []encodeCase{
		{typ: typeBool, yaml: "true", want: []byte{1}, back: "true"},
		{typ: typeBool, yaml: `"false"`, want: []byte{0}, back: "false"},
		{typ: typeBool, yaml: "1", want: []byte{1}},
		{typ: typeBool, yaml: "0", want: []byte{0}},
		{typ: &btf.Int{Name: "bool32", Size: 4, Encoding: btf.Bool}, yaml: "true", want: u32(1), back: "true"},
		{typ: arrayOf(typeBool, 3), yaml: "[true, false, true]", want: []byte{1, 0, 1}, back: "[true,false,true]"},
		{typ: arrayOf(typeBool, 3), yaml: "true", want: []byte{1, 0, 0}},
	})
	runFail(t, []failCase{
		{typeBool, "2", "p.yaml:1: v: 2 does not fit _Bool; write a number from 0 to 1"},
		{typeBool, "yes", `p.yaml:1: v: "yes" is no _Bool; write true or false`},
		{typeBool, "True", `p.yaml:1: v: "True" is no _Bool; write true or false`},
		{&btf.Int{Name: "bool32", Size: 4, Encoding: btf.Bool}, "10.0.0.1", `p.yaml:1: v: "10.0.0.1" is no bool32; write true or false`},
	})
}

func TestChar(t *testing.T) {
	runEncode(t, []encodeCase{
		{typ: typeChar, yaml: "a", want: []byte{'a'}, back: "97"},
		{typ: typeChar, yaml: "5", want: []byte{5}, back: "5"},
		{typ: typeChar, yaml: "'5'", want: []byte{'5'}},
		{typ: typeChar, yaml: "-1", want: []byte{255}, back: "-1"},
		{typ: typeChar, yaml: "255", want: []byte{255}},
		{typ: &btf.Int{Name: "char", Size: 1}, yaml: "255", want: []byte{255}, back: "255"},
		{typ: &btf.Int{Name: "c", Size: 1, Encoding: btf.Char}, yaml: "x", want: []byte{'x'}, back: "120"},
	})
	runFail(t, []failCase{
		{typeChar, "'12'", `p.yaml:1: v: "12" does not fit char; write one ASCII character in quotes, or a number without them`},
		{typeChar, "ab", `p.yaml:1: v: "ab" is no number, which char needs; write a number from -128 to 255`},
		{typeChar, "'é'", `p.yaml:1: v: "é" does not fit char; write one ASCII character in quotes, or a number without them`},
		{typeChar, "256", "p.yaml:1: v: 256 does not fit char; write a number from -128 to 255"},
		{typeU8, "'a'", `p.yaml:1: v: "a" is no number, which __u8 needs; write a number from 0 to 255`},
	})
}

func TestEnum(t *testing.T) {
	runEncode(t, []encodeCase{
		{typ: typeVerdict, yaml: "VERDICT_PASS", want: u32(1), back: `"VERDICT_PASS"`},
		{typ: typeVerdict, yaml: "verdict_pass", want: u32(2), back: `"verdict_pass"`},
		{typ: typeVerdict, yaml: "log", want: u32(0x80000000), back: `"LOG"`},
		{typ: typeVerdict, yaml: "Verdict_Drop", want: u32(0), back: `"VERDICT_DROP"`},
		{typ: typeVerdict, yaml: "7", want: u32(7), back: "7"},
		{typ: typeErrno, yaml: "E_PERM", want: u32(0xffffffff), back: `"E_PERM"`},
		{typ: typeVerdict, yaml: "-1", want: u32(1<<32 - 1), back: "4294967295"},
		{typ: typeErrno, yaml: "-5", want: u32(0xfffffffb), back: "-5"},
		{typ: typeMask, yaml: "ALL", want: u64(1<<64 - 1), back: `"ALL"`},
		{typ: typeMask, yaml: "0x8000000000000000", want: u64(1 << 63), back: "9223372036854775808"},
		{typ: &btf.Enum{Name: "small", Size: 1, Values: []btf.EnumValue{{Name: "A", Value: 255}}}, yaml: "A", want: []byte{255}, back: `"A"`},
	})
	runFail(t, []failCase{
		{typeVerdict, "Verdict_Pass", `p.yaml:1: v: "Verdict_Pass" is no enum verdict; write one of VERDICT_DROP, VERDICT_PASS, verdict_pass, LOG`},
		{typeVerdict, "0x100000000", "p.yaml:1: v: 0x100000000 does not fit enum verdict; write a number from -2147483648 to 4294967295"},
		{typeErrno, "0x80000000", "p.yaml:1: v: 0x80000000 does not fit enum errno; write a number from -2147483648 to 2147483647"},
		{typeVerdict, "[1]", "p.yaml:1: v: a list does not fit enum verdict; write one name or number"},
		{&btf.Enum{Name: "small", Size: 1, Values: []btf.EnumValue{{Name: "A", Value: 256}}}, "A", "p.yaml:1: v: A, which is 256, does not fit enum small; write a number from -128 to 255"},
		{&btf.Enum{Name: "none", Size: 1}, "A", `p.yaml:1: v: "A" is no enum none; write one of the numbers from -128 to 255`},
		{&btf.Enum{Name: "many", Size: 1, Values: slices.Repeat([]btf.EnumValue{{Name: "X"}}, 22)}, "A",
			`p.yaml:1: v: "A" is no enum many; write one of X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X, X and 2 more`},
	})
}

func TestFloat(t *testing.T) {
	runEncode(t, []encodeCase{
		{typ: typeDouble, yaml: "1.5", want: u64(0x3ff8000000000000), back: "1.5"},
		{typ: typeFloat, yaml: "0.1", want: u32(0x3dcccccd), back: "0.1"},
		{typ: typeFloat, yaml: "-0", want: u32(0x80000000), back: "-0"},
		{typ: typeFloat, yaml: ".inf", want: u32(0x7f800000), back: `".inf"`},
		{typ: typeDouble, yaml: "-.inf", want: u64(0xfff0000000000000), back: `"-.inf"`},
		{typ: typeFloat, yaml: ".nan", want: u32(0x7fc00000), back: toJSON(t, formatHex(u32(0x7fc00000)))},
		{typ: &btf.Float{Name: "long double", Size: 16}, yaml: "hex:000102030405060708090a0b0c0d0e0f", want: []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
			back: `"hex:000102030405060708090a0b0c0d0e0f"`},
	})
	runFail(t, []failCase{
		{typeFloat, "1e39", "p.yaml:1: v: 1e39 does not fit float; write a smaller number"},
		{typeDouble, "1e400", "p.yaml:1: v: 1e400 does not fit double; write a smaller number"},
		{typeDouble, "half", `p.yaml:1: v: "half" is no number, which double needs; write a number, .inf or .nan`},
		{typeDouble, "[1]", "p.yaml:1: v: a list does not fit double; write one number"},
		{&btf.Float{Name: "long double", Size: 16}, "1", "p.yaml:1: v: long double with 16 bytes is not supported as a value; write hex:…"},
	})
}

func TestBits(t *testing.T) {
	b := make([]byte, 3)
	n, _ := parseNumber("0x5a5")
	putBits(b, 5, 11, n)
	want := []byte{0xa0, 0xb4, 0}
	if native.bigEndian() {
		want = []byte{0x05, 0xa5, 0}
	}
	if !slices.Equal(b, want) {
		t.Errorf("got %x, want %x", b, want)
	}
	if got := getBits(b, 5, 11); got.Cmp(n) != 0 {
		t.Errorf("got %x", got)
	}
	putBits(b, 5, 11, new(big.Int))
	if !zero(b) {
		t.Errorf("not cleared: %x", b)
	}
}
