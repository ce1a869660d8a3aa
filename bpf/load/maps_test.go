// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/specs"
)

func TestMapWithoutSize(t *testing.T) {
	p := plan(program("read_verdict"))
	p.Maps = nil
	_, err := Load(t.Context(), options(p))
	wantError(t, err, "policy test: map verdicts", "MaxEntries")
}

func TestOverrides(t *testing.T) {
	p := plan(program("read_verdict"))
	m := &p.Maps[0]
	m.Type, m.Flags, m.ValueSize = new(uint32(ebpf.LRUHash)), new(uint32(0)), new(uint32(8))
	m.Entries = []specs.PlanEntry{{Key: specs.Bytes{Data: u32(7)}, Value: specs.Bytes{Data: u64(12)}}}
	c := mustLoad(t, options(p))
	got := c.Maps["verdicts"]
	if got.Type() != ebpf.LRUHash || got.MaxEntries() != 16 || got.ValueSize() != 8 {
		t.Errorf("map is %s", got)
	}
	wantRun(t, c, "read_verdict", 12)
}

func TestEntriesOnEveryCPU(t *testing.T) {
	p := plan(program("read_counter"))
	p.Maps = append(p.Maps, specs.PlanMap{
		Name: "counters", Members: []specs.MapRef{{Symbol: "counters"}},
		Entries: []specs.PlanEntry{{Key: specs.Bytes{Data: u32(1)}, Value: specs.Bytes{Data: u64(500)}}},
	})
	c := mustLoad(t, options(p))
	var values []uint64
	if err := c.Maps["counters"].Lookup(uint32(1), &values); err != nil {
		t.Fatal(err)
	}
	if len(values) != ebpf.MustPossibleCPU() || slices.Min(values) != 500 || slices.Max(values) != 500 {
		t.Errorf("values %v", values)
	}
	wantRun(t, c, "read_counter", 500)
}

func TestEntryThatDoesNotFit(t *testing.T) {
	p := plan(program("read_verdict"))
	p.Maps[0].MaxEntries = new(uint32(1))
	for i := range uint32(2) {
		p.Maps[0].Entries = append(p.Maps[0].Entries, specs.PlanEntry{Key: specs.Bytes{Data: u32(i)}, Value: specs.Bytes{Data: u32(1)}})
	}
	_, err := Load(t.Context(), options(p))
	wantError(t, err, "policy test: map verdicts: entry 2")
}

// More entries than fit into one call, and the first that does not fit into the map.
func TestManyEntries(t *testing.T) {
	p := plan(program("read_verdict"))
	const many = 2*batch + 100
	p.Maps[0].MaxEntries = new(uint32(many))
	for i := range uint32(many) {
		p.Maps[0].Entries = append(p.Maps[0].Entries, specs.PlanEntry{Key: specs.Bytes{Data: u32(i)}, Value: specs.Bytes{Data: u32(i + 1)}})
	}
	c := mustLoad(t, options(p))
	for i := range uint32(many) {
		var got uint32
		if err := c.Maps["verdicts"].Lookup(i, &got); err != nil || got != i+1 {
			t.Fatalf("entry %d is %d: %v", i, got, err)
		}
	}
	wantRun(t, c, "read_verdict", 8)

	p.Maps[0].MaxEntries = new(uint32(many - 50))
	_, err := Load(t.Context(), options(p))
	wantError(t, err, fmt.Sprintf("map verdicts: entry %d", many-49))
}

// A map type without a batch call.
func TestQueue(t *testing.T) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Queue, ValueSize: 4, MaxEntries: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if n, err := putAll(m, [][]byte{nil, nil}, [][]byte{u32(1), u32(2)}); n != 2 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	var got uint32
	if err := m.LookupAndDelete(nil, &got); err != nil || got != 1 {
		t.Errorf("%d, %v", got, err)
	}
	d, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.DevMapHash, KeySize: 4, ValueSize: 4, MaxEntries: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if n, err := putAll(d, [][]byte{u32(1), u32(2)}, [][]byte{u32(1), u32(1)}); n != 2 || err != nil {
		t.Errorf("one by one: %d, %v", n, err)
	}
}

func TestMapOfMaps(t *testing.T) {
	p := plan(program("read_inner"))
	p.Maps = append(p.Maps, specs.PlanMap{
		Name: "inner", Members: []specs.MapRef{{Symbol: "inner"}},
		Entries: []specs.PlanEntry{{Key: specs.Bytes{Data: u32(0)}, Value: specs.Bytes{Data: u32(31)}}},
	})
	c := mustLoad(t, options(p))
	wantRun(t, c, "read_inner", 31)
	if got := slices.Sorted(maps.Keys(c.Maps)); !slices.Equal(got, []string{"inner", "outer"}) {
		t.Errorf("maps %v", got)
	}
}

func TestInnerTemplate(t *testing.T) {
	p := plan(program("read_bare"))
	if _, err := Load(t.Context(), options(p)); err == nil {
		t.Error("no error without an inner map")
	}
	p.Maps = append(p.Maps, specs.PlanMap{
		Name: "bare_outer", Members: []specs.MapRef{{Symbol: "bare_outer"}},
		Inner: &specs.PlanInner{Type: uint32(ebpf.Array), KeySize: 4, ValueSize: 4, MaxEntries: 1},
	})
	wantRun(t, mustLoad(t, options(p)), "read_bare", 0)
}

// slots is the plan of the program array.
func slots(target string) specs.PlanMap {
	return specs.PlanMap{
		Name: "slots", Members: []specs.MapRef{{Symbol: "slots"}},
		Entries: []specs.PlanEntry{{Key: specs.Bytes{Data: u32(0)}, Program: target}},
	}
}

// The target comes along though nobody names it, and its section's attach type is
// another one than its caller's.
func TestTailCall(t *testing.T) {
	p := plan(program("jump"), program("landing"), program("read_limit"))
	p.Maps = append(p.Maps, slots("landing"))
	o := options(p)
	o.Programs = []string{"jump"}
	c := mustLoad(t, o)
	wantRun(t, c, "jump", 42)
	if got := slices.Sorted(maps.Keys(c.Programs)); !slices.Equal(got, []string{"jump", "landing"}) {
		t.Errorf("programs %v", got)
	}
}

func TestTailCallIntoAnotherObject(t *testing.T) {
	p := twoObjects(specs.PlanProgram{Key: "a/jump", Object: "a", Symbol: "jump"},
		specs.PlanProgram{Key: "b/far_landing", Object: "b", Symbol: "far_landing"})
	s := slots("b/far_landing")
	s.Members[0].Object = "a"
	p.Maps = append(p.Maps, s)
	o := options(p)
	o.Programs = []string{"a/jump"}
	wantRun(t, mustLoad(t, o), "a/jump", 43)
}

func TestSlotOfAnotherType(t *testing.T) {
	p := plan(program("jump"), program("pass"))
	p.Maps = append(p.Maps, slots("pass"))
	_, err := Load(t.Context(), options(p))
	wantError(t, err, "map slots: program pass", "must have the type")
}

// twoObjects is a policy over basic.bpf.o as "a" and second.bpf.o as "b", which
// share the map verdicts.
func twoObjects(programs ...specs.PlanProgram) *specs.Plan {
	p := plan(programs...)
	p.Objects = []specs.PlanObject{{Name: "a", SHA256: "basic.bpf.o"}, {Name: "b", SHA256: "second.bpf.o"}}
	p.Maps[0].Members = []specs.MapRef{{Object: "a", Symbol: "verdicts"}, {Object: "b", Symbol: "verdicts"}}
	return p
}

func TestSharedMap(t *testing.T) {
	p := twoObjects(specs.PlanProgram{Key: "a/read_verdict", Object: "a", Symbol: "read_verdict"},
		specs.PlanProgram{Key: "b/write_verdict", Object: "b", Symbol: "write_verdict"})
	p.Constants = []specs.PlanConstant{{Object: "b", Symbol: "limit", Value: specs.Bytes{Data: u32(8)}}}
	c := mustLoad(t, options(p))
	wantRun(t, c, "b/write_verdict", 8)
	wantRun(t, c, "a/read_verdict", 99)
	if got := slices.Sorted(maps.Keys(c.Maps)); !slices.Equal(got, []string{"b/.rodata", "verdicts"}) {
		t.Errorf("maps %v", got)
	}
}

// An object whose programs are not wanted is not even read.
func TestUnusedObjectIsNotRead(t *testing.T) {
	p := twoObjects(specs.PlanProgram{Key: "a/read_verdict", Object: "a", Symbol: "read_verdict"})
	p.Objects[1].SHA256 = "does-not-exist"
	mustLoad(t, options(p))
}

func TestSharedMapThatDiffers(t *testing.T) {
	p := twoObjects(specs.PlanProgram{Key: "a/read_verdict", Object: "a", Symbol: "read_verdict"},
		specs.PlanProgram{Key: "b/write_verdict", Object: "b", Symbol: "write_verdict"})
	p.Maps[0].MaxEntries = nil
	_, err := Load(t.Context(), options(p))
	wantError(t, err, "map verdicts", "disagree about its maxEntries")
}

func TestReuse(t *testing.T) {
	p := plan(program("read_verdict"), program("jump"), program("landing"))
	p.Maps[0].Entries = []specs.PlanEntry{{Key: specs.Bytes{Data: u32(7)}, Value: specs.Bytes{Data: u32(5)}}}
	p.Maps = append(p.Maps, slots("landing"))
	first := mustLoad(t, options(p))
	if err := first.Maps["verdicts"].Put(uint32(7), uint32(6)); err != nil {
		t.Fatal(err)
	}

	o := options(p)
	o.Programs, o.Maps = []string{"read_verdict", "jump"}, first.Maps
	second := mustLoad(t, o)
	wantRun(t, second, "read_verdict", 6)
	wantRun(t, second, "jump", 42)
	if second.Programs["landing"] != nil {
		t.Error("a slot of an existing program array was loaded again")
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	// The caller's maps are still open.
	wantRun(t, first, "read_verdict", 6)
	if err := first.Maps["verdicts"].Put(uint32(7), uint32(4)); err != nil {
		t.Error(err)
	}
}

func TestReuseOfAnotherShape(t *testing.T) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 17})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	o := options(plan(program("read_verdict")))
	o.Maps = map[string]*ebpf.Map{"verdicts": m}
	_, err = Load(t.Context(), o)
	wantError(t, err, "map verdicts", "MaxEntries: 17 changed to 16")
	if !strings.Contains(err.Error(), "restart the container") {
		t.Errorf("no remedy in %q", err)
	}
}
