// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs"
)

func full() Values {
	return Values{
		Ifindex: 5, PeerIfindex: 300, CgroupID: 1 << 40, NetnsCookie: 9, PID: 1234,
		IPv4: netip.MustParseAddr("192.0.2.2"), IPv6: netip.MustParseAddr("2001:db8::2"),
		MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, PeerMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2},
		PeerName: "veth0", ContainerID: "abc",
	}
}

func TestFill(t *testing.T) {
	sum := sha256.Sum256([]byte("abc"))
	for _, tc := range []struct {
		name string
		hole specs.Hole
		want []byte // in place of the hole
	}{
		{"number", specs.Hole{Size: 4, Variable: specs.VarIfindex}, u32(5)},
		{"network order", specs.Hole{Size: 4, Variable: specs.VarIfindex, BigEndian: true}, []byte{0, 0, 0, 5}},
		{"two bytes", specs.Hole{Size: 2, Variable: specs.VarPeerIfindex}, binary.NativeEndian.AppendUint16(nil, 300)},
		{"one byte", specs.Hole{Size: 1, Variable: specs.VarNetnsCookie}, []byte{9}},
		{"cgroup", specs.Hole{Size: 8, Variable: specs.VarCgroupID}, u64(1 << 40)},
		{"pid", specs.Hole{Size: 4, Variable: specs.VarPID}, u32(1234)},
		{"ipv4", specs.Hole{Size: 4, Variable: specs.VarIP}, []byte{192, 0, 2, 2}},
		{"ipv6", specs.Hole{Size: 16, Variable: specs.VarIP}, netip.MustParseAddr("2001:db8::2").AsSlice()},
		{"mac", specs.Hole{Size: 6, Variable: specs.VarMAC}, []byte{2, 0, 0, 0, 0, 1}},
		{"peer mac", specs.Hole{Size: 6, Variable: specs.VarPeerMAC}, []byte{2, 0, 0, 0, 0, 2}},
		{"text", specs.Hole{Size: 5, Variable: specs.VarContainerID}, []byte("abc\x00\x00")},
		{"peer name", specs.Hole{Size: 16, Variable: specs.VarPeerName}, append([]byte("veth0"), make([]byte, 11)...)},
		{"hash", specs.Hole{Size: 8, Variable: specs.VarContainerIDHash}, u64(binary.LittleEndian.Uint64(sum[:8]))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := full()
			tc.hole.Offset = 2
			data := bytes.Repeat([]byte{0xee}, tc.hole.Size+4)
			got, err := v.fill(specs.Bytes{Data: data, Holes: []specs.Hole{tc.hole}})
			if err != nil {
				t.Fatal(err)
			}
			want := append(append([]byte{0xee, 0xee}, tc.want...), 0xee, 0xee)
			if !bytes.Equal(got, want) {
				t.Errorf("got %x, want %x", got, want)
			}
			if !bytes.Equal(data, bytes.Repeat([]byte{0xee}, len(data))) {
				t.Error("the plan was changed")
			}
		})
	}
}

// A variable without a value is an error, never zero.
func TestFillWithoutValue(t *testing.T) {
	for v := range missing {
		size := map[specs.Variable]int{specs.VarIP: 4, specs.VarMAC: 6, specs.VarPeerMAC: 6}[v]
		if size == 0 {
			size = 8
		}
		_, err := (&Values{}).fill(specs.Bytes{Data: make([]byte, 16), Holes: []specs.Hole{{Size: size, Variable: v}}})
		if !errors.Is(err, ErrNoValue) || !strings.Contains(err.Error(), "${"+string(v)+"}") {
			t.Errorf("%s: %v", v, err)
		}
	}
	v := full()
	v.IPv6 = netip.Addr{}
	if _, err := v.fill(specs.Bytes{Data: make([]byte, 16), Holes: []specs.Hole{{Size: 16, Variable: specs.VarIP}}}); !errors.Is(err, ErrNoValue) {
		t.Errorf("no IPv6 address: %v", err)
	}
}

func TestFillMisfits(t *testing.T) {
	for name, h := range map[string]specs.Hole{
		"does not fit into 1":     {Size: 1, Variable: specs.VarPeerIfindex},
		"its field has 3 bytes":   {Size: 3, Variable: specs.VarIfindex},
		"takes at most 2":         {Size: 3, Variable: specs.VarContainerID},
		"has 6 bytes":             {Size: 8, Variable: specs.VarMAC},
		"is not a variable":       {Size: 8, Variable: "moon"},
		"lies outside":            {Offset: 13, Size: 4, Variable: specs.VarIfindex},
		"${pid} lies outside":     {Offset: -1, Size: 4, Variable: specs.VarPID},
		"${cgroupId} is 10995116": {Size: 4, Variable: specs.VarCgroupID},
	} {
		v := full()
		if _, err := v.fill(specs.Bytes{Data: make([]byte, 16), Holes: []specs.Hole{h}}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func constant(symbol string, data []byte, holes ...specs.Hole) specs.PlanConstant {
	return specs.PlanConstant{Symbol: symbol, Value: specs.Bytes{Data: data, Holes: holes}}
}

func TestConstants(t *testing.T) {
	p := plan(program("read_limit"), program("read_hidden"), program("read_seed"), program("read_ifindex"))
	p.Constants = []specs.PlanConstant{
		constant("limit", u32(11)),
		constant("hidden", u32(12)), // static: known from BTF only
		constant("seed", u32(13)),   // in .data
		constant("ifindex", u32(0), specs.Hole{Size: 4, Variable: specs.VarIfindex}),
	}
	o := options(p)
	o.Values.Ifindex = 14
	c := mustLoad(t, o)
	for key, want := range map[string]int{"read_limit": 11, "read_hidden": 12, "read_seed": 13, "read_ifindex": 14} {
		wantRun(t, c, key, want)
	}
}

func TestDefaultsStay(t *testing.T) {
	c := mustLoad(t, options(plan(program("read_limit"), program("read_hidden"), program("read_seed"))))
	for key, want := range map[string]int{"read_limit": 1, "read_hidden": 2, "read_seed": 3} {
		wantRun(t, c, key, want)
	}
}

func TestConstantWithoutValue(t *testing.T) {
	p := plan(program("read_ifindex"), program("read_cgroup"), program("read_limit"))
	p.Constants = []specs.PlanConstant{
		constant("ifindex", u32(0), specs.Hole{Size: 4, Variable: specs.VarIfindex}),
		constant("cgroup_id", u64(0), specs.Hole{Size: 8, Variable: specs.VarCgroupID}),
	}
	o := options(p)
	o.Values.Ifindex = 3
	_, err := Load(t.Context(), o)
	wantError(t, err, "policy test: constant cgroup_id: ${cgroupId} has no value here")
	if !errors.Is(err, ErrNoValue) {
		t.Error("not ErrNoValue")
	}

	// What no wanted program looks at does not matter, though it stands in the
	// same section.
	o.Programs = []string{"read_ifindex", "read_limit"}
	c := mustLoad(t, o)
	wantRun(t, c, "read_ifindex", 3)
	wantRun(t, c, "read_limit", 1)
}

func TestConstantThatIsNotThere(t *testing.T) {
	p := plan(program("read_limit"))
	p.Constants = []specs.PlanConstant{constant("no_such", u32(1))}
	_, err := Load(t.Context(), options(p))
	wantError(t, err, "constant no_such", "linkpin policy apply")

	p.Constants = []specs.PlanConstant{constant("limit", u64(1))}
	_, err = Load(t.Context(), options(p))
	wantError(t, err, "constant limit: variable limit has 4 bytes")
}

func TestEntryWithHoles(t *testing.T) {
	p := plan(program("read_verdict"))
	p.Maps[0].Entries = []specs.PlanEntry{{
		Key:   specs.Bytes{Data: u32(0), Holes: []specs.Hole{{Size: 4, Variable: specs.VarIfindex}}},
		Value: specs.Bytes{Data: u32(0), Holes: []specs.Hole{{Size: 4, Variable: specs.VarPID}}},
	}}
	o := options(p)
	_, err := Load(t.Context(), o)
	wantError(t, err, "map verdicts: key of entry 1: ${ifindex}")
	o.Values = Values{Ifindex: 7}
	_, err = Load(t.Context(), o)
	wantError(t, err, "map verdicts: value of entry 1: ${pid}")
	o.Values.PID = 21
	wantRun(t, mustLoad(t, o), "read_verdict", 21)
}
