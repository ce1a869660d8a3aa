// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"encoding/json"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

func (f *fixture) all(t *testing.T) []Item {
	t.Helper()
	var all []Item
	if err := f.Walk(func(it Item) error { all = append(all, it); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// known is what a run would have written, and the next has read.
func (f *fixture) known(t *testing.T) []Known {
	t.Helper()
	var all []Known
	for _, it := range f.all(t) {
		if k, ok := Know(it); ok {
			all = append(all, k)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	var read []Known
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

// An entry that is removed as a whole, of every kind, is missed for as long as what it
// was for lives.
func TestVanished(t *testing.T) {
	f, c, s := treeFixture(t)
	before := f.known(t)
	for _, k := range before {
		if k.Record.Programs[0].Target == specs.TargetPodCgroup {
			bpftest.CgroupProcess(t, k.Record.Cgroup.Path)
		}
	}
	places := map[string]pin.Place{
		"container": pin.ContainerEntry(c.key, "cg"),
		"cni":       pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "xdp"),
		"hook":      pin.HookInterfaceEntry(s.sub.Sandbox, "eth0", "tcx"),
		"netns":     pin.NetnsEntry(s.sub.Sandbox, "nf"),
		"pod":       pin.PodCgroupEntry(s.sub.Sandbox, "pod"),
	}
	if len(before) != len(places) {
		t.Fatalf("%d entries are known, want %d", len(before), len(places))
	}
	if left, findings := f.Vanished(before, f.all(t)); len(left)+len(findings) > 0 {
		t.Errorf("nothing has vanished: %+v", findings)
	}
	var held []*attach.Link
	for name, p := range places {
		it, _ := f.Look(p)
		if name == "cni" { // its link lives on with its thief
			e, err := f.Root.Entry(p)
			if err != nil {
				t.Fatal(err)
			}
			l, err := attach.OpenPinned(e.LinkPath(it.Record.Programs[0].Name))
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, l)
			defer l.Close()
		}
		dir := f.Root.Path() + "/" + p.String()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	left, findings := f.Vanished(before, f.all(t))
	wantProblems(t, findings, ProblemVanished, ProblemVanished, ProblemVanished, ProblemVanished, ProblemVanished)
	if len(left) != len(places) || len(held) != 1 {
		t.Fatalf("%d are left to be missed", len(left))
	}
	for _, found := range findings {
		if !found.Problem.Drift() || found.Record == nil || found.Path == "" || found.Remedy == "" {
			t.Errorf("%+v", found)
		}
	}
	// All of it may be gone.
	if _, findings := (&Session{}).Vanished(before, nil); len(findings) != len(places) {
		t.Errorf("%+v", findings)
	}
	// What they were for ends: nobody is missed any more.
	c.end(t)
	c.sub.Cgroup.Close()
	s.kill(t)
	for _, k := range before {
		if k.Record.Programs[0].Target == specs.TargetPodCgroup {
			bpftest.RemoveCgroup(t, k.Record.Cgroup.Path)
		}
	}
	if left, findings := f.Vanished(left, f.all(t)); len(left)+len(findings) > 0 {
		t.Errorf("after the end: %+v", findings)
	}
}

// Whatever ends in the ordinary way is not missed, however it ends.
func TestTeardownIsNotVanishing(t *testing.T) {
	f, c, s := treeFixture(t)
	ctx := context.Background()
	before := f.known(t)
	// CNI DEL comes before the interface is deleted.
	if err := f.DelInterface(ctx, Deletion{ContainerID: "pod", Network: "net", Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	s.ns.Do(t, func() {
		if l, err := netlink.LinkByName("eth0"); err != nil || netlink.LinkDel(l) != nil {
			t.Error("eth0 is not deleted")
		}
	})
	if _, findings := f.Vanished(before, f.all(t)); len(findings) > 0 {
		t.Errorf("%+v", findings)
	}
	c.end(t)
	if _, err := f.EndContainer(ctx, c.key); err != nil {
		t.Fatal(err)
	}
	if _, findings := f.Vanished(before, f.all(t)); len(findings) > 0 {
		t.Errorf("%+v", findings)
	}
	c.sub.Cgroup.Close()
	bpftest.RemoveCgroup(t, c.dir)
	s.kill(t)
	if _, err := f.GC(ctx, GCOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, k := range before {
		if k.Record.Programs[0].Target == specs.TargetPodCgroup {
			bpftest.RemoveCgroup(t, k.Record.Cgroup.Path)
		}
	}
	if _, findings := f.Vanished(before, f.all(t)); len(findings) > 0 {
		t.Errorf("%+v", findings)
	}
	// Attached anew, for the same id.
	again := newContainer(t, "web")
	f.By = pin.ByHook
	f.mustAttach(t, again, "cg")
	known := f.known(t)
	again.end(t)
	next := newContainer(t, "web")
	f.mustAttach(t, next, "cg")
	if _, findings := f.Vanished(known, f.all(t)); len(findings) > 0 {
		t.Errorf("%+v", findings)
	}
}
