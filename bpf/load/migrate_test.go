// SPDX-License-Identifier: Apache-2.0

package load

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// successor is a policy over a version of succeed.h with one program.
func successor(object, symbol string, hook specs.Hook) *specs.Plan {
	return &specs.Plan{
		Name:    "test",
		Objects: []specs.PlanObject{{SHA256: object + ".bpf.o", Origin: object}},
		Programs: []specs.PlanProgram{{
			Key: symbol, Symbol: symbol, Hook: hook,
			Attachments: []specs.Attachment{{Name: symbol, Hook: hook}},
		}},
	}
}

// running is a loaded version and its only program's tag.
type running struct {
	*Collection
	plan *specs.Plan
	tag  string
}

func runs(t *testing.T, p *specs.Plan) *running {
	t.Helper()
	c := mustLoad(t, options(p))
	r := &running{Collection: c, plan: p}
	for _, prog := range c.Programs {
		info, err := prog.Info()
		if err != nil {
			t.Fatal(err)
		}
		r.tag = info.Tag
	}
	return r
}

func (r *running) succeed(t *testing.T, p *specs.Plan) (*Succession, error) {
	t.Helper()
	key := p.Programs[0].Key
	s, err := Succeed(t.Context(), Options{
		Plan: p, Attach: []string{key},
		Object: func(name string) ([]byte, error) { return os.ReadFile("testdata/" + name) },
	}, Predecessor{Plan: r.plan, Attach: []string{key}, Maps: r.Maps})
	if err == nil {
		t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

func (r *running) mustSucceed(t *testing.T, p *specs.Plan) *Succession {
	t.Helper()
	s, err := r.succeed(t, p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The kernel's tag says nothing of which maps, variables and functions of the kernel a
// program is about, nor how it is loaded.
func TestUnchanged(t *testing.T) {
	const cgroup = specs.Hook("cgroup_skb/egress")
	for _, tc := range []struct {
		symbol string
		hook   specs.Hook
		same   bool // in the other version
	}{
		{"maps", cgroup, false},
		{"below", cgroup, false},
		{"variable", cgroup, false},
		{"kernel", cgroup, false}, // in doubt
		{"traced", specs.HookFentry, false},
		{"guarded", specs.HookLSMCgroup, false},
		{"opened", specs.HookLSM, false},
	} {
		t.Run(tc.symbol, func(t *testing.T) {
			if tc.hook.InSection() {
				bpftest.NeedKernel(t, 6, 0, "LSM programs of cgroups")
			}
			old := runs(t, successor("succeed_old", tc.symbol, tc.hook))
			for object, want := range map[string]bool{"succeed_old": true, "succeed_new": tc.same} {
				s := old.mustSucceed(t, successor(object, tc.symbol, tc.hook))
				info, err := s.Programs[tc.symbol].Info()
				if err != nil {
					t.Fatal(err)
				}
				if info.Tag != old.tag {
					t.Fatalf("%s: tags %s and %s: this tests nothing", object, old.tag, info.Tag)
				}
				if got := s.Unchanged(tc.symbol, tc.symbol, old.tag); got != want {
					t.Errorf("%s: unchanged %v, want %v", object, got, want)
				}
				if got := s.SameSection(tc.symbol, tc.symbol); got != (want || tc.symbol != "traced" && tc.symbol != "guarded") {
					t.Errorf("%s: same section: %v", object, got)
				}
			}
		})
	}
}

// A map of maps is another one when its maps change places.
func TestNestedMapsChangePlaces(t *testing.T) {
	old := runs(t, successor("succeed_old", "nested", "cgroup_skb/egress"))
	old.mustSucceed(t, successor("succeed_old", "nested", "cgroup_skb/egress"))
	_, err := old.succeed(t, successor("succeed_new", "nested", "cgroup_skb/egress"))
	if !errors.Is(err, ErrNotCarried) || !strings.Contains(err.Error(), "map outer") {
		t.Errorf("%v", err)
	}
}

// A variable gets what the new version starts with, unless the programs, somebody else
// or the policy has said what it is.
func TestSectionStartsAnew(t *testing.T) {
	const hook = specs.Hook("cgroup_skb/egress")
	with := func(object string, constants ...specs.PlanConstant) *specs.Plan {
		p := successor(object, "starts", hook)
		p.Constants = constants
		return p
	}
	constant := func(symbol string, n uint32) specs.PlanConstant {
		return specs.PlanConstant{Symbol: symbol, Value: specs.Bytes{Data: u32(n)}}
	}
	for name, tc := range map[string]struct {
		from, to *specs.Plan
		kept     bool
		want     map[string]uint32
	}{
		"another start": {with("succeed_old"), with("succeed_new"), false, map[string]uint32{"tuned": 2, "touched": 9, "steady": 5}},
		"the same":      {with("succeed_old"), with("succeed_old"), true, map[string]uint32{"tuned": 1, "touched": 9, "steady": 5}},
		"the policy says it": {
			with("succeed_old", constant("tuned", 7)), with("succeed_new", constant("tuned", 7)), false,
			map[string]uint32{"tuned": 7, "touched": 9, "steady": 5},
		},
		"the policy said it": {
			with("succeed_old", constant("tuned", 7), constant("steady", 6)), with("succeed_new"), false,
			map[string]uint32{"tuned": 2, "touched": 9, "steady": 5},
		},
	} {
		t.Run(name, func(t *testing.T) {
			old := runs(t, tc.from)
			data, vars := old.Maps[".data"], map[string]Variable{}
			obj, err := newLoader(t.Context(), options(tc.from)).object("")
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range variablesIn(obj, ".data") {
				vars[v.Name] = v
			}
			b, err := data.LookupBytes(uint32(0))
			if err != nil {
				t.Fatal(err)
			}
			binary.NativeEndian.PutUint32(b[vars["touched"].Offset:], 9)
			if err := data.Put(uint32(0), b); err != nil {
				t.Fatal(err)
			}
			s := old.mustSucceed(t, tc.to)
			if kept := slices.Contains(s.Kept, ".data"); kept != tc.kept {
				t.Errorf("kept %v, migrated %v", s.Kept, s.Migrated)
			}
			if err := s.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if b, err = s.Maps[".data"].LookupBytes(uint32(0)); err != nil {
				t.Fatal(err)
			}
			for name, want := range tc.want {
				if got := binary.NativeEndian.Uint32(b[vars[name].Offset:]); got != want {
					t.Errorf("%s is %d, want %d", name, got, want)
				}
			}
		})
	}
}

// Where only one version names the fields, nobody knows whether they are the same.
func TestFieldsThatNobodyNames(t *testing.T) {
	const hook = specs.Hook("cgroup_skb/egress")
	sized := func(object, symbol, name string, size uint32) *specs.Plan {
		p := successor(object, symbol, hook)
		p.Maps = []specs.PlanMap{{Name: name, Members: []specs.MapRef{{Symbol: name}}, ValueSize: &size}}
		return p
	}
	for name, tc := range map[string]struct {
		from, to *specs.Plan
		ok       bool
	}{
		"the running version":     {successor("succeed_old", "looks", hook), successor("succeed_new", "looks", hook), false},
		"the new version":         {successor("succeed_new", "looks", hook), successor("succeed_old", "looks", hook), false},
		"neither":                 {successor("succeed_old", "looks_anyway", hook), successor("succeed_new", "looks_anyway", hook), true},
		"the policy has the size": {successor("succeed_old", "looks_anyway", hook), sized("succeed_new", "looks_anyway", "untyped", 8), false},
		"both policies have it":   {sized("succeed_old", "looks", "typed", 16), sized("succeed_new", "looks", "typed", 16), true},
	} {
		t.Run(name, func(t *testing.T) {
			old := runs(t, tc.from)
			s, err := old.succeed(t, tc.to)
			if tc.ok {
				if err != nil || len(s.Kept) != 1 {
					t.Errorf("%v", err)
				}
				return
			}
			var f *fault.Error
			if !errors.Is(err, ErrNotCarried) || !errors.As(err, &f) || !strings.Contains(err.Error(), "restart") || !strings.Contains(err.Error(), "BTF") {
				t.Errorf("%v", err)
			}
		})
	}
}
