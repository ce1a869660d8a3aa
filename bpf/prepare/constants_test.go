// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs"
)

func constantOf(t *testing.T, p *Prepared, object, symbol string) specs.Bytes {
	t.Helper()
	for _, c := range p.Plan.Constants {
		if c.Object == object && c.Symbol == symbol {
			return c.Value
		}
	}
	t.Fatalf("no constant %s", symbol)
	return specs.Bytes{}
}

func TestConstants(t *testing.T) {
	p := must(t, plain+`constants:
  limit: 0x10
  enabled: true
  label: abc
  settings: {port: 80, strict: true, limits: [1, 2]}
  ports: [1, 2, 3]
  address: 2001:db8::1
  cgroup_id: "${cgroupId}"
  ifindex: "${ifindex}"
  hidden: 9
`)
	port := string(binary.NativeEndian.AppendUint16(nil, 80))
	for symbol, want := range map[string]string{
		"limit":     u32(16),
		"enabled":   "\x01",
		"label":     "abc" + strings.Repeat("\x00", 13),
		"settings":  port + "\x01\x00" + u32(1) + u32(2) + u32(0),
		"address":   "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01",
		"cgroup_id": strings.Repeat("\x00", 8),
		"hidden":    u32(9),
	} {
		if got := constantOf(t, p, "", symbol); string(got.Data) != want {
			t.Errorf("%s: %x, want %x", symbol, got.Data, want)
		}
	}
	if h := constantOf(t, p, "", "cgroup_id").Holes; len(h) != 1 || h[0].Variable != specs.VarCgroupID || h[0].Size != 8 {
		t.Errorf("%+v", h)
	}
	if _, err := p.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConstantErrors(t *testing.T) {
	for _, tc := range []struct{ constant, want string }{
		{"nobody: 1", "constants.nobody: there is no variable nobody; the variables are address, cgroup_id, enabled, hidden"},
		{"LINUX_KERNEL_VERSION: 1", "can't be set: kconfig values and kernel symbols come from the kernel"},
		{"sized: 1", "sized is a map; write it under maps:"},
		{"limit: 0x100000000", "constants.limit"},
		{"settings: {prt: 1}", "constants.settings"},
		{"label: aaaaaaaaaaaaaaaa", "constants.label"},
		{`cgroup_id: "${ifindex}"`, "program connect4 is attached to a cgroup, where ${ifindex} has no value: it belongs to an interface"},
		{`ifindex: "${pid}"`, "program from_wire is attached to an interface, where ${pid} has no value"},
	} {
		t.Run(tc.constant, func(t *testing.T) {
			_, err := prepare(t, plain+"constants:\n  "+tc.constant+"\n")
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "p.yaml:6: constants.") {
				t.Errorf("got %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestUnusedConstant(t *testing.T) {
	p, err := prepare(t, plain+"constants: {unused: 5}\n")
	if err != nil {
		t.Fatal(err)
	}
	wantWarnings(t, p, []string{"p.yaml:5: constants.unused", "no selected program uses the variable"})
}

// A name without its object is the variable of every object that has it.
func TestConstantOfSeveralObjects(t *testing.T) {
	objects := "objects: {a: {file: plain.bpf.o}, b: {file: other.bpf.o}}\nprograms: {a/connect4: {}, b/far: {direction: to-container}}\n"
	p := must(t, objects+"constants: {limit: 5}\n")
	for _, o := range []string{"a", "b"} {
		if got := constantOf(t, p, o, "limit"); string(got.Data) != u32(5) {
			t.Errorf("%s: %x", o, got.Data)
		}
	}
	p = must(t, objects+"constants: {b/limit: 6}\n")
	if len(p.Plan.Constants) != 1 || string(constantOf(t, p, "b", "limit").Data) != u32(6) {
		t.Errorf("%+v", p.Plan.Constants)
	}
	_, err := prepare(t, objects+"constants: {b/limit: 6, limit: 5}\n")
	wantErrors(t, err, []string{"p.yaml:3: constants.limit", "constant b/limit stands at line 3 already"})
}

// A tail-call target runs where its callers are attached.
func TestVariablesOfTargets(t *testing.T) {
	text := "objects: {a: {file: tail.bpf.o}, b: {file: other.bpf.o}}\nprograms: {a/caller: {}}\n" +
		"maps: {empty: {programs: {0: b/far}}}\nconstants: {limit: \"${V}\"}\n"
	must(t, strings.Replace(text, "${V}", "${ifindex}", 1))
	_, err := prepare(t, strings.Replace(text, "${V}", "${pid}", 1))
	wantErrors(t, err, []string{"p.yaml:4: constants.limit", "program b/far is attached to an interface"})
}

func TestVariablesOfEntries(t *testing.T) {
	_, err := prepare(t, plain+"  vendor:\n    entries:\n      - {key: \"${ifindex}\", value: 1}\n")
	wantErrors(t, err, []string{"p.yaml:7: maps.vendor.entries[0]", "program egress is attached to a cgroup, where ${ifindex} has no value"})
	_, err = prepare(t, plain+"  vendor:\n    entries:\n      - {key: 1, value: \"${ifindex}\"}\n")
	wantErrors(t, err, []string{"p.yaml:7: maps.vendor.entries[0]", "program egress is attached to a cgroup, where ${ifindex} has no value"})
}
