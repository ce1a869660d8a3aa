// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// podPlans has a policy for the pod's cgroup, and two that are not.
func podPlans(t testing.TB) plans {
	t.Helper()
	pod := plan(t, "pod", program("connect4", "cgroup/connect4"))
	pod.Cgroup = specs.CgroupPod
	return plans{"pod": pod, "tcx": interfacePlans(t)["tcx"], "cg": plan(t, "cg", program("connect4", "cgroup/connect4"))}
}

func openPod(t testing.TB, dir string) *target.Cgroup {
	t.Helper()
	cg, err := target.PodCgroup(target.Roots{}, strings.TrimPrefix(dir, bpftest.Cgroup2Mount(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cg.Close() })
	return cg
}

// addPod does what CNI ADD does for the policy of the pod's cgroup.
func (f *fixture) addPod(t testing.TB, s *sandbox, cg *target.Cgroup) error {
	t.Helper()
	f.By = pin.ByCNI
	ctx := context.Background()
	key, lock, err := f.LockSandbox(ctx, s.sub.Netns, s.id)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	s.sub.Sandbox = key
	if err := f.ClaimPodCgroup(key, cg); err != nil {
		return err
	}
	_, err = f.Attach(ctx, s.sub, []Want{{
		Policy: "pod", OnError: specs.Deny, Kind: specs.TargetPodCgroup, Interface: s.iface,
		Place: pin.PodCgroupEntry(key, "pod"), Cgroup: cg,
	}})
	return err
}

func (f *fixture) del(t testing.TB, s *sandbox, netns string) {
	t.Helper()
	d := Deletion{ContainerID: s.id, Network: "net", Interface: "eth0", Netns: netns}
	if err := f.DelInterface(context.Background(), d); err != nil {
		t.Fatal(err)
	}
}

func connects(t testing.TB, dir string) int {
	t.Helper()
	return attached(t, dir, ebpf.AttachCGroupInet4Connect)
}

// The programs are on the pod's cgroup from ADD until that is gone, though no
// process may be in it at either end.
func TestPodCgroupLives(t *testing.T) {
	f := newFixture(t, podPlans(t))
	dir := bpftest.Cgroup(t)
	s := newSandbox(t, "pod", "lppod0")
	if err := f.addPod(t, s, openPod(t, dir)); err != nil {
		t.Fatal(err)
	}
	place := pin.PodCgroupEntry(s.sub.Sandbox, "pod")
	if _, err := f.GC(context.Background(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	it, ok := f.Look(place)
	if !ok || it.Err != nil || len(it.Links) != 1 || it.Links[0].Info.State != attach.Live || it.Links[0].Info.CgroupID != bpftest.CgroupID(t, dir) {
		t.Fatalf("%v %+v", ok, it)
	}
	if p := it.Record.Programs[0]; p.Target != specs.TargetPodCgroup || it.Record.Cgroup.Path != dir || it.Record.Interface.Name != "eth0" {
		t.Errorf("record %+v", it.Record)
	}
	if preview, err := f.Preview(); err != nil || len(preview) != 0 {
		t.Errorf("gc would take %v, %v", preview, err)
	}

	// What is taken off by force is drift, and mended.
	e, err := f.Root.Entry(place)
	if err != nil {
		t.Fatal(err)
	}
	withLink(t, e.LinkPath("connect4"), func(l *attach.Link) error { return l.Detach() })
	if _, err := f.GC(context.Background(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	it, ok = f.Look(place)
	if !ok {
		t.Fatal("gc took what was stolen")
	}
	if found := f.Verify(it); len(found) != 1 || found[0].Problem != ProblemSevered {
		t.Errorf("%+v", found)
	}
	if found, err := f.Repair(context.Background(), place); err != nil || len(found) != 1 || found[0].Repaired == "" || found[0].Err != nil {
		t.Errorf("%+v, %v", found, err)
	}
	if n := connects(t, dir); n != 1 {
		t.Errorf("%d programs after the repair", n)
	}

	for range 2 {
		f.del(t, s, s.ns.Path())
	}
	if live, retired := f.entries(t); live != 0 || retired != 1 || connects(t, dir) != 1 {
		t.Errorf("after DEL: %d live, %d retired, %d programs; they run to the end of the pod's cgroup", live, retired, connects(t, dir))
	}
	bpftest.RemoveCgroup(t, dir)
	bpftest.Eventually(t, "gc", func() error {
		r, err := f.GC(context.Background(), GCOptions{Wait: 5e9})
		if err == nil && r.Draining > 0 {
			err = errors.New("still draining")
		}
		return err
	})
	emptyState(t, f)
}

// A repair that was killed between pin and record is finished, not done again.
func TestPodCgroupRepairedHalf(t *testing.T) {
	f := newFixture(t, podPlans(t))
	dir := bpftest.Cgroup(t)
	s := newSandbox(t, "pod", "lppod9")
	cg := openPod(t, dir)
	if err := f.addPod(t, s, cg); err != nil {
		t.Fatal(err)
	}
	place := pin.PodCgroupEntry(s.sub.Sandbox, "pod")
	it, _ := f.Look(place)
	e, err := f.Root.Entry(place)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(it.Record.Programs[0].ProgramID))
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	path := e.LinkPath("connect4")
	withLink(t, path, func(*attach.Link) error { return os.Remove(path) })
	l, err := attach.Attach(prog, specs.Attachment{Name: "connect4", Hook: "cgroup/connect4"}, attach.Target{Cgroup: cg})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Pin(path); err != nil {
		t.Fatal(err)
	}
	if found, err := f.Repair(context.Background(), place); err != nil || len(found) != 1 || found[0].Repaired != "recorded again" {
		t.Errorf("%+v, %v", found, err)
	}
	if n := connects(t, dir); n != 1 {
		t.Errorf("%d programs", n)
	}
}

// If DEL never comes, the end of the cgroup shows that the entry is over.
func TestPodCgroupWithoutDel(t *testing.T) {
	f := newFixture(t, podPlans(t))
	dir := bpftest.Cgroup(t)
	s := newSandbox(t, "pod", "lppod1")
	if err := f.addPod(t, s, openPod(t, dir)); err != nil {
		t.Fatal(err)
	}
	bpftest.RemoveCgroup(t, dir)
	bpftest.Eventually(t, "gc", func() error {
		_, err := f.GC(context.Background(), GCOptions{})
		if live, retired := f.entries(t); live+retired != 0 {
			err = errors.Join(err, errors.New("something is left"))
		}
		return err
	})
	emptyState(t, f)
}

func TestPodCgroupOfAnotherSandbox(t *testing.T) {
	dir := bpftest.Cgroup(t)
	pod, below := filepath.Join(dir, "pod"), filepath.Join(dir, "pod", "a")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(pod+"2", 0o755); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, podPlans(t))
	first, second := newSandbox(t, "first", "lppod2"), newSandbox(t, "second", "lppod3")
	if err := f.addPod(t, first, openPod(t, pod)); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{pod, below, dir} {
		if err := f.addPod(t, second, openPod(t, d)); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "sandbox first") {
			t.Errorf("%s: %v, want ErrInUse", d, err)
		}
	}
	if err := f.addPod(t, second, openPod(t, pod+"2")); err != nil {
		t.Errorf("a cgroup beside it: %v", err)
	}
	// One whose namespace is gone was never deleted, and has no say.
	third := newSandbox(t, "third", "lppod4")
	first.kill(t)
	bpftest.Eventually(t, "the cgroup is free", func() error { return f.addPod(t, third, openPod(t, pod)) })
	if err := f.DropDrained(openPod(t, pod)); err != nil {
		t.Fatal(err)
	}
	if live, retired := f.entries(t); live != 2 || retired != 0 || connects(t, pod) != 1 {
		t.Errorf("%d live, %d retired, %d programs; want 2, 0, 1", live, retired, connects(t, pod))
	}
}

// A sandbox that is made again in the cgroup of its pod takes over from the one
// before; other pods' keep draining.
func TestPodCgroupIsUsedAgain(t *testing.T) {
	f := newFixture(t, podPlans(t))
	dir, other := bpftest.Cgroup(t), bpftest.Cgroup(t)
	first, aside, second := newSandbox(t, "first", "lppod5"), newSandbox(t, "aside", "lppod6"), newSandbox(t, "second", "lppod7")
	for s, d := range map[*sandbox]string{first: dir, aside: other} {
		if err := f.addPod(t, s, openPod(t, d)); err != nil {
			t.Fatal(err)
		}
		f.del(t, s, "")
	}
	if err := f.addPod(t, second, openPod(t, dir)); err != nil {
		t.Fatal(err)
	}
	if n := connects(t, dir); n != 2 {
		t.Errorf("%d programs: those of before stay until those of now are there", n)
	}
	if err := f.DropDrained(openPod(t, dir)); err != nil {
		t.Fatal(err)
	}
	if a, b := connects(t, dir), connects(t, other); a != 1 || b != 1 {
		t.Errorf("%d and %d programs, want one each", a, b)
	}
}

func TestPodCovers(t *testing.T) {
	f := newFixture(t, podPlans(t))
	dir := bpftest.Cgroup(t)
	s := newSandbox(t, "pod", "lppod8")
	pod := filepath.Join(dir, "pod")
	inside, outside := filepath.Join(pod, "ctr"), filepath.Join(dir, "ctr")
	for _, d := range []string{inside, outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	covers := func(dir string) error {
		t.Helper()
		c := subject(t, "ctr", dir, bpftest.CgroupProcess(t, dir).Pid)
		c.sub.Netns = s.sub.Netns
		key, lock, err := f.LockSandbox(context.Background(), s.sub.Netns, "")
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Release()
		return f.PodCovers(context.Background(), key, "pod", c.sub)
	}
	if err := covers(inside); err == nil || !strings.Contains(err.Error(), "linkpin install cni") {
		t.Errorf("without CNI: %v", err)
	}
	if err := f.addPod(t, s, openPod(t, pod)); err != nil {
		t.Fatal(err)
	}
	if err := covers(inside); err != nil {
		t.Error(err)
	}
	if err := covers(outside); !errors.Is(err, ErrOutside) || !strings.Contains(err.Error(), outside) {
		t.Errorf("outside: %v", err)
	}
	e, err := f.Root.Entry(pin.PodCgroupEntry(s.sub.Sandbox, "pod"))
	if err != nil {
		t.Fatal(err)
	}
	withLink(t, e.LinkPath("connect4"), func(l *attach.Link) error { return l.Detach() })
	if err := covers(inside); err != nil || connects(t, pod) != 1 {
		t.Errorf("what was taken off: %v, %d programs", err, connects(t, pod))
	}

	// A container's own entry has a record and no programs.
	c := subject(t, "own", inside, bpftest.CgroupProcess(t, inside).Pid)
	f.By = pin.ByHook
	f.mustAttach(t, c, "pod")
	it, ok := f.Look(pin.ContainerEntry(c.key, "pod"))
	if !ok || it.Err != nil || len(it.Record.Programs) != 0 || it.Record.Cgroup.Path != inside || connects(t, inside) != 0 {
		t.Errorf("%v %+v", ok, it)
	}
}

// Whoever comes to a namespace first, hook or CNI: the others find the same sandbox.
func TestHookFirst(t *testing.T) {
	ctx := context.Background()
	f := newFixture(t, podPlans(t))
	s := newSandbox(t, "pod", "lpjoin0")
	c := newContainer(t, "ctr")
	f.joined(t, s, c, onInterface(s, "tcx"))
	key := pin.CookieKey(s.sub.Netns.Cookie)

	// ADD for the same interface finds it covered, or makes entries beside it.
	f.mustAdd(t, s, "tcx")
	if s.sub.Sandbox != key {
		t.Fatalf("CNI made sandbox %s beside %s", s.sub.Sandbox, key)
	}
	own := pin.InterfaceEntry(key, "net", "eth0", "tcx")
	if _, ok := f.Look(own); !ok {
		t.Fatal("no entry of CNI")
	}
	places, err := f.Root.Entries(pin.Sandbox(key))
	if err != nil {
		t.Fatal(err)
	}
	if !f.Named(places, "pod") || f.Named(places, "ctr") || f.Named(places, "") {
		t.Error("the sandbox is not known by the id of CNI alone")
	}

	// DEL finds it by the namespace, and when that is gone by the id.
	for _, netns := range []string{s.ns.Path(), "", "/run/netns/gone"} {
		f.mustAdd(t, s, "tcx")
		if err := f.DelInterface(ctx, Deletion{ContainerID: "other", Network: "net", Interface: "eth0", Netns: netns}); err != nil {
			t.Fatal(err)
		}
		if _, ok := f.Look(own); !ok {
			t.Fatal("DEL of another id took it")
		}
		f.del(t, s, netns)
		if _, ok := f.Look(own); ok {
			t.Errorf("DEL with namespace %q left it", netns)
		}
		if _, ok := f.Look(pin.HookInterfaceEntry(key, "eth0", "tcx")); !ok {
			t.Fatal("DEL took what the hook has made")
		}
	}
	f.mustAdd(t, s, "tcx")
	if err := f.GCNetwork(ctx, "net", func(id, _ string) bool { return id == "pod" }); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Look(own); !ok {
		t.Error("GC took a valid attachment")
	}
	if err := f.GCNetwork(ctx, "net", func(string, string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Look(own); ok {
		t.Error("GC left an attachment that is not valid")
	}
}
