// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// Hooks give up after pin.LockTimeout: programs are loaded without the locks.
func TestUpdateLoadsWithoutLocks(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, inCgroup()...))
	v.apply(version("update_new", []uint32{53}, inCgroup()...))
	root, err := pin.Open(pin.Options{Path: f.mount()})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	free := func() bool {
		l, err := root.TryLock(pin.Container(p.key))
		if err != nil {
			return false
		}
		return l.Release() == nil
	}
	s := f.fresh()
	var since time.Time
	steps := map[string]bool{}
	s.step = func(step string) {
		steps[step] = free()
		switch step {
		case "locked":
			since = time.Now()
		case "released":
			t.Logf("the locks of a unit were held for %s", time.Since(since))
		}
	}
	if out, err := s.Update(t.Context(), UpdateOptions{Policies: []string{"p"}}); err != nil || len(out) != 1 || out[0].Outcome != OutcomeUpdated {
		t.Fatalf("%+v, %v", out, err)
	}
	if !steps["prepared"] || steps["locked"] || steps["staged"] || !steps["released"] {
		t.Errorf("whether the container could be locked: %v", steps)
	}
}

// A container that joins the sandbox while programs are loaded is of the unit.
func TestUpdateOfAUnitThatGrows(t *testing.T) {
	from, to := version("update_old", []uint32{53}, inCgroup()...), version("update_new", []uint32{53}, inCgroup()...)
	f, v, p := newUpdate(t, from)
	digest := v.apply(to)
	side := newContainer(t, "side")
	side.sub.Netns = p.sub.Netns
	r := f.stepped(t, "prepared", func() {
		v.apply(from)
		f.Session = f.fresh()
		f.start(t, &pod{container: side, ns: p.ns, iface: p.iface})
		v.apply(to)
	})
	if r.Outcome != OutcomeUpdated || len(r.Items) != 2 || r.Swapped != 4 {
		t.Errorf("%s: %d entries, %d links: %v", r.Outcome, len(r.Items), r.Swapped, r.Err)
	}
	for _, it := range f.items(t) {
		if it.Record.Digest != digest {
			t.Errorf("%s was left", it.Place)
		}
	}
	f.inOrder(t)
}

// What was loaded for maps that are not those of the entry any more is loaded again.
func TestUpdateOfAnEntryThatChanges(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, inCgroup()...))
	v.apply(version("update_new", []uint32{53}, inCgroup()...))
	r := f.stepped(t, "prepared", func() {
		if out, err := f.fresh().Update(context.Background(), UpdateOptions{Policies: []string{"p"}}); err != nil || out[0].Outcome != OutcomeUpdated {
			t.Fatalf("%+v, %v", out, err)
		}
	})
	if r.Outcome != OutcomeCurrent {
		t.Errorf("%s: %v", r.Outcome, r.Err)
	}
	f.inOrder(t)
	if ok := connected(t, p.dir, 1, 53); ok != 1 {
		t.Error("no connect")
	}
}

// withIntent is a pod whose update was killed when its intent stood.
func withIntent(t *testing.T, programs ...specs.PlanProgram) (*fixture, *versions, *pod) {
	t.Helper()
	from, to := version("update_old", []uint32{53}, programs...), version("update_new", []uint32{53, 54}, programs...)
	f, v, p := newUpdate(t, from)
	v.apply(to)
	for step := 0; ; step++ {
		if !f.killedAt(t, step, from, to) {
			t.Fatal("the update has no intent")
		}
		if _, ok := f.Unfinished(p.place()); ok {
			return f, v, p
		}
	}
}

func (f *fixture) file(t *testing.T, p pin.Place, name string) string {
	t.Helper()
	e, err := f.Root.Entry(p)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(filepath.Dir(e.LinkPath("x")), name)
}

// An entry whose record can't be read is not one that has gone: the others wait for it.
func TestIntentAndAnUnreadableEntry(t *testing.T) {
	all := append(inCgroup(), program("lookup", specs.HookSKLookup))
	f, _, p := withIntent(t, all...)
	before := f.programs(t, p.place())
	var netns pin.Place
	for _, it := range f.items(t) {
		if it.Place.Kind() == pin.NetnsPlace {
			netns = it.Place
		}
	}
	meta := f.file(t, netns, "meta")
	if err := os.Rename(meta, meta+"_away"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.GC(t.Context(), GCOptions{}); err == nil || !strings.Contains(err.Error(), netns.String()) {
		t.Errorf("gc: %v", err)
	}
	if after := f.programs(t, p.place()); !slices.Equal(before, after) {
		t.Error("one entry was updated without the other")
	}
	if _, ok := f.Unfinished(p.place()); !ok {
		t.Error("the intent is gone")
	}
	if err := os.Rename(meta+"_away", meta); err != nil {
		t.Fatal(err)
	}
	if _, err := f.GC(t.Context(), GCOptions{}); err != nil {
		t.Error(err)
	}
	if after := f.programs(t, p.place()); slices.Equal(before, after) {
		t.Error("it was not finished")
	}
	f.inOrder(t)
}

// What could not be finished after the decision is not "as it was".
func TestUpdateUnfinished(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, inCgroup()...))
	to := v.apply(version("update_new", []uint32{53, 54}, inCgroup()...))
	ports := f.file(t, p.place(), "map_ports")
	r := f.stepped(t, "decided", func() {
		if err := errors.Join(os.Remove(ports), os.Mkdir(ports, 0o700)); err != nil {
			t.Fatal(err)
		}
	})
	if r.Outcome != OutcomeUnfinished || r.Err == nil || !strings.Contains(r.Err.Error(), "linkpin gc") {
		t.Errorf("%s: %v", r.Outcome, r.Err)
	}
	generations, err := f.PendingGenerations()
	if err != nil || !slices.Equal(generations, []string{v.Generation()}) {
		t.Errorf("generations %v, %v", generations, err)
	}
	if err := os.Remove(ports); err != nil {
		t.Fatal(err)
	}
	if _, err := f.GC(t.Context(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	if rec := f.record(t, p.place()); rec.Digest != to {
		t.Error("it was not finished")
	}
	f.inOrder(t)
}

// An intent that nobody can read stops updates, and nothing else.
func TestDamagedIntent(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, inCgroup()...))
	gone := newContainer(t, "gone")
	f.mustAttach(t, gone, "p")
	dir := filepath.Join(f.Root.Path(), "staging", "0123456789abcdef")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := errors.Join(m.Freeze(), m.Pin(dir+"/intent")); err != nil {
		t.Fatal(err)
	}
	v.apply(version("update_new", []uint32{53}, inCgroup()...))
	out, err := f.fresh().Update(t.Context(), UpdateOptions{Policies: []string{"p"}})
	if err != nil || len(out) != 2 || out[0].Outcome != OutcomeRefused || !strings.Contains(out[0].Err.Error(), "rm -r "+dir) {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := f.PendingGenerations(); !errors.Is(err, pin.ErrDamaged) {
		t.Errorf("generations: %v", err)
	}
	gone.end(t)
	_, err = f.GC(t.Context(), GCOptions{})
	var said *fault.Error
	if !errors.As(err, &said) || strings.Count(err.Error(), dir+":") != 1 || !strings.Contains(said.Error(), "rm -r "+dir) {
		t.Errorf("gc: %v", err)
	}
	if _, ok := f.Look(pin.ContainerEntry(gone.key, "p")); ok {
		t.Error("gc did not go on")
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if connected(t, p.dir, 1, 53); f.update(t, OutcomeUpdated).Swapped != 2 {
		t.Error("not updated")
	}
}

// An error is not an end.
func TestUpdateWhereTheEndCantBeTold(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, append(inCgroup(), program("lookup", specs.HookSKLookup))...))
	plan := v.plans[v.current["p"]]
	loop := filepath.Join(t.TempDir(), "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	for _, it := range f.items(t) {
		rec := *it.Record
		if it.Place == p.place() {
			cg := *rec.Cgroup
			cg.Path = loop
			rec.Cgroup = &cg
		} else {
			ns := *rec.Netns
			ns.Path = loop
			rec.Netns = &ns
			members, err := f.Root.Members(rec.Sandbox)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range members { // which would lead there as well
				for _, place := range must(f.Root.Entries(pin.Container(m))) {
					if err := os.Remove(f.file(t, place, "meta")); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		it.Record = &rec
		c := &change{item: it, plan: plan}
		err := f.openTargets(c)
		if err == nil || errors.Is(err, errEnded) || errors.Is(err, target.ErrGone) {
			t.Errorf("%s: %v", it.Place, err)
		}
		if err := c.close(); err != nil {
			t.Error(err)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// What is added runs once the maps hold what the running programs have written.
func TestUpdateAttachesLast(t *testing.T) {
	all := inCgroup()
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, all[0]))
	v.apply(version("update_new", []uint32{53}, all...))
	r := f.stepped(t, "staged", func() {
		if n := attached(t, p.dir, ebpf.AttachCGroupUDP4Sendmsg); n != 0 {
			t.Errorf("%d programs run before the maps are filled", n)
		}
	})
	if n := attached(t, p.dir, ebpf.AttachCGroupUDP4Sendmsg); r.Outcome != OutcomeUpdated || n != 1 {
		t.Errorf("%s, %d programs: %v", r.Outcome, n, r.Err)
	}
	f.inOrder(t)
}

// Maps that the new version does not have are named, also before it is done.
func TestUpdateDrops(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, inCgroup()...))
	v.apply(version("update_new", []uint32{53}, program("sendmsg4", "cgroup/sendmsg4")))
	out, err := f.fresh().Update(t.Context(), UpdateOptions{Policies: []string{"p"}, Mode: UpdateDryRun})
	if err != nil || len(out) != 1 || !slices.Equal(out[0].Dropped, []string{".data", "ports"}) {
		t.Errorf("%+v, %v", out, err)
	}
	if r := f.update(t, OutcomeUpdated); !slices.Equal(r.Dropped, []string{".data", "ports"}) {
		t.Errorf("dropped %v", r.Dropped)
	}
	if rec := f.record(t, p.place()); slices.Contains(rec.Maps, "ports") {
		t.Errorf("maps %v", rec.Maps)
	}
	f.inOrder(t)
}

// Every entry is compared with the version that it has, and those that are up to date
// hold what the new version attaches to.
func TestUpdateOfMixedVersions(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, inCgroup()...))
	to := v.apply(version("update_new", []uint32{53}, append(inCgroup(), program("lookup", specs.HookSKLookup))...))
	f.Session = f.fresh()
	side := newContainer(t, "side")
	side.sub.Netns = p.sub.Netns
	f.start(t, &pod{container: side, ns: p.ns, iface: p.iface})
	if r := f.update(t, OutcomeUpdated); r.Swapped != 2 {
		t.Errorf("%+v", r)
	}
	for _, it := range f.items(t) {
		if it.Record.Digest != to {
			t.Errorf("%s was left", it.Place)
		}
	}
	f.inOrder(t)
}

// Programs of the same instructions that do not mean the same.
func TestUpdateOfWhatLooksTheSame(t *testing.T) {
	with := func(object, symbol string, hook specs.Hook) *specs.Plan {
		p := version("../../load/testdata/"+object, nil, program(symbol, hook))
		p.Maps = nil
		return p
	}
	for _, tc := range []struct {
		symbol                  string
		hook                    specs.Hook
		swapped, added, removed int
		err                     error
	}{
		{"maps", "cgroup_skb/egress", 1, 0, 0, nil},
		{"guarded", specs.HookLSMCgroup, 0, 1, 1, nil},
		{"traced", specs.HookFentry, 0, 0, 0, ErrFixedLink},
	} {
		t.Run(tc.symbol, func(t *testing.T) {
			if tc.hook.InSection() {
				bpftest.NeedKernel(t, 6, 0, "LSM programs of cgroups")
			}
			f, v, p := newUpdate(t, with("succeed_old", tc.symbol, tc.hook))
			before := f.programs(t, p.place())
			v.apply(with("succeed_new", tc.symbol, tc.hook))
			if tc.err != nil {
				r := f.update(t, OutcomeRefused)
				if !errors.Is(r.Err, tc.err) || !strings.Contains(r.Err.Error(), "restart") || !slices.Equal(before, f.programs(t, p.place())) {
					t.Errorf("%v", r.Err)
				}
				return
			}
			r := f.update(t, OutcomeUpdated)
			if r.Swapped != tc.swapped || r.Added != tc.added || r.Removed != tc.removed || slices.Equal(before, f.programs(t, p.place())) {
				t.Errorf("%+v", r)
			}
			f.inOrder(t)
		})
	}
}
