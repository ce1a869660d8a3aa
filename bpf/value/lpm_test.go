// SPDX-License-Identifier: Apache-2.0

package value

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs"
)

var (
	lpm4   = structOf("lpm4", member("prefixlen", typeU32), member("data", arrayOf(typeU8, 4)))
	lpm6   = structOf("lpm6", member("prefixlen", typeU32), member("addr", typeIn6))
	lpmHdr = structOf("bpf_lpm_trie_key", member("prefixlen", typeU32), member("data", arrayOf(typeU8, 0)))
	// lpmRule has fields before the address, which every prefix includes.
	lpmRule = structOf("rule_key", member("lpm", lpmHdr), member("ifindex", typeU32), member("port", typeBe16), member("proto", typeU8),
		member("pad", typeU8), member("addr", arrayOf(typeU8, 16)))
	// lpmCache is Cilium's key of its ipcache.
	lpmCache = packedOf("ipcache_key", member("lpm", lpmHdr), member("cluster_id", typeU16), member("pad1", typeU8), member("family", typeU8),
		member("", unionOf("",
			member("", structOf("", member("ip4", typeU32), member("pad4", typeU32), member("pad5", typeU32), member("pad6", typeU32))),
			member("ip6", typeV6))))
	lpmNested  = structOf("nested", member("prefixlen", typeU32), member("data", structOf("", member("id", typeU32), member("ip", typeU32))))
	lpmSpread  = packedOf("spread", member("prefixlen", typeU32), member("high", typeU64), member("low", typeU64))
	lpmPadded  = structOf("padded", member("prefixlen", typeU32), member("a", arrayOf(typeU64, 2)))
	lpmPrefix4 = structOf("p", member("prefix", typeU32), member("addr", typeBe32))
	lpmText    = structOf("t", member("prefixlen", typeU32), member("prefix", arrayOf(typeChar, 8)))
	lpmPorts   = structOf("ports", member("prefixlen", typeU32), member("sport", typeU16), member("dport", typeU16))
	lpmLast    = structOf("last", member("prefixlen", typeU32), member("id", typeU32), member("data", arrayOf(typeU8, 16)))
	lpmBoth    = structOf("both", member("prefixlen", typeU32), member("ip4", typeU32), member("ip6", arrayOf(typeU8, 16)))
	lpmTwo     = structOf("two", member("prefixlen", typeU32), member("a", arrayOf(typeU8, 16)), member("b", arrayOf(typeU8, 16)))
	lpmPair    = structOf("pair", member("prefixlen", typeU32), member("a", typeU32), member("b", typeU32))
	lpmBits    = structOf("bits", member("prefixlen", typeU32), bitMember("x", typeU32, 8), bitMember("y", typeU32, 8), member("ip", typeU32))
	lpmShown   = structOf("key_addr", member("prefixlen", typeU32), member("a", typeU32), member("b", typeU32), member("c", typeU32))
	lpmWhole   = structOf("whole", member("lpm", lpm4))
	lpmAfter   = structOf("after", member("prefixlen", typeU32), member("ip", typeU32), member("rest", typeU32))
)

func TestPrefixes(t *testing.T) {
	ip16 := func(b ...byte) []byte { return append(append(make([]byte, 10), 0xff, 0xff), b...) }
	v6 := append([]byte{0x20, 1, 0xd, 0xb8}, make([]byte, 12)...)
	for _, c := range []struct {
		typ  btf.Type
		size uint32 // where there is no type
		yaml string
		want []byte
		back string
	}{
		{lpm4, 0, "10.0.0.0/8", cat(u32(8), []byte{10, 0, 0, 0}), `"10.0.0.0/8"`},
		{lpm4, 0, "0.0.0.0/0", cat(u32(0), []byte{0, 0, 0, 0}), `"0.0.0.0/0"`},
		{lpm4, 0, "10.0.0.1", cat(u32(32), []byte{10, 0, 0, 1}), `"10.0.0.1/32"`},
		{lpm4, 0, "{prefix: 10.0.0.0/8}", cat(u32(8), []byte{10, 0, 0, 0}), ""},
		{lpm4, 0, "{prefixlen: 8, data: 10.0.0.0}", cat(u32(8), []byte{10, 0, 0, 0}), ""},
		{lpm4, 0, "{prefixlen: 8, data: 10.0.0.1}", cat(u32(8), []byte{10, 0, 0, 1}), `{"prefixlen":8,"data":"hex:0a000001"}`},
		{lpm4, 0, "hex:2000000001020304", []byte{32, 0, 0, 0, 1, 2, 3, 4}, ""},
		{lpm6, 0, "2001:db8::/32", cat(u32(32), v6), `"2001:db8::/32"`},
		{lpm6, 0, "::/0", cat(u32(0), make([]byte, 16)), `"::/0"`},
		{lpm6, 0, "10.0.0.0/8", cat(u32(104), ip16(10, 0, 0, 0)), `"10.0.0.0/8"`},
		{lpm6, 0, "0.0.0.0/0", cat(u32(96), ip16(0, 0, 0, 0)), `"0.0.0.0/0"`},
		{lpm6, 0, "'::ffff:10.0.0.0/104'", cat(u32(104), ip16(10, 0, 0, 0)), ""},
		{lpmRule, 0, "{prefix: 10.1.0.0/16, port: 443, proto: tcp, ifindex: 3}",
			cat(u32(64+96+16), u32(3), []byte{1, 0xbb, 6, 0}, ip16(10, 1, 0, 0)), `{"prefix":"10.1.0.0/16","ifindex":3,"port":443,"proto":"tcp","pad":0}`},
		{lpmRule, 0, "{prefix: '2001:db8::/32'}", cat(u32(96), make([]byte, 8), v6), `{"prefix":"2001:db8::/32","ifindex":0,"port":0,"proto":0,"pad":0}`},
		{lpmRule, 0, "{lpm: {prefixlen: 32}, ifindex: 3}", cat(u32(32), u32(3), make([]byte, 20)), ""},
		{lpmCache, 0, "{prefix: 10.0.0.0/8, family: 1}", cat(u32(32+8), []byte{0, 0, 0, 1, 10}, make([]byte, 15)), ""},
		{lpmCache, 0, "{prefix: '2001:db8::/32', family: 2}", cat(u32(64), []byte{0, 0, 0, 2}, v6),
			`{"lpm":{"prefixlen":64},"cluster_id":0,"pad1":0,"family":2,"ip4":"32.1.13.184","pad4":0,"pad5":0,"pad6":0}`},
		{lpmNested, 0, "{prefix: 10.0.0.0/8, data: {id: 7}}", cat(u32(40), u32(7), []byte{10, 0, 0, 0}), `{"prefixlen":40,"data":{"id":7,"ip":"10.0.0.0"}}`},
		{lpmSpread, 0, "2001:db8::/32", cat(u32(32), v6), `"2001:db8::/32"`},
		{lpmPadded, 0, "2001:db8::/32", cat(u32(64), u32(0), v6), `"2001:db8::/32"`},
		{lpmPrefix4, 0, "{prefix: 10.0.0.0/8}", cat(u32(8), []byte{10, 0, 0, 0}), `"10.0.0.0/8"`},
		{lpmPrefix4, 0, "{prefix: 8, addr: 10.0.0.1}", cat(u32(8), []byte{10, 0, 0, 1}), `{"prefix":8,"addr":"10.0.0.1"}`},
		{lpmText, 0, "{prefixlen: 8, prefix: 'ab'}", cat(u32(8), []byte("ab\x00\x00\x00\x00\x00\x00")), `{"prefixlen":8,"prefix":"ab"}`},
		{lpmPorts, 0, "{prefixlen: 16, sport: 80}", cat(u32(16), u16(80), u16(0)), `{"prefixlen":16,"sport":80,"dport":0}`},
		{lpmLast, 0, "{prefix: 10.0.0.0/8, id: 1}", cat(u32(32+104), u32(1), ip16(10, 0, 0, 0)), `{"prefix":"10.0.0.0/8","id":1}`},
		{lpmWhole, 0, "10.0.0.0/8", cat(u32(8), []byte{10, 0, 0, 0}), `"10.0.0.0/8"`},
		{lpmBoth, 0, "{prefix: 10.0.0.0/8}", cat(u32(8), []byte{10, 0, 0, 0}, make([]byte, 16)), ""},
		{lpmBoth, 0, "{prefix: '2001:db8::/32'}", cat(u32(64), make([]byte, 4), v6), ""},
		{lpmTwo, 0, "{prefix: '2001:db8::/32'}", cat(u32(128+32), make([]byte, 16), v6), `{"prefix":"2001:db8::/32","a":"hex:00000000000000000000000000000000"}`},
		{lpmPair, 0, "{prefix: 10.0.0.0/8, a: 1}", cat(u32(40), u32(1), []byte{10, 0, 0, 0}), `{"prefix":"10.0.0.0/8","a":1}`},
		{lpmBits, 0, "{prefix: 10.0.0.0/8}", cat(u32(40), u32(0), []byte{10, 0, 0, 0}), `{"prefix":"10.0.0.0/8","x":0,"y":0}`},
		{lpmAfter, 0, "{prefix: 10.0.0.0/8}", cat(u32(8), []byte{10, 0, 0, 0}, u32(0)), `{"prefix":"10.0.0.0/8"}`},
		{lpmAfter, 0, "{prefixlen: 40, ip: 10.0.0.0, rest: 1}", cat(u32(40), []byte{10, 0, 0, 0}, u32(1)), `{"prefixlen":40,"ip":"10.0.0.0","rest":1}`},
		{arrayOf(typeU32, 2), 0, "10.0.0.0/8", cat(u32(8), []byte{10, 0, 0, 0}), `"10.0.0.0/8"`},
		{arrayOf(typeU32, 2), 0, "[8, 10.0.0.1]", cat(u32(8), []byte{10, 0, 0, 1}), ""},
		{typeU64, 0, "10.0.0.0/8", cat(u32(8), []byte{10, 0, 0, 0}), ""},
		{nil, 8, "10.0.0.0/8", cat(u32(8), []byte{10, 0, 0, 0}), `"10.0.0.0/8"`},
		{nil, 20, "10.0.0.0/8", cat(u32(104), ip16(10, 0, 0, 0)), `"10.0.0.0/8"`},
		{nil, 20, "2001:db8::/32", cat(u32(32), v6), `"2001:db8::/32"`},
		{nil, 10, "{prefixlen: 48, data: hex:010203040506}", cat(u32(48), []byte{1, 2, 3, 4, 5, 6}), `{"prefixlen":48,"data":"01:02:03:04:05:06"}`},
	} {
		size := c.size
		if c.typ != nil {
			size = uint32(sizeof(c.typ))
		}
		t.Run(TypeName(c.typ)+" "+c.yaml, func(t *testing.T) {
			got, err := EncodeKey(c.typ, size, ebpf.LPMTrie, mustParse(t, c.yaml))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(specs.Bytes{Data: c.want}, got); diff != "" {
				t.Fatalf("bytes (-want +got):\n%s", diff)
			}
			back, err := DecodeKey(c.typ, ebpf.LPMTrie, got.Data)
			if err != nil {
				t.Fatal(err)
			}
			if c.back != "" && toJSON(t, back) != c.back {
				t.Errorf("decoded: %s, want %s", toJSON(t, back), c.back)
			}
			again, err := EncodeKey(c.typ, size, ebpf.LPMTrie, mustParse(t, toJSON(t, back)))
			if diff := cmp.Diff(got, again); err != nil || diff != "" {
				t.Errorf("%s again: %v\n%s", toJSON(t, back), err, diff)
			}
		})
	}
}

// TestDecodeKeyFallback has keys that can't be written as a prefix, or would be
// taken for one.
func TestDecodeKeyFallback(t *testing.T) {
	for _, c := range []struct {
		typ  btf.Type
		data []byte
		want string
	}{
		{lpm4, cat(u32(33), []byte{10, 0, 0, 0}), toJSON(t, formatHex(cat(u32(33), []byte{10, 0, 0, 0})))}, // never in a kernel
		{lpm4, cat(u32(8), []byte{10, 0, 0, 1}), `{"prefixlen":8,"data":"hex:0a000001"}`},
		{lpmRule, cat(u32(63), make([]byte, 24)), `{"lpm":{"prefixlen":63},"ifindex":0,"port":0,"proto":0,"pad":0,"addr":"::"}`},
		{lpmText, cat(u32(8), []byte("a/b\x00\x00\x00\x00\x00")), toJSON(t, formatHex(cat(u32(8), []byte("a/b\x00\x00\x00\x00\x00"))))},
		{lpmAfter, cat(u32(8), []byte{10, 0, 0, 0}, u32(1)), `{"prefixlen":8,"ip":"10.0.0.0","rest":1}`},
		{arrayOf(typeBe32, 4), cat(u32(8), make([]byte, 12)), toJSON(t, formatHex(cat(u32(8), make([]byte, 12))))},
		{lpmShown, cat(u32(96), u32(1), u32(0), u32(5)), toJSON(t, formatHex(cat(u32(96), u32(1), u32(0), u32(5))))}, // its name makes it an address
		{lpmRule, cat(u32(200), make([]byte, 24)), toJSON(t, formatHex(cat(u32(200), make([]byte, 24))))},
		{lpmNested, cat(u32(31), make([]byte, 8)), `{"prefixlen":31,"data":{"id":0,"ip":"0.0.0.0"}}`},
		{typeU32, u32(5), "5"},
		{nil, u32(5), "5"},
		{nil, cat(u32(8), []byte{10, 0, 0, 1}), `{"prefixlen":8,"data":"hex:0a000001"}`},
	} {
		v, err := DecodeKey(c.typ, ebpf.LPMTrie, c.data)
		if err != nil || toJSON(t, v) != c.want {
			t.Errorf("%s %x: %s, %v, want %s", TypeName(c.typ), c.data, toJSON(t, v), err, c.want)
		}
	}
}

func TestPrefixVariable(t *testing.T) {
	for _, c := range []struct {
		typ  btf.Type
		yaml string
		want specs.Bytes
	}{
		{lpm4, "${ip}", specs.Bytes{Data: cat(u32(32), make([]byte, 4)), Holes: []specs.Hole{{Offset: 4, Size: 4, Variable: specs.VarIP}}}},
		{lpm6, "{prefix: '${ip}'}", specs.Bytes{Data: cat(u32(128), make([]byte, 16)), Holes: []specs.Hole{{Offset: 4, Size: 16, Variable: specs.VarIP}}}},
		{lpmRule, "{prefix: '${ip}', ifindex: '${ifindex}'}", specs.Bytes{Data: cat(u32(192), make([]byte, 24)), Holes: []specs.Hole{
			{Offset: 4, Size: 4, Variable: specs.VarIfindex}, {Offset: 12, Size: 16, Variable: specs.VarIP}}}},
		{lpmRule, "{prefix: 10.0.0.0/8, ifindex: '${ifindex}'}", specs.Bytes{Data: cat(u32(64+104), make([]byte, 18), []byte{255, 255, 10, 0, 0, 0}), Holes: []specs.Hole{
			{Offset: 4, Size: 4, Variable: specs.VarIfindex}}}},
	} {
		got, err := EncodeKey(c.typ, uint32(sizeof(c.typ)), ebpf.LPMTrie, mustParse(t, c.yaml))
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s %s: %v\n%s", TypeName(c.typ), c.yaml, err, diff)
		}
	}
}

func TestPrefixErrors(t *testing.T) {
	for _, c := range []struct {
		typ  btf.Type
		size uint32
		yaml string
		want string
	}{
		{lpm4, 0, "10.0.0.1/8", `p.yaml:1: v: "10.0.0.1/8" has bits after its first 8; write 10.0.0.0/8`},
		{lpm6, 0, "{prefix: '2001:db8::1/32'}", `p.yaml:1: v.prefix: "2001:db8::1/32" has bits after its first 32; write 2001:db8::/32`},
		{lpm6, 0, "'::ffff:0:0/95'", `p.yaml:1: v: "::ffff:0:0/95" has bits after its first 95; write ::fffe:0:0/95`},
		{lpm4, 0, "10.0.0.0/33", `p.yaml:1: v: "10.0.0.0/33" is no prefix; write one like 10.0.0.0/8 or 2001:db8::/32`},
		{lpm4, 0, "10.0.0.0/08", `p.yaml:1: v: "10.0.0.0/08" is no prefix; write one like 10.0.0.0/8 or 2001:db8::/32`},
		{lpm4, 0, "internal", `p.yaml:1: v: "internal" is no prefix; write one like 10.0.0.0/8 or 2001:db8::/32`},
		{lpm4, 0, "5", `p.yaml:1: v: "5" is no prefix; write one like 10.0.0.0/8 or 2001:db8::/32`},
		{lpm6, 0, "fe80::1%eth0", `p.yaml:1: v: "fe80::1%eth0" is no prefix; write one like 10.0.0.0/8 or 2001:db8::/32`},
		{lpm4, 0, "null", "p.yaml:1: v: null is no value for struct lpm4; write 0, or leave it out"},
		{lpm4, 0, "2001:db8::/32", "p.yaml:1: v: struct lpm4 has no room for 2001:db8::/32; write the fields, the prefix length too, or hex:…"},
		{lpmPorts, 0, "10.0.0.0/8", "p.yaml:1: v: struct ports has no room for 10.0.0.0/8; write the fields, the prefix length too, or hex:…"},
		{lpmPorts, 0, "${ip}", "p.yaml:1: v: struct ports has no room for ${ip}; write the fields, the prefix length too, or hex:…"},
		{nil, 10, "10.0.0.0/8", "p.yaml:1: v: struct bpf_lpm_trie_key_u8 has no room for 10.0.0.0/8; write the fields, the prefix length too, or hex:…"},
		{nil, 4, "10.0.0.0/8", "p.yaml:1: v: the map's keys have 4 bytes, but those of LPM tries have more than 4"},
		{nil, 2, "10.0.0.0/8", "p.yaml:1: v: the map's keys have 2 bytes, but those of LPM tries have more than 4"},
		{typeU32, 0, "10.0.0.0/8", "p.yaml:1: v: the map's keys have 4 bytes, but those of LPM tries have more than 4"},
		{lpm4, 12, "10.0.0.0/8", "p.yaml:1: v: the map's keys have 12 bytes, but struct lpm4 has 8 bytes; keep the object's key size"},
		{lpmRule, 0, "10.0.0.0/8", "p.yaml:1: v: struct rule_key has more than an address: ifindex, port, proto, pad; write {prefix: 10.0.0.0/8, ifindex: …}"},
		{lpmNested, 0, "10.0.0.0/8", "p.yaml:1: v: struct nested has more than an address: data.id; write {prefix: 10.0.0.0/8, data.id: …}"},
		{lpmRule, 0, "${ip}", "p.yaml:1: v: struct rule_key has more than an address: ifindex, port, proto, pad; write {prefix: ${ip}, ifindex: …}"},
		{lpmCache, 0, "{prefix: '${ip}'}", "p.yaml:1: v.prefix: ${ip} could go to two places in struct ipcache_key; write the fields, the prefix length too"},
		{lpmRule, 0, "{prefix: 10.0.0.0/8, lpm: {prefixlen: 8}}", "p.yaml:1: v: byte 0 of struct rule_key belongs to the prefix or comes after it, but another field sets it; leave it out"},
		{lpmRule, 0, "{prefix: 10.0.0.0/8, addr: '::1'}", "p.yaml:1: v: byte 27 of struct rule_key belongs to the prefix or comes after it, but another field sets it; leave it out"},
		{lpmRule, 0, "{prefix: 10.0.0.0/8, addr: '${ip}'}", "p.yaml:1: v: byte 12 of struct rule_key belongs to the prefix or comes after it, but another field sets it; leave it out"},
		{lpmAfter, 0, "{prefix: 10.0.0.0/8, rest: 1}", "p.yaml:1: v: byte 8 of struct after belongs to the prefix or comes after it, but another field sets it; leave it out"},
		{lpmRule, 0, "{prefix: 10.0.0.0/8, prot: tcp}", `p.yaml:1: v.prot: "prot" is no field of struct rule_key; its fields: lpm, ifindex, port, proto, pad, addr`},
		{lpm4, 0, "{prefixlen: 33}", "p.yaml:1: v: a prefix of 33 bits is longer than the key; write at most 32"},
		{lpm4, 0, "{prefixlen: '${ifindex}'}", "p.yaml:1: v: the prefix length can't come from a variable; write a number"},
		{lpm4, 0, "hex:ffffffff00000000", "p.yaml:1: v: a prefix of 4294967295 bits is longer than the key; write at most 32"},
		{lpm4, 0, "${ifindex}", "p.yaml:1: v: ${ifindex} does not fit struct lpm4; it needs an integer of 4 or 8 bytes"},
		{lpm4, 0, "{prefix: [1]}", `p.yaml:1: v.prefix: "prefix" is no field of struct lpm4; its fields: prefixlen, data`},
		{lpm4, 0, "[1]", "p.yaml:1: v: a list does not fit struct lpm4; write a mapping of its fields: prefixlen, data"},
	} {
		size := c.size
		if size == 0 {
			size = uint32(sizeof(c.typ))
		}
		_, err := EncodeKey(c.typ, size, ebpf.LPMTrie, mustParse(t, c.yaml))
		t.Run(TypeName(c.typ)+" "+c.yaml, func(t *testing.T) { checkError(t, err, c.want) })
	}
}
