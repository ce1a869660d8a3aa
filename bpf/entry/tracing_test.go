// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// tracingPlans is an applied set over an object with tracing programs.
type tracingPlans struct{ plans }

func (tracingPlans) Object(string) ([]byte, error) {
	return os.ReadFile("../load/testdata/tracing.bpf.o")
}

// tracingPlan counts what the container executes.
func tracingPlan(t testing.TB, name string, programs ...specs.PlanProgram) *specs.Plan {
	t.Helper()
	p := plan(t, name, append(programs, program("execs", specs.HookTPBTF))...)
	p.Maps = nil
	p.Constants = []specs.PlanConstant{{Symbol: "container", Value: specs.Bytes{
		Data: make([]byte, 8), Holes: []specs.Hole{{Size: 8, Variable: specs.VarCgroupID}},
	}}}
	return p
}

func newTracingFixture(t testing.TB) *fixture {
	t.Helper()
	bpftest.NeedKernel(t, 5, 7, "tracing links")
	f := newFixture(t, nil)
	f.Plans = tracingPlans{plans{"trace": tracingPlan(t, "trace")}}
	return f
}

// execs runs a program in the container and returns how many its tracing program has
// counted before and after.
func (f *fixture) execs(t testing.TB, c *container, counter *container) (before, after uint64) {
	t.Helper()
	read := func() (n uint64) {
		e, err := f.Root.Entry(pin.ContainerEntry(counter.key, "trace"))
		if err != nil {
			t.Fatal(err)
		}
		m, err := ebpf.LoadPinnedMap(e.MapPath("counts"), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if err := m.Lookup(uint32(0), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before = read()
	if err := bpftest.Command(t, c.dir, "true").Run(); err != nil {
		t.Fatal(err)
	}
	return before, read()
}

func (f *fixture) wantExecs(t testing.TB, c, counter *container, want uint64) {
	t.Helper()
	if before, after := f.execs(t, c, counter); after-before != want {
		t.Errorf("a program was executed: counted %d, want %d", after-before, want)
	}
}

// A tracing program runs for the whole machine and is told which container is its own.
func TestTracingCountsItsContainer(t *testing.T) {
	f := newTracingFixture(t)
	a, b := newContainer(t, "a"), newContainer(t, "b")
	f.mustAttach(t, a, "trace")
	f.mustAttach(t, b, "trace")
	f.wantExecs(t, a, a, 1)
	f.wantExecs(t, a, b, 0)
	f.wantExecs(t, b, b, 1)

	item, _ := f.Look(pin.ContainerEntry(a.key, "trace"))
	row, info := item.Record.Programs[0], item.Links[0].Info
	if row.Target != specs.TargetKernel || row.Hook != specs.HookTPBTF || info.Hook != specs.HookTPBTF || info.State != attach.Live {
		t.Errorf("%+v, %+v", row, info)
	}
	if findings := f.Verify(item); len(findings) != 0 {
		t.Errorf("%+v", findings)
	}
	// What is in force stays.
	f.mustAttach(t, a, "trace")
	if again, _ := f.Look(item.Place); again.Record.Programs[0].LinkID != row.LinkID {
		t.Error("a second hook has attached it anew")
	}
}

func linkGone(t testing.TB, id uint32) {
	t.Helper()
	if l, err := attach.OpenID(id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("link %d is still there: %v", id, err)
		if err == nil {
			l.Close()
		}
	}
}

// Nothing severs a tracing link: it goes when the container has ended, also from an
// entry that drains, and whoever finds out.
func TestTracingEndsWithItsContainer(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(t *testing.T, f *fixture, c *container) error
	}{
		{"poststop", func(t *testing.T, f *fixture, c *container) error {
			_, err := f.EndContainer(t.Context(), c.key)
			return err
		}},
		{"gc", func(t *testing.T, f *fixture, _ *container) error {
			_, err := f.GC(t.Context(), GCOptions{})
			return err
		}},
		{"sweep", func(t *testing.T, f *fixture, _ *container) error {
			f.Sweep(t.Context())
			return nil
		}},
		{"killed between rename and removal", func(t *testing.T, f *fixture, c *container) error {
			l := f.lock(t, pin.Container(c.key))
			_, err := f.Root.Retire(pin.ContainerEntry(c.key, "trace"), reasonEnded, c.sub.Cgroup.ID)
			if err := errors.Join(err, l.Release()); err != nil {
				return err
			}
			preview, err := f.Preview()
			if err != nil || len(preview) != 1 {
				t.Errorf("preview %+v, %v", preview, err)
			}
			_, err = f.GC(t.Context(), GCOptions{})
			return err
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newTracingFixture(t)
			c := newContainer(t, "a")
			f.mustAttach(t, c, "trace")
			item, _ := f.Look(pin.ContainerEntry(c.key, "trace"))
			// Too early.
			if _, err := f.EndContainer(t.Context(), c.key); err != nil {
				t.Fatal(err)
			}
			f.wantExecs(t, c, c, 1)
			c.end(t)
			if err := tc.end(t, f, c); err != nil {
				t.Fatal(err)
			}
			linkGone(t, item.Record.Programs[0].LinkID)
			emptyState(t, f)
		})
	}
}

// What drains on the cgroup stays, and the tracing program beside it goes.
func TestTracingDoesNotDrain(t *testing.T) {
	f := newTracingFixture(t)
	f.Plans = bothPlans{f.Plans}
	c := newContainer(t, "a")
	f.mustAttach(t, c, "both")
	item, _ := f.Look(pin.ContainerEntry(c.key, "both"))
	if len(item.Record.Programs) != 2 {
		t.Fatalf("%+v", item.Record.Programs)
	}
	for _, p := range item.Record.Programs {
		if want := p.Hook.Target(); p.Target != want {
			t.Errorf("%s: target %s, want %s", p.Name, p.Target, want)
		}
	}
	c.end(t)
	if _, err := f.EndContainer(t.Context(), c.key); err != nil {
		t.Fatal(err)
	}
	if live, retired := f.entries(t); live != 0 || retired != 1 {
		t.Errorf("%d entries, %d retired", live, retired)
	}
	if n := attached(t, c.dir, connect4); n != 1 {
		t.Errorf("%d programs drain on the cgroup", n)
	}
	for _, p := range item.Record.Programs {
		if p.Target == specs.TargetKernel {
			linkGone(t, p.LinkID)
		}
	}
}

// bothPlans add a policy with a program for the cgroup and one for the kernel, of two
// objects.
type bothPlans struct{ Plans }

func (b bothPlans) Plan(name string) (*specs.Plan, string, error) {
	p, _, err := b.Plans.Plan("trace")
	if err != nil {
		return nil, "", err
	}
	// A copy, by way of the form in which it is stored.
	data, err := json.Marshal(p)
	if err != nil {
		return nil, "", err
	}
	both := new(specs.Plan)
	if err := json.Unmarshal(data, both); err != nil {
		return nil, "", err
	}
	both.Name = name
	both.Objects = append(both.Objects, specs.PlanObject{Name: "basic", SHA256: "basic"})
	both.Programs = append(both.Programs, specs.PlanProgram{
		Key: "basic/connect4", Object: "basic", Symbol: "connect4", Hook: "cgroup/connect4",
		Attachments: []specs.Attachment{{Name: "basic/connect4", Hook: "cgroup/connect4"}},
	})
	return both, "digest-" + name, nil
}

func (b bothPlans) Object(sha256 string) ([]byte, error) {
	if sha256 == "basic" {
		return os.ReadFile(object)
	}
	return b.Plans.Object(sha256)
}

// The only way to take a tracing link off is to take its pin; it can't be detached or
// be given another program.
func TestTracingIsMended(t *testing.T) {
	f := newTracingFixture(t)
	c := newContainer(t, "a")
	f.mustAttach(t, c, "trace")
	place := pin.ContainerEntry(c.key, "trace")
	_, path := f.verified(t, place)
	withLink(t, path, func(l *attach.Link) error {
		if err := l.Detach(); err == nil {
			t.Error("detached")
		}
		return nil
	})
	if findings, _ := f.verified(t, place); len(findings) != 0 {
		t.Errorf("after a detach that failed: %+v", findings)
	}
	f.wantExecs(t, c, c, 1)

	held, err := attach.OpenPinned(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		problem  Problem
		repaired string
	}{{ProblemUnpinned, "pinned again"}, {ProblemMissing, "new link"}} {
		remove(t, path)
		if want.problem == ProblemMissing {
			if err := held.Close(); err != nil {
				t.Fatal(err)
			}
			bpftest.Eventually(t, "the link is gone", func() error {
				if item, _ := f.Look(place); linkExists(item.Record.Programs[0].LinkID) {
					return errors.New("still there")
				}
				return nil
			})
		}
		if findings, _ := f.verified(t, place); len(findings) != 1 || findings[0].Problem != want.problem {
			t.Fatalf("%+v, want %s", findings, want.problem)
		}
		findings, err := f.Repair(context.Background(), place)
		if err != nil || len(findings) != 1 || findings[0].Err != nil || !strings.HasPrefix(findings[0].Repaired, want.repaired) {
			t.Fatalf("%+v, %v", findings, err)
		}
		if findings, _ := f.verified(t, place); len(findings) != 0 {
			t.Errorf("after the repair: %+v", findings)
		}
		f.wantExecs(t, c, c, 1)
	}

	// Of a container that is over nothing is missing.
	c.end(t)
	remove(t, path)
	findings, _ := f.verified(t, place)
	if len(findings) != 1 || findings[0].Problem != ProblemEnded {
		t.Errorf("%+v", findings)
	}
}
