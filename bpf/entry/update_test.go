// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

func allow() asm.Instructions { return asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()} }

// newUpdate is a pod with the first version of a policy attached.
func newUpdate(t *testing.T, first *specs.Plan) (*fixture, *versions, *pod) {
	t.Helper()
	v := newVersions()
	v.apply(first)
	f := newFixture(t, nil)
	f.Plans = v
	p := newPod(t, "web", "lpupd0")
	f.start(t, p)
	return f, v, p
}

func (p *pod) place() pin.Place { return pin.ContainerEntry(p.key, "p") }

// Every kind of link gets the new program, stays the same link, and the maps are kept.
func TestUpdate(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, every()...))
	if ok := connected(t, p.dir, 3, 53); ok != 3 {
		t.Fatalf("%d of 3 connects", ok)
	}
	before, counts := f.state(t), f.mapID(t, p.place(), "counts")
	to := v.apply(version("update_new", []uint32{53}, every()...))
	if s := f.fresh(); s.Standing(f.record(t, p.place())) != StandingOutdated {
		t.Error("the entry is not outdated")
	}
	r := f.update(t, OutcomeUpdated)
	if r.Swapped != 5 || r.Added+r.Removed != 0 || len(r.Migrated) != 0 {
		t.Errorf("%+v", r)
	}
	if ok := connected(t, p.dir, 4, 53); ok != 4 {
		t.Errorf("%d of 4 connects", ok)
	}
	if one, two := f.counted(t, p.place(), 1), f.counted(t, p.place(), 2); one != 3 || two != 4 {
		t.Errorf("counted %d and %d, want 3 and 4", one, two)
	}
	if id := f.mapID(t, p.place(), "counts"); id != counts {
		t.Error("the map of counters is another one")
	}
	after := f.state(t)
	for line := range strings.Lines(before) {
		for _, word := range strings.Fields(line)[2:] {
			part := strings.Split(word, ":")
			if strings.Contains(after, word) || !strings.Contains(after, part[0]+":"+part[1]+":") {
				t.Errorf("link and program %s before; after:\n%s", word, after)
			}
		}
	}
	rec := f.record(t, p.place())
	if rec.Digest != to || rec.Updated.IsZero() || rec.By != pin.ByHook {
		t.Errorf("record %+v", rec)
	}
	f.inOrder(t)
	f.update(t, OutcomeCurrent)
}

func (f *fixture) record(t testing.TB, p pin.Place) *pin.Record {
	t.Helper()
	rec, err := f.readRecord(p)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// Maps that can't be kept take over what the running ones hold.
func TestUpdateMigrates(t *testing.T) {
	hundred := uint32(100)
	bigger := version("update_new", []uint32{53}, inCgroup()...)
	bigger.Maps[0].MaxEntries = &hundred
	grown := version("update_grown", []uint32{53}, inCgroup()...)
	lru := version("update_new", []uint32{53}, inCgroup()...)
	kind := uint32(ebpf.LRUHash)
	lru.Maps[0].Type = &kind
	for name, to := range map[string]*specs.Plan{"max_entries": bigger, "fields": grown, "type": lru} {
		t.Run(name, func(t *testing.T) {
			f, v, p := newUpdate(t, version("update_old", []uint32{53}, inCgroup()...))
			connected(t, p.dir, 3, 53)
			v.apply(to)
			r := f.update(t, OutcomeUpdated)
			if !strings.Contains(strings.Join(r.Migrated, " "), "counts") {
				t.Errorf("migrated %v", r.Migrated)
			}
			connected(t, p.dir, 4, 53)
			if one, two := f.counted(t, p.place(), 1), f.counted(t, p.place(), 2); one != 3 || two != 4 {
				t.Errorf("counted %d and %d, want 3 and 4", one, two)
			}
			f.withMap(t, p.place(), ".bss", func(m *ebpf.Map) {
				b, err := m.LookupBytes(uint32(0))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Contains(b, []byte{7, 0, 0, 0, 0, 0, 0, 0}) {
					t.Errorf("the variable seen in .bss is not 7: %v", b)
				}
			})
			f.withMap(t, p.place(), "per_cpu", func(m *ebpf.Map) {
				var each []uint64
				if err := m.Lookup(uint32(0), &each); err != nil {
					t.Fatal(err)
				}
				sum := uint64(0)
				for _, n := range each {
					sum += n
				}
				if sum != 7 {
					t.Errorf("%d on all CPUs, want 7", sum)
				}
			})
			f.inOrder(t)
		})
	}
}

// Entries that the policy changes: at no instant does neither set of rules hold, and
// what was added at run time stays.
func TestUpdateEntries(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53, 54, 55}, inCgroup()...))
	f.withMap(t, p.place(), "ports", func(m *ebpf.Map) {
		for port, on := range map[uint32]bool{99: true, 55: false} { // by hand, or by the programs
			if on {
				if err := m.Put(number(port), number(1)); err != nil {
					t.Fatal(err)
				}
			} else if err := m.Delete(number(port)); err != nil {
				t.Fatal(err)
			}
		}
	})
	stop := traffic(t, p.dir, 53)
	allowed := map[bool]int{}
	for i := range 20 {
		ports, object := []uint32{53, 54, 55}, "update_old"
		if i%2 == 0 {
			ports, object = []uint32{53, 56, 55}, "update_new"
		}
		v.apply(version(object, ports, inCgroup()...))
		r := f.update(t, OutcomeUpdated)
		if fmt.Sprint(r.Migrated) != "[ports]" {
			t.Fatalf("migrated %v", r.Migrated)
		}
		allowed[connected(t, p.dir, 1, 54) == 1]++
		for port, want := range map[int]int{99: 1, 55: 0, 53: 1, 56: (i + 1) % 2} {
			if ok := connected(t, p.dir, 1, port); ok != want {
				t.Errorf("round %d: port %d: %d, want %d", i, port, ok, want)
			}
		}
	}
	tried, let := stop()
	if tried != let || tried == 0 {
		t.Errorf("%d of %d connects to a port of both versions were let", let, tried)
	}
	if allowed[true] != 10 || allowed[false] != 10 {
		t.Errorf("a port of one version: %v", allowed)
	}
	if sum := f.counted(t, p.place(), 1) + f.counted(t, p.place(), 2); sum != uint64(tried)+20*5 {
		t.Errorf("%d connects counted, %d made", sum, tried+20*5)
	}
	f.inOrder(t)
}

// A constant that changes takes effect, and variables keep what they are.
func TestUpdateConstants(t *testing.T) {
	with := func(n, level uint32) *specs.Plan {
		p := version("update_old", []uint32{53}, inCgroup()...)
		p.Constants = []specs.PlanConstant{{Symbol: "limit", Value: specs.Bytes{Data: number(n)}}, {Symbol: "level", Value: specs.Bytes{Data: number(level)}}}
		return p
	}
	f, v, p := newUpdate(t, with(1, 1))
	for i, step := range []struct {
		limit, level uint32
		want         int
	}{{0, 1, 0}, {1, 1, 1}, {1, 0, 0}, {1, 2, 1}} {
		v.apply(with(step.limit, step.level))
		f.update(t, OutcomeUpdated)
		if ok := connected(t, p.dir, 1, 53); ok != step.want {
			t.Errorf("step %d: %d, want %d", i, ok, step.want)
		}
	}
	if n := f.counted(t, p.place(), 1); n != 4 {
		t.Errorf("counted %d, want 4", n)
	}
}

// Attachments come and go with a version.
func TestUpdateAddsAndRemoves(t *testing.T) {
	two, all := inCgroup(), every()
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, all...))
	v.apply(version("update_new", []uint32{53}, all[0], all[3], all[4])) // without sendmsg4 and tc
	r := f.update(t, OutcomeUpdated)
	if r.Swapped != 3 || r.Removed != 2 {
		t.Errorf("%+v", r)
	}
	if n := attached(t, p.dir, ebpf.AttachCGroupUDP4Sendmsg); n != 0 {
		t.Errorf("%d programs stayed", n)
	}
	f.inOrder(t)
	v.apply(version("update_old", []uint32{53}, append(two, all[2:]...)...))
	r = f.update(t, OutcomeUpdated)
	if r.Swapped != 3 || r.Added != 2 {
		t.Errorf("%+v", r)
	}
	if n := attached(t, p.dir, ebpf.AttachCGroupUDP4Sendmsg); n != 1 {
		t.Errorf("%d programs, want 1", n)
	}
	f.inOrder(t)
	for _, it := range f.items(t) {
		for i, l := range it.Links {
			if l.Err != nil || l.Info.State != attach.Live {
				t.Errorf("%s: %s: %+v", it.Place, it.Record.Programs[i].Name, l)
			}
		}
	}
}

func (f *fixture) items(t testing.TB) []Item {
	t.Helper()
	var out []Item
	if err := f.Walk(func(it Item) error { out = append(out, it); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// What can't be updated is left as it was, all of it.
func TestUpdateRefuses(t *testing.T) {
	netfilter := program("filter", specs.HookNetfilter, func(a *specs.Attachment) {
		a.Netfilter = &specs.Netfilter{Family: "ipv4", Hook: "input", Priority: 10}
	})
	all := append(every(), netfilter)
	few := uint32(1)
	smaller := version("update_new", []uint32{53}, every()...)
	smaller.Maps[0].MaxEntries = &few
	moved := version("update_new", []uint32{53}, every()...)
	moved.Cgroup = specs.CgroupPod
	elsewhere := version("update_new", []uint32{53}, every()...)
	elsewhere.Programs = append(elsewhere.Programs, netfilter)
	for name, c := range map[string]struct {
		from, to *specs.Plan
		want     error
		text     string
	}{
		"narrower field":  {version("update_old", []uint32{53}, every()...), version("update_narrow", []uint32{53}, every()...), load.ErrNotCarried, "map counts"},
		"too small":       {version("update_old", []uint32{53}, every()...), smaller, load.ErrNotCarried, "map counts"},
		"netfilter":       {version("update_old", []uint32{53}, all...), version("update_new", []uint32{53}, all...), ErrFixedLink, "filter"},
		"cgroup: pod":     {version("update_old", []uint32{53}, every()...), moved, ErrMoved, "cgroup"},
		"nothing to hold": {version("update_old", []uint32{53}, inCgroup()...), elsewhere, ErrMoved, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, v, p := newUpdate(t, c.from)
			connected(t, p.dir, 1, 53)
			f.withMap(t, p.place(), "counts", func(m *ebpf.Map) { // more than one entry
				if err := m.Put(number(7), make([]byte, 8)); err != nil {
					t.Fatal(err)
				}
			})
			before := f.state(t)
			v.apply(c.to)
			r := f.update(t, OutcomeRefused)
			if !errors.Is(r.Err, c.want) || !strings.Contains(r.Err.Error(), c.text) || !strings.Contains(r.Err.Error(), "restart") {
				t.Errorf("refused: %v", r.Err)
			}
			if after := f.state(t); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
			f.inOrder(t)
		})
	}
}

// A netfilter link whose program and maps are the same stays as it is.
func TestUpdateKeepsWhatIsTheSame(t *testing.T) {
	netfilter := program("filter", specs.HookNetfilter, func(a *specs.Attachment) {
		a.Netfilter = &specs.Netfilter{Family: "ipv4", Hook: "input", Priority: 10}
	})
	f, v, _ := newUpdate(t, version("update_old", []uint32{53}, append(every(), netfilter)...))
	other := version("update_old", []uint32{53}, append(every(), netfilter)...)
	other.OnError, other.Teardown = specs.Allow, specs.Detach
	v.apply(other)
	before := f.state(t)
	r := f.update(t, OutcomeUpdated)
	if r.Swapped+r.Added+r.Removed != 0 {
		t.Errorf("%+v", r)
	}
	after := f.state(t)
	for line := range strings.Lines(before) {
		links := strings.Join(strings.Fields(line)[2:], " ")
		if !strings.Contains(after, links) {
			t.Errorf("before %s, after:\n%s", links, after)
		}
	}
	for _, it := range f.items(t) {
		if it.Record.OnError != specs.Allow || it.Record.Teardown != specs.Detach {
			t.Errorf("%s: %+v", it.Place, it.Record)
		}
	}
}

// A dry run says what would be done, and does nothing.
func TestUpdateDryRun(t *testing.T) {
	f, v, _ := newUpdate(t, version("update_old", []uint32{53}, every()...))
	v.apply(version("update_new", []uint32{54}, every()...))
	before := f.state(t)
	out, err := f.fresh().Update(context.Background(), UpdateOptions{Policies: []string{"p"}, Mode: UpdateDryRun})
	if err != nil || len(out) != 1 || out[0].Outcome != OutcomeWouldUpdate || out[0].Swapped != 5 || len(out[0].Migrated) == 0 {
		t.Errorf("%+v, %v", out, err)
	}
	if after := f.state(t); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

// What the policy does not choose any more is left as it is.
func TestUpdateUnselected(t *testing.T) {
	f, v, _ := newUpdate(t, version("update_old", nil, every()...))
	v.apply(version("update_new", nil, every()...))
	before := f.state(t)
	out, err := f.fresh().Update(context.Background(), UpdateOptions{Policies: []string{"p"}, Selects: func(policy string, id specs.Identity) bool {
		return policy != "p" || id.ContainerID != "web"
	}})
	if err != nil || len(out) != 1 || out[0].Outcome != OutcomeUnselected {
		t.Errorf("%+v, %v", out, err)
	}
	if after := f.state(t); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

// A container that somebody is at work on is refused, the others go on.
func TestUpdateBusy(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", nil, inCgroup()...))
	other := newPod(t, "other", "lpupd1")
	f.start(t, other)
	v.apply(version("update_new", nil, inCgroup()...))
	root, err := pin.Open(pin.Options{Path: f.mount()})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	l, err := root.TryLock(pin.Container(p.key))
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.fresh().Update(context.Background(), UpdateOptions{Policies: []string{"p"}})
	if err != nil || len(out) != 2 {
		t.Fatalf("%v, %v", out, err)
	}
	for _, r := range out {
		busy := strings.Contains(r.Name(), "web")
		if busy != (r.Outcome == OutcomeRefused) || busy && !errors.Is(r.Err, pin.ErrDeadline) {
			t.Errorf("%s: %s: %v", r.Name(), r.Outcome, r.Err)
		}
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
}

// Two updates at once, to two versions: one after the other.
func TestUpdatesAtOnce(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, every()...))
	stop := traffic(t, p.dir, 53)
	v.apply(version("update_new", []uint32{53}, every()...))
	var all sync.WaitGroup
	for range 4 {
		root, err := pin.Open(pin.Options{Path: f.mount()})
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		all.Go(func() {
			s := &Session{Root: root, Plans: v, By: pin.ByCLI}
			out, err := s.Update(context.Background(), UpdateOptions{Policies: []string{"p"}})
			if err != nil || len(out) != 1 || out[0].Err != nil {
				t.Errorf("%+v, %v", out, err)
			}
		})
	}
	all.Wait()
	f.update(t, OutcomeCurrent)
	f.inOrder(t)
	if tried, let := stop(); tried != let || f.counted(t, p.place(), 1)+f.counted(t, p.place(), 2) != uint64(tried) {
		t.Errorf("%d of %d connects, counted %d and %d", let, tried, f.counted(t, p.place(), 1), f.counted(t, p.place(), 2))
	}
}
