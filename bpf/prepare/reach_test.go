// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"slices"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs"
)

// The object fills the slot itself, and its target says frags where its caller
// does not.
func TestSlotsOfTheObject(t *testing.T) {
	p := must(t, "object: {file: tail.bpf.o}\nprograms: {entry: {}}\n")
	if got, want := keys(p), []string{"entry", "filled_target"}; !slices.Equal(got, want) {
		t.Fatalf("programs %v, want %v", got, want)
	}
	target := programOf(t, p, "filled_target")
	if len(target.Attachments) != 0 || target.Frags || target.Hook != specs.HookXDP {
		t.Errorf("%+v", target)
	}
	e := mapOf(t, p, "filled").Entries
	if len(e) != 1 || string(e[0].Key.Data) != u32(1) || e[0].Program != "filled_target" {
		t.Errorf("%+v", e)
	}
	if _, err := p.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// The policy's programs come first, the object's stay in the other slots.
func TestSlotsOfThePolicy(t *testing.T) {
	p := must(t, "object: {file: tail.bpf.o}\nprograms: {entry: {}}\nmaps: {filled: {programs: {0: filled_target, 1: entry}}}\n")
	var got []string
	for _, e := range mapOf(t, p, "filled").Entries {
		got = append(got, string(e.Key.Data)+e.Program)
	}
	if want := []string{u32(0) + "filled_target", u32(1) + "entry"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestEmptySlots(t *testing.T) {
	p, err := prepare(t, "object: {file: tail.bpf.o}\nprograms: {caller: {}}\n")
	if err != nil {
		t.Fatal(err)
	}
	wantWarnings(t, p, []string{"program caller tail-calls through map empty, which holds no program", "maps: {empty: {programs: …}}"})
}

// Targets take their type from the caller, also those of another object, and
// those whose section says nothing.
func TestSlotsAcrossObjects(t *testing.T) {
	p := must(t, "objects: {a: {file: tail.bpf.o}, b: {file: other.bpf.o}}\n"+
		"programs: {a/caller: {}}\nmaps: {empty: {programs: {0: b/far, 1: step}}}\n")
	if got, want := keys(p), []string{"a/caller", "b/far", "a/step"}; !slices.Equal(got, want) {
		t.Errorf("programs %v, want %v", got, want)
	}
	if s := programOf(t, p, "a/step"); s.Hook != specs.HookTCXEgress {
		t.Errorf("%+v", s)
	}
	if unchecked, err := p.Verify(t.Context()); err != nil || len(unchecked) > 0 {
		t.Errorf("%v %v", unchecked, err)
	}
}

// A program that is attached and called, in two ways, is loaded twice.
func TestTargetThatIsAttachedToo(t *testing.T) {
	p := must(t, "object: {file: tail.bpf.o}\nprograms: {entry: {frags: false}, filled_target: {side: host}}\n")
	if got, want := keys(p), []string{"entry", "filled_target", "filled_target#2"}; !slices.Equal(got, want) {
		t.Fatalf("programs %v, want %v", got, want)
	}
	if e := mapOf(t, p, "filled").Entries; len(e) != 1 || e[0].Program != "filled_target#2" {
		t.Errorf("%+v", e)
	}
}

// Where no programs are named, a tail-call target is not attached.
func TestTargetsAreNotAttached(t *testing.T) {
	p, err := prepare(t, "object: {file: tail.bpf.o}\nmaps: {empty: {programs: {0: step}}}\nprograms: {caller: {}, entry: {}}\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(programOf(t, p, "step").Attachments)+len(programOf(t, p, "filled_target").Attachments) != 0 {
		t.Errorf("%+v", p.Plan.Programs)
	}

	q := must(t, "object: {file: wild.bpf.o}\nmaps: {calls: {programs: {0: wild}}}\n")
	if got, want := keys(q), []string{"tame", "wild"}; !slices.Equal(got, want) || len(programOf(t, q, "wild").Attachments) > 0 {
		t.Errorf("programs %+v", q.Plan.Programs)
	}
	// Its only caller is the target itself.
	_, err = prepare(t, "object: {file: wild.bpf.o}\nmaps: {calls: {programs: {0: tame}}}\n")
	wantErrors(t, err, []string{"p.yaml:2: maps.calls", "program tame is a tail-call target in map calls, which no attached program uses"})
}

func TestSlotErrors(t *testing.T) {
	for _, tc := range []struct{ name, programs, slots, want string }{
		{"unknown program", "caller: {}", "0: nobody", "p.yaml:3: maps.empty.programs"},
		{"no such slot", "caller: {}", "2: step", "map empty has 2 slots, so there is no slot 2"},
		{"another type", "caller: {}", "0: entry", "program entry is XDP and its caller caller is SchedCLS: the kernel refuses tail calls between types"},
		{"two callers of two types", "caller: {}, sock_caller: {}", "0: step", "both tail-call through map empty and differ in type or frags"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := prepare(t, "object: {file: tail.bpf.o}\nprograms: {"+tc.programs+"}\nmaps: {empty: {programs: {"+tc.slots+"}}}\n")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v\nwant %s", err, tc.want)
			}
		})
	}
}

// attach: none says nothing about how the program is loaded: the caller does.
func TestLoadOnlyTarget(t *testing.T) {
	p := must(t, "object: {file: tail.bpf.o}\nprograms:\n  entry: {}\n  caller: {}\n  filled_target: {attach: none}\n  step: {attach: none}\n"+
		"maps: {empty: {programs: {0: step}}}\n")
	if got, want := keys(p), []string{"entry", "caller", "filled_target", "step"}; !slices.Equal(got, want) {
		t.Errorf("programs %v, want %v", got, want)
	}
	if s := programOf(t, p, "step"); s.Hook != specs.HookTCXEgress || p.places["step"].Line != 6 {
		t.Errorf("%+v at line %d", s, p.places["step"].Line)
	}

	// Said explicitly, it stays, and the kernel refuses it.
	q := must(t, "object: {file: tail.bpf.o}\nprograms:\n  entry: {}\n  filled_target: {attach: none, frags: true}\n")
	if !programOf(t, q, "filled_target").Frags || len(q.Plan.Programs) != 2 {
		t.Errorf("%+v", q.Plan.Programs)
	}
	_, err := q.Verify(t.Context())
	wantErrors(t, err, []string{"p.yaml:3: programs.entry", "must have the type, the attach type (since 6.18) and the frags setting"})
}

// loadAs wins over what the caller is.
func TestLoadAs(t *testing.T) {
	p := must(t, "object: {file: tail.bpf.o}\nprograms: {caller: {}, step: {attach: none, loadAs: tcx/ingress}}\nmaps: {empty: {programs: {0: step}}}\n")
	if s := programOf(t, p, "step"); s.Hook != specs.HookTCXIngress {
		t.Errorf("%+v", s)
	}
	if _, err := p.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}
