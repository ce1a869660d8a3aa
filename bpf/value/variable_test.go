// SPDX-License-Identifier: Apache-2.0

package value

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/policy"
)

// TestEveryVariable: what the policy format has, can be encoded.
func TestEveryVariable(t *testing.T) {
	var names []string
	for _, known := range variables {
		names = append(names, string(known.name))
	}
	if diff := cmp.Diff(policy.Variables, names); diff != "" {
		t.Errorf("variables (-policy +encoder):\n%s", diff)
	}
}

func TestVariables(t *testing.T) {
	hole := func(off, size int, v specs.Variable) []specs.Hole {
		return []specs.Hole{{Offset: off, Size: size, Variable: v}}
	}
	s := structOf("s", member("a", typeU8), member("ifindex", typeU32), member("id", typeU64), member("addr", typeIn6))
	runEncode(t, []encodeCase{
		{typ: typeU32, yaml: "${ifindex}", want: make([]byte, 4), holes: hole(0, 4, specs.VarIfindex)},
		{typ: typeInt, yaml: "'${peerIfindex}'", want: make([]byte, 4), holes: hole(0, 4, specs.VarPeerIfindex)},
		{typ: typeU64, yaml: "${ifindex}", want: make([]byte, 8), holes: hole(0, 8, specs.VarIfindex)},
		{typ: typeU32, yaml: "${pid}", want: make([]byte, 4), holes: hole(0, 4, specs.VarPID)},
		{typ: typeU64, yaml: "${cgroupId}", want: make([]byte, 8), holes: hole(0, 8, specs.VarCgroupID)},
		{typ: typeU64, yaml: "${netnsCookie}", want: make([]byte, 8), holes: hole(0, 8, specs.VarNetnsCookie)},
		{typ: typeU64, yaml: "${containerId}", want: make([]byte, 8), holes: hole(0, 8, specs.VarContainerIDHash)},
		{typ: arrayOf(typeChar, 65), yaml: "${containerId}", want: make([]byte, 65), holes: hole(0, 65, specs.VarContainerID)},
		{typ: arrayOf(typeU8, 8), yaml: "${containerId}", want: make([]byte, 8), holes: hole(0, 8, specs.VarContainerID)},
		{typ: arrayOf(typeChar, 16), yaml: "${peer.name}", want: make([]byte, 16), holes: hole(0, 16, specs.VarPeerName)},
		{typ: typeU32, yaml: "${ip}", want: make([]byte, 4), holes: hole(0, 4, specs.VarIP)},
		{typ: typeBe32, yaml: "${ip}", want: make([]byte, 4), holes: hole(0, 4, specs.VarIP)},
		{typ: typeIn6, yaml: "${ip}", want: make([]byte, 16), holes: hole(0, 16, specs.VarIP)},
		{typ: arrayOf(typeU8, 6), yaml: "${mac}", want: make([]byte, 6), holes: hole(0, 6, specs.VarMAC)},
		{typ: arrayOf(typeU8, 6), yaml: "${peer.mac}", want: make([]byte, 6), holes: hole(0, 6, specs.VarPeerMAC)},
		{typ: typeBe32, yaml: "${ifindex}", want: make([]byte, 4), holes: []specs.Hole{{Size: 4, Variable: specs.VarIfindex, BigEndian: true}}},
		{typ: typeU64, yaml: "'be:${cgroupId}'", want: make([]byte, 8), holes: []specs.Hole{{Size: 8, Variable: specs.VarCgroupID, BigEndian: true}}},
		{typ: typeBe64, yaml: "${containerId}", want: make([]byte, 8), holes: []specs.Hole{{Size: 8, Variable: specs.VarContainerIDHash, BigEndian: true}}},
		{typ: s, yaml: "{addr: '${ip}', id: '${containerId}', ifindex: '${ifindex}', a: 5}", want: append([]byte{5}, make([]byte, 31)...), holes: []specs.Hole{
			{Offset: 16, Size: 16, Variable: specs.VarIP},
			{Offset: 8, Size: 8, Variable: specs.VarContainerIDHash},
			{Offset: 4, Size: 4, Variable: specs.VarIfindex}}},
		{typ: arrayOf(typeU32, 3), yaml: "[1, '${ifindex}']", want: cat(u32(1), u32(0), u32(0)), holes: hole(4, 4, specs.VarIfindex)},
		{typ: arrayOf(s, 2), yaml: "[{}, {ifindex: '${pid}'}]", want: make([]byte, 64), holes: hole(36, 4, specs.VarPID)},
	})
	const known = "write ${ifindex}, ${peerIfindex}, ${cgroupId}, ${netnsCookie}, ${pid}, ${ip}, ${mac}, ${containerId}, ${peer.mac}, ${peer.name}"
	runFail(t, []failCase{
		{typeU32, "${ifindx}", `p.yaml:1: v: "${ifindx}" is no variable; ` + known},
		{typeU64, "${containerIdHash}", `p.yaml:1: v: "${containerIdHash}" is no variable; ` + known},
		{typeU32, "${}", `p.yaml:1: v: "${}" is no variable; ` + known},
		{typeU32, "${ifindex", `p.yaml:1: v: "${ifindex" is no variable; write ${name} alone, or text:… where text is meant literally`},
		{typeU32, "${ifindex}1", `p.yaml:1: v: "${ifindex}1" is no variable; write ${name} alone, or text:… where text is meant literally`},
		{arrayOf(typeChar, 80), "${containerId}-${ip}", `p.yaml:1: v: "${containerId}-${ip}" is no variable; write ${name} alone, or text:… where text is meant literally`},
		{typeU16, "${ifindex}", "p.yaml:1: v: ${ifindex} does not fit __u16; it needs an integer of 4 or 8 bytes"},
		{typeU128, "${ifindex}", "p.yaml:1: v: ${ifindex} does not fit __u128; it needs an integer of 4 or 8 bytes"},
		{typeU16, "${pid}", "p.yaml:1: v: ${pid} does not fit __u16; it needs an integer of 4 or 8 bytes"},
		{typeU32, "${cgroupId}", "p.yaml:1: v: ${cgroupId} does not fit __u32; it needs an integer of 8 bytes"},
		{typeU32, "${netnsCookie}", "p.yaml:1: v: ${netnsCookie} does not fit __u32; it needs an integer of 8 bytes"},
		{typeU32, "${containerId}", "p.yaml:1: v: ${containerId} does not fit __u32; it needs a char array, or an integer of 8 bytes for its hash"},
		{arrayOf(typeChar, 1), "${containerId}", "p.yaml:1: v: ${containerId} does not fit char[1]; it needs a char array, or an integer of 8 bytes for its hash"},
		{typeU64, "${peer.name}", "p.yaml:1: v: ${peer.name} does not fit __u64; it needs a char array of 16 bytes or more"},
		{arrayOf(typeChar, 15), "${peer.name}", "p.yaml:1: v: ${peer.name} does not fit char[15]; it needs a char array of 16 bytes or more"},
		{arrayOf(typeU16, 16), "${peer.name}", "p.yaml:1: v: ${peer.name} does not fit __u16[16]; it needs a char array of 16 bytes or more"},
		{typeU64, "${ip}", "p.yaml:1: v: ${ip} does not fit __u64; it needs 4 or 16 bytes of integers"},
		{arrayOf(typeU8, 4), "${mac}", "p.yaml:1: v: ${mac} does not fit __u8[4]; it needs 6 bytes of integers"},
		{typeVerdict, "${ifindex}", "p.yaml:1: v: ${ifindex} does not fit enum verdict; it needs an integer of 4 or 8 bytes"},
		{typeFloat, "${ifindex}", "p.yaml:1: v: ${ifindex} does not fit float; it needs an integer of 4 or 8 bytes"},
		{typeBool, "${ifindex}", "p.yaml:1: v: ${ifindex} does not fit _Bool; it needs an integer of 4 or 8 bytes"},
		{typeU32, "'be:${ip}'", "p.yaml:1: v: ${ip} is no number here, so it has no byte order; write ${ip}"},
		{arrayOf(typeChar, 65), "'be:${containerId}'", "p.yaml:1: v: ${containerId} is no number here, so it has no byte order; write ${containerId}"},
		{s, "{ifindex: '${mac}'}", "p.yaml:1: v.ifindex: ${mac} does not fit __u32; it needs 6 bytes of integers"},
	})
}
