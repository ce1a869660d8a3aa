// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// A process that is killed at any step leaves links that each hold the old program or
// the new one, and whoever comes next finishes: never half of it.
func TestUpdateKilled(t *testing.T) {
	all := every()
	from := version("update_old", []uint32{53, 54}, all...)
	// All there is: swaps, an attachment less and one more, a map that can't be kept.
	from.Programs = all[:4:4]
	to := version("update_new", []uint32{53, 55}, all[0], all[2], all[3], program("sendmsg4", "cgroup/sendmsg4", func(a *specs.Attachment) { a.Name = "more" }))
	finishers := map[string]func(*testing.T, *fixture, *pod){
		"gc": func(t *testing.T, f *fixture, _ *pod) {
			if _, err := f.GC(context.Background(), GCOptions{}); err != nil {
				t.Fatal(err)
			}
		},
		"repair": func(t *testing.T, f *fixture, p *pod) {
			if _, err := f.fresh().Repair(context.Background(), p.place()); err != nil {
				t.Fatal(err)
			}
		},
		"update": func(t *testing.T, f *fixture, _ *pod) {
			if _, err := f.fresh().Update(context.Background(), UpdateOptions{Policies: []string{"p"}}); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, finish := range finishers {
		t.Run(name, func(t *testing.T) {
			forward := 0
			for step := 0; ; step++ {
				f, v, p := newUpdate(t, from)
				f.By = pin.ByHook
				stop := traffic(t, p.dir, 53)
				before := f.state(t)
				v.apply(to)
				killed := f.killedAt(t, step, from, to)
				// What verify says before anybody has finished it.
				for _, it := range f.items(t) {
					for _, finding := range f.Verify(it) {
						if finding.Problem.Drift() {
							t.Errorf("step %d: %s: %s: %s", step, finding.Program, finding.Problem, finding.Detail)
						}
					}
				}
				finish(t, f, p)
				if _, err := f.GC(context.Background(), GCOptions{}); err != nil { // what was staged before there was an intent
					t.Fatal(err)
				}
				after := f.state(t)
				digests := map[string]bool{}
				for line := range strings.Lines(after) {
					digests[strings.Fields(line)[1]] = true
				}
				if len(digests) != 1 {
					t.Fatalf("step %d: half of it:\n%s", step, after)
				}
				if after != before {
					forward++
				} else if forward > 0 || name == "update" {
					t.Errorf("step %d: back again:\n%s", step, after)
				}
				if names, err := f.Root.StagingNames(); err != nil || len(names) > 0 {
					t.Errorf("step %d: staging: %v, %v", step, names, err)
				}
				f.inOrder(t)
				if tried, let := stop(); tried != let || f.counted(t, p.place(), 1)+f.counted(t, p.place(), 2) != uint64(tried) {
					t.Errorf("step %d: %d of %d connects, counted %d and %d", step, let, tried, f.counted(t, p.place(), 1), f.counted(t, p.place(), 2))
				}
				p.end(t)
				if err := deleteLink("lpupd0"); err != nil {
					t.Fatal(err)
				}
				if !killed {
					if step < 10 || forward < 5 {
						t.Errorf("only %d steps, %d of them with an intent", step, forward)
					}
					return
				}
			}
		})
	}
}

// stepped runs an update that calls at when it comes to a step for the first time.
func (f *fixture) stepped(t *testing.T, step string, at func()) UnitUpdate {
	t.Helper()
	s := f.fresh()
	done := false
	s.step = func(now string) {
		if now == step && !done {
			done = true
			at()
		}
	}
	out, err := s.Update(context.Background(), UpdateOptions{Policies: []string{"p"}})
	if err != nil || len(out) != 1 || !done {
		t.Fatalf("%+v, %v, step %v", out, err, done)
	}
	return out[0]
}

// A link that holds a program of somebody else refuses, and the others go back.
func TestUpdateIsRolledBack(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, every()...))
	v.apply(version("update_new", []uint32{53, 54}, every()...))
	before := f.state(t)
	// The container's entry comes first, and its first link is connect4: all the others follow.
	r := f.stepped(t, "intent", func() { f.foreign(t, p.place(), "connect4") })
	if r.Outcome != OutcomeRefused || !errors.Is(r.Err, attach.ErrForeign) || !strings.Contains(r.Err.Error(), "connect4") {
		t.Errorf("%s: %v", r.Outcome, r.Err)
	}
	same := func() {
		t.Helper()
		now := f.state(t)
		for line := range strings.Lines(before) {
			for word := range strings.FieldsSeq(line) {
				if !strings.Contains(now, word) && !strings.HasPrefix(word, "connect4:") {
					t.Errorf("%s before; after:\n%s", word, now)
				}
			}
		}
	}
	same()
	if names, err := f.Root.StagingNames(); err != nil || len(names) > 0 {
		t.Errorf("staging: %v, %v", names, err)
	}
	var drift []string
	for _, it := range f.items(t) {
		for _, finding := range f.Verify(it) {
			drift = append(drift, finding.Program+" "+string(finding.Problem))
		}
	}
	if fmt.Sprint(drift) != "[connect4 program]" {
		t.Errorf("verify: %v", drift)
	}
	r = f.update(t, OutcomeRefused) // an entry that is not as recorded is refused at once
	if !errors.Is(r.Err, ErrDrift) {
		t.Errorf("%v", r.Err)
	}
	same()
	if _, err := f.Repair(context.Background(), p.place()); err != nil {
		t.Fatal(err)
	}
	f.update(t, OutcomeUpdated)
	f.inOrder(t)
}

// One link in the middle: those that were swapped before it go back as well.
func TestUpdateIsRolledBackInTheMiddle(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, program("sendmsg4", "cgroup/sendmsg4"), program("connect4", "cgroup/connect4")))
	v.apply(version("update_new", []uint32{53}, program("sendmsg4", "cgroup/sendmsg4"), program("connect4", "cgroup/connect4")))
	before := f.state(t)
	r := f.stepped(t, "swapped", func() { f.foreign(t, p.place(), "connect4") })
	if r.Outcome != OutcomeRefused || !errors.Is(r.Err, attach.ErrForeign) {
		t.Errorf("%s: %v", r.Outcome, r.Err)
	}
	first := func(s string) string { return strings.Fields(s)[2] }
	if after := f.state(t); first(after) != first(before) || !strings.HasPrefix(first(after), "sendmsg4:") {
		t.Errorf("before %s, after %s", before, after)
	}
}

// A target that ends in the midst of it is no reason to go back.
func TestUpdateOfSeveredLinks(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, every()...))
	to := v.apply(version("update_new", []uint32{53}, every()...))
	r := f.stepped(t, "swapped", func() {
		if err := os.WriteFile(p.dir+"/cgroup.kill", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		p.end(t)
		if err := deleteLink("lpupd0"); err != nil {
			t.Fatal(err)
		}
	})
	if r.Outcome != OutcomeUpdated {
		t.Errorf("%s: %v", r.Outcome, r.Err)
	}
	for _, it := range f.items(t) {
		if it.Record.Digest != to {
			t.Errorf("%s has another digest", it.Place)
		}
	}
}

// An entry that is retired while its update is unfinished is none of the update's business.
func TestUpdateAndPoststop(t *testing.T) {
	from, to := version("update_old", []uint32{53}, every()...), version("update_new", []uint32{53, 54}, every()...)
	f, v, p := newUpdate(t, from)
	v.apply(to)
	for step := 0; ; step++ {
		if !f.killedAt(t, step, from, to) {
			t.Fatal("the update has no intent")
		}
		if _, ok := f.Unfinished(p.place()); ok {
			break
		}
	}
	p.end(t)
	if _, err := f.EndContainer(context.Background(), p.key); err != nil {
		t.Fatal(err)
	}
	if live, _ := f.entries(t); live != 0 {
		t.Errorf("%d entries are left", live)
	}
	if _, err := f.GC(context.Background(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	if names, err := f.Root.StagingNames(); err != nil || len(names) > 0 {
		t.Errorf("staging: %v, %v", names, err)
	}
	// What drains on the cgroup, which this test holds, is as it was.
	if live, retired := f.entries(t); live != 0 || retired != 3 {
		t.Errorf("%d live and %d retired entries, want 0 and 3", live, retired)
	}
}

// A container that starts again under the key of one whose update was left unfinished
// has nothing to do with it.
func TestUpdateAndANewContainer(t *testing.T) {
	from, to := version("update_old", []uint32{53}, every()...), version("update_new", []uint32{53, 54}, every()...)
	f, v, p := newUpdate(t, from)
	for step := 0; ; step++ {
		v.apply(to)
		if !f.killedAt(t, step, from, to) {
			t.Fatal("the update has no intent")
		}
		if _, ok := f.Unfinished(p.place()); ok {
			break
		}
	}
	p.end(t)
	if err := deleteLink("lpupd0"); err != nil {
		t.Fatal(err)
	}
	v.apply(from)
	f.Session = f.fresh()
	again := newPod(t, "web", "lpupd0")
	if _, err := f.ClaimContainer(context.Background(), again.key, again.sub, map[string]string{"p": v.current["p"]}); err == nil {
		t.Fatal("claimed without the lock")
	}
	l := f.lock(t, pin.Container(again.key))
	if _, err := f.ClaimContainer(context.Background(), again.key, again.sub, map[string]string{"p": v.current["p"]}); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	f.start(t, again)
	before := f.programs(t, again.place())
	if _, err := f.GC(context.Background(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	if after := f.programs(t, again.place()); !slices.Equal(before, after) {
		t.Errorf("programs %v, then %v", before, after)
	}
	f.inOrder(t)
}

func (f *fixture) programs(t testing.TB, p pin.Place) []uint32 {
	t.Helper()
	it, ok := f.Look(p)
	if !ok || it.Err != nil {
		t.Fatalf("%s: %v", p, it.Err)
	}
	var ids []uint32
	for _, l := range it.Links {
		ids = append(ids, l.Info.ProgramID)
	}
	return ids
}

// Containers that share a sandbox are updated together or not at all.
func TestUpdateIsOfAllInASandbox(t *testing.T) {
	f, v, p := newUpdate(t, version("update_old", []uint32{53}, every()...))
	second := newContainer(t, "side")
	second.sub.Netns = p.sub.Netns
	f.start(t, &pod{container: second, ns: p.ns, iface: p.iface})
	v.apply(version("update_new", []uint32{53}, every()...))
	before := f.state(t)
	f.foreign(t, pin.ContainerEntry(second.key, "p"), "connect4")
	r := f.update(t, OutcomeRefused)
	if len(r.Items) != 4 {
		t.Errorf("%d entries in the unit, want 4", len(r.Items))
	}
	after := f.state(t)
	for line := range strings.Lines(before) {
		if !strings.Contains(line, "side-") && !strings.Contains(after, line) {
			t.Errorf("before %safter:\n%s", line, after)
		}
	}
}
