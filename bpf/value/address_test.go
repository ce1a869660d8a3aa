// SPDX-License-Identifier: Apache-2.0

package value

import (
	"testing"

	"github.com/cilium/ebpf/btf"
)

// typeV6 is the union that Cilium uses for IPv6 addresses.
var typeV6 = unionOf("v6addr",
	member("", structOf("", member("p1", typeU32), member("p2", typeU32), member("p3", typeU32), member("p4", typeU32))),
	member("", structOf("", member("d1", typeU64), member("d2", typeU64))),
	member("addr", arrayOf(typeU8, 16)))

func TestAddresses(t *testing.T) {
	v4, v6 := []byte{10, 1, 2, 3}, []byte{0x20, 1, 0xd, 0xb8, 15: 1}
	mapped := []byte{10: 0xff, 0xff, 10, 1, 2, 3}
	mac := []byte{2, 0x42, 0xac, 0x11, 0, 2}
	runEncode(t, []encodeCase{
		{typ: typeU32, yaml: "10.1.2.3", want: v4},
		{typ: typeInt, yaml: "10.1.2.3", want: v4},
		{typ: typeBe32, yaml: `"10.1.2.3"`, want: v4, back: `"10.1.2.3"`},
		{typ: typedef("in_addr_t", typeU32), yaml: "10.1.2.3", want: v4, back: `"10.1.2.3"`},
		{typ: typeInAddr, yaml: "10.1.2.3", want: v4, back: `"10.1.2.3"`},
		{typ: typeInAddr, yaml: "{s_addr: 10.1.2.3}", want: v4},
		{typ: arrayOf(typeU8, 4), yaml: "10.1.2.3", want: v4, back: `"hex:0a010203"`},
		{typ: arrayOf(typeChar, 4), yaml: "10.1.2.3", want: v4},
		{typ: arrayOf(typeU16, 2), yaml: "10.1.2.3", want: v4},
		{typ: arrayOf(typeBe32, 1), yaml: "10.1.2.3", want: v4, back: `"10.1.2.3"`},
		{typ: typeIn6, yaml: "2001:db8::1", want: v6, back: `"2001:db8::1"`},
		{typ: typeIn6, yaml: "10.1.2.3", want: mapped, back: `"10.1.2.3"`},
		{typ: typeV6, yaml: "2001:db8::1", want: v6, back: `"2001:db8::1"`},
		{typ: typeU128, yaml: "2001:db8::1", want: v6},
		{typ: arrayOf(typeU32, 4), yaml: "2001:db8::1", want: v6},
		{typ: arrayOf(typeU32, 4), yaml: "10.1.2.3", want: mapped},
		{typ: arrayOf(typeU32, 4), yaml: "[10.1.2.3]", want: append([]byte{10, 1, 2, 3}, make([]byte, 12)...)},
		{typ: arrayOf(typeU32, 5), yaml: "10.1.2.3", want: append([]byte{10, 1, 2, 3}, make([]byte, 16)...)},
		{typ: arrayOf(typeInAddr, 4), yaml: "10.1.2.3", want: append([]byte{10, 1, 2, 3}, make([]byte, 12)...)},
		{typ: arrayOf(arrayOf(typeU8, 4), 4), yaml: "10.1.2.3", want: append([]byte{10, 1, 2, 3}, make([]byte, 12)...)},
		{typ: arrayOf(typeU64, 2), yaml: "2001:db8::1", want: v6},
		{typ: arrayOf(typeU8, 16), yaml: "'::ffff:10.1.2.3'", want: mapped},
		{typ: structOf("pair", member("high", typeU64), member("low", typeU64)), yaml: "2001:db8::1", want: v6},
		{typ: arrayOf(typeU8, 6), yaml: "02:42:ac:11:00:02", want: mac, back: `"02:42:ac:11:00:02"`},
		{typ: arrayOf(typeUchar, 6), yaml: "02-42-AC-11-00-02", want: mac},
		{typ: unionOf("u", member("f", typeFloat), member("n", typeU32)), yaml: "10.1.2.3", want: v4},
		{typ: typeU64, yaml: "206966894640", want: u64(206966894640), back: "206966894640"}, // no MAC address
		{typ: arrayOf(typeU16, 3), yaml: "0242.ac11.0002", want: mac},
		{typ: arrayOf(typeChar, 6), yaml: "02:42:ac:11:00:02", want: mac},
		{typ: structOf("eth", member("a", arrayOf(typeU8, 6))), yaml: "02:42:ac:11:00:02", want: mac, back: `"02:42:ac:11:00:02"`},
	})
	runFail(t, []failCase{
		{typeU32, "2001:db8::1", `p.yaml:1: v: "2001:db8::1" is an IPv6 address, which does not fit __u32 (4 bytes); it needs 16 bytes`},
		{typeU32, "'::ffff:10.0.0.1'", `p.yaml:1: v: "::ffff:10.0.0.1" is an IPv6 address, which does not fit __u32 (4 bytes); it needs 16 bytes`},
		{typeU32, "10.0.0.0/8", `p.yaml:1: v: "10.0.0.0/8" is a prefix, which does not fit __u32 (4 bytes); prefixes are for keys of LPM tries; write an address`},
		{typeU64, "10.0.0.1", `p.yaml:1: v: "10.0.0.1" is an IPv4 address, which does not fit __u64 (8 bytes); it needs 4 or 16 bytes`},
		{typeU64, "02:42:ac:11:00:02", `p.yaml:1: v: "02:42:ac:11:00:02" is a MAC address, which does not fit __u64 (8 bytes); it needs 6 bytes`},
		{typeIn6, "fe80::1%eth0", `p.yaml:1: v: "fe80::1%eth0" is an address with a zone, which does not fit struct in6_addr (16 bytes); leave out the zone`},
		{typeIn6, "2001:db8::g", `p.yaml:1: v: "2001:db8::g" does not fit struct in6_addr; write a mapping of its fields: in6_u`},
		{arrayOf(typeU8, 4), "10.0.0", `p.yaml:1: v: "10.0.0" does not fit __u8[4]; write a list of numbers, hex:…, an IP address`},
		{arrayOf(typeU8, 16), "fe80::1g", `p.yaml:1: v: "fe80::1g" does not fit __u8[16]; write a list of numbers, hex:…, an IP address, or text:fe80::1g for its characters`},
		{arrayOf(typeU8, 6), "02:42:ac:11:00:0g", `p.yaml:1: v: "02:42:ac:11:00:0g" does not fit __u8[6]; write a list of numbers, hex:…, a MAC address`},
		{arrayOf(typeU8, 6), "02-42-ac-11-00-02-00-01", `p.yaml:1: v: "02-42-ac-11-00-02-00-01" does not fit __u8[6]; write a list of numbers, hex:…, a MAC address`},
		{unionOf("u", member("a", typeU8), member("f", typeFloat)), "10.0.0.1", `p.yaml:1: v: "10.0.0.1" does not fit union u; write a mapping of its fields: a, f`},
		{structOf("mixed", member("f", typeFloat), member("a", arrayOf(typeU32, 3))), "::1", `p.yaml:1: v: "::1" does not fit struct mixed; write a mapping of its fields: f, a`},
		{structOf("bit", bitMember("a", typeU32, 32)), "10.0.0.1", `p.yaml:1: v: "10.0.0.1" does not fit struct bit; write a mapping of its fields: a`},
		{&btf.Struct{Name: "opaque", Size: 4}, "10.0.0.1", `p.yaml:1: v: "10.0.0.1" does not fit struct opaque; write hex:…`},
		{arrayOf(typeU8, 6), "206966894640", `p.yaml:1: v: 206966894640 does not fit __u8; write a number from 0 to 255`},
		{arrayOf(typeU8, 6), "10.0.0.1", `p.yaml:1: v: "10.0.0.1" is an IPv4 address, which does not fit __u8[6] (6 bytes); it needs 4 or 16 bytes`},
		// Neither fields of several sizes nor others than integers are an address.
		{structOf("s", member("a", typeU16), member("b", arrayOf(typeU8, 2))), "10.0.0.1", `p.yaml:1: v: "10.0.0.1" does not fit struct s; write a mapping of its fields: a, b`},
		{structOf("s", member("a", arrayOf(typeBool, 4))), "10.0.0.1", `p.yaml:1: v: "10.0.0.1" does not fit struct s; write a mapping of its fields: a`},
		{&btf.Struct{Name: "padded", Size: 4, Members: []btf.Member{{Name: "a", Type: typeU16}}}, "10.0.0.1", `p.yaml:1: v: "10.0.0.1" does not fit struct padded; write a mapping of its fields: a`},
		{structOf("bits", bitMember("a", typeU32, 16), bitMember("b", typeU32, 16)), "10.0.0.1", `p.yaml:1: v: "10.0.0.1" does not fit struct bits; write a mapping of its fields: a, b`},
	})
}

func TestAddressNames(t *testing.T) {
	for _, name := range []string{"ip", "saddr", "daddr", "remote_ip4", "user_ip6", "ip6", "ipv4", "src_ip", "ip_src", "ip4_dst",
		"addr", "ipaddr", "in6_addr", "s_addr", "__addr", "address", "sip", "dip6", "IPv4", "v6addr", "key.ip", "ipv4_addr_t", "in_addr_t"} {
		if !isAddressName(name) {
			t.Errorf("%s is no name of an address", name)
		}
	}
	for _, name := range []string{"", "_", "t", "_t", "time_t", "ip_proto", "ip_count", "port", "src", "dst_port", "addr_len", "zip", "skip", "ship", "chip", "tip", "ipv6_enabled", "ip.x"} {
		if isAddressName(name) {
			t.Errorf("%s is a name of an address", name)
		}
	}
}

func TestDecodeAddresses(t *testing.T) {
	ports := structOf("", member("port", typeU16), member("proto", typeU16))
	s := structOf("s",
		member("saddr", typeU32), member("mark", typeU32), member("spi", typeBe32),
		member("ip6", arrayOf(typeU32, 4)), member("raw6", arrayOf(typeU32, 4)), member("n6", arrayOf(typeBe32, 4)),
		member("addr", ports), member("eth", arrayOf(typeU8, 6)), member("comm_addr", arrayOf(typeChar, 4)),
		member("text_addr", structOf("", member("t", arrayOf(typeChar, 16)))),
		member("halves_addr", structOf("", member("a", arrayOf(typeU8, 8)), member("b", arrayOf(typeU8, 8)))),
		member("any_addr", unionOf("", member("f", arrayOf(typeFloat, 4)), member("t", arrayOf(typeChar, 16)))),
		member("one", structOf("", member("n", typeU32))), member("alias", typedef("ipv4_addr_t", typeU32)),
		member("eth_bytes", structOf("", member("a", arrayOf(typeU8, 3)), member("b", arrayOf(typeU8, 3)))),
		member("eth_text", structOf("", member("a", arrayOf(typeChar, 6)))), member("eth_words", arrayOf(typeU16, 3)),
		member("pair_addr", structOf("", member("high", typeU64), member("low", typeU64))))
	text := `{"saddr":"10.0.0.1","mark":7,"spi":"10.0.0.2","ip6":"::1","raw6":[0,0,0,7],"n6":"::2",` +
		`"addr":{"port":1,"proto":"udp"},"eth":"00:00:00:00:00:01","comm_addr":"abc",` +
		`"text_addr":{"t":"a"},"halves_addr":{"a":"hex:0000000000000000","b":"hex:0000000000000000"},"any_addr":{"f":[0,0,0,0]},` +
		`"one":{"n":1},"alias":"10.0.0.3","eth_bytes":{"a":"hex:000000","b":"hex:000000"},"eth_text":{"a":"b"},"eth_words":[1,2,3],"pair_addr":"::3"}`
	got, err := Encode(s, mustParse(t, text))
	if err != nil {
		t.Fatal(err)
	}
	checkDecode(t, s, got.Data, text)
}
