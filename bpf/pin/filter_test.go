// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"reflect"
	"testing"

	"github.com/linkpin/linkpin/specs"
)

func someFilters(priority uint16) Filters {
	return Filters{
		Version: RecordVersion, Sandbox: SandboxKey("4f"), Netns: &NetnsRecord{Path: "/run/netns/x", Inode: 1, Cookie: 2},
		Programs: []ProgramRecord{{
			Name: "in", Hook: specs.HookTCXIngress, Side: specs.SideHost, Ifindex: 3, ProgramID: 4, Tag: "ab",
			Filter: &FilterRecord{Priority: priority, Handle: 5, Protocol: "all", Name: "linkpin:p/in", MadeQdisc: true},
		}},
	}
}

// The note of filters is there before the entry, stays in it, and can be replaced.
func TestFilters(t *testing.T) {
	r := newRoot(t)
	p := InterfaceEntry(SandboxKey("4f"), "n", "eth0", "p")
	l := lock(t, r, Sandbox(SandboxKey("4f")))
	defer release(t, l)
	s := stage(t, r, "p")
	must(t, s.WriteFilters(someFilters(1)))
	must(t, s.WriteFilters(someFilters(2)))
	must(t, s.PinProgram("in", newMap(t)))
	must(t, s.Publish(p))
	if err := s.WriteFilters(someFilters(3)); !errors.Is(err, ErrNotExist) {
		t.Errorf("after Publish: %v", err)
	}
	dir := p.String() + "/"
	wantTree(t, r, "sandboxes/4f", "sandboxes/4f/net_n", "sandboxes/4f/net_n/eth0", p.String(),
		dir+"filters", dir+"link_egress%402", dir+"link_ingress", dir+"map_allow", dir+"meta", dir+"prog_in")
	is := func(priority uint16) {
		t.Helper()
		e := entry(t, r, p)
		note, err := e.Filters()
		if err != nil || !e.HasFilters() || !reflect.DeepEqual(note, someFilters(priority)) {
			t.Errorf("%+v, %v", note, err)
		}
	}
	is(2)
	must(t, entry(t, r, p).ReplaceFilters(someFilters(3)))
	must(t, entry(t, r, p).ReplaceProgram("in", newMap(t)))
	is(3)
	if odd, err := r.Oddities(); err != nil || len(odd) > 0 {
		t.Errorf("odd: %+v, %v", odd, err)
	}
	must(t, entry(t, r, p).Remove())
	publishUnlocked := stage(t, r, "p")
	must(t, publishUnlocked.Publish(p))
	if e := entry(t, r, p); e.HasFilters() {
		t.Error("filters of an entry that has none")
	} else if _, err := e.Filters(); !errors.Is(err, ErrNoRecord) {
		t.Errorf("without a note: %v", err)
	}
}

// A sweep acts on the note of what was being built, and on no note that was only about
// to replace that of a living entry.
func TestRemoveStagingFilters(t *testing.T) {
	r := newRoot(t)
	abandoned := func(write func(*Staging) error) string {
		t.Helper()
		s, err := r.Stage()
		if err != nil {
			t.Fatal(err)
		}
		must(t, write(s))
		if err := r.RemoveStagingFilters(s.name, func(Filters) error { t.Error("undone while its maker lives"); return nil }); !errors.Is(err, ErrBusy) {
			t.Errorf("while its maker lives: %v", err)
		}
		s.Leave()
		s.Leave()
		must(t, s.Discard())
		return s.name
	}
	failed := errors.New("failed")
	var undone []Filters
	name := abandoned(func(s *Staging) error { return s.WriteFilters(someFilters(1)) })
	if err := r.RemoveStagingFilters(name, func(Filters) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("%v, want the error of undo", err)
	}
	undo := func(f Filters) error { undone = append(undone, f); return nil }
	must(t, r.RemoveStagingFilters(name, undo))
	if len(undone) != 1 || !reflect.DeepEqual(undone[0], someFilters(1)) {
		t.Errorf("undone: %+v", undone)
	}
	undone = nil
	for _, write := range []func(*Staging) error{
		func(s *Staging) error { return s.pinFilters(someFilters(1)) },
		func(s *Staging) error { return s.PinMap("m", newMap(t)) },
		func(s *Staging) error { return s.pinFile(filtersFile, newMap(t)) }, // not one of ours
	} {
		must(t, r.RemoveStagingFilters(abandoned(write), undo))
	}
	if undone != nil {
		t.Errorf("undone: %+v", undone)
	}
	wantTree(t, r)
}
