// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func TestEntries(t *testing.T) {
	r := newRoot(t)
	c, s := ContainerKey("web", "/web"), SandboxKey("4f")
	want := map[Owner][]Place{
		Container(c): {ContainerEntry(c, "a"), ContainerEntry(c, "b")},
		Sandbox(s): {
			PodCgroupEntry(s, "net_x"), PodCgroupEntry(s, "p"),
			HookInterfaceEntry(s, "eth0", "a"), InterfaceEntry(s, "net", "eth0", "a"), InterfaceEntry(s, "net", "eth1", "a"),
			InterfaceEntry(s, "other.net", "eth0", "b"), NetnsEntry(s, "hook"),
		},
	}
	for _, places := range want {
		for _, p := range places {
			publish(t, r, p)
		}
	}
	l := lock(t, r, Sandbox(s))
	must(t, r.AddMember(s, c))
	// What the tree does not have is passed over.
	must(t, os.MkdirAll(filepath.Join(r.Path(), "sandboxes/4f/pod/p"), 0o700))
	must(t, os.MkdirAll(filepath.Join(r.Path(), "sandboxes/4f/else/p/q"), 0o700))
	for owner, places := range want {
		got, err := r.Entries(owner)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, places) {
			t.Errorf("%v: %v, want %v", owner, got, places)
		}
	}
	release(t, l)
	pods, err := r.PodCgroups(s)
	if err != nil || !slices.Equal(pods, want[Sandbox(s)][:2]) {
		t.Errorf("entries on the pod's cgroup: %v, %v", pods, err)
	}
	if pods, err := r.PodCgroups("nobody"); err != nil || len(pods) != 0 {
		t.Errorf("of nobody: %v, %v", pods, err)
	}
	none, err := r.Entries(Container("nobody"))
	if err != nil || len(none) != 0 {
		t.Errorf("entries of nobody: %v, %v", none, err)
	}
}

func TestEntryIsNotFollowed(t *testing.T) {
	r := newRoot(t)
	k := childOwner.Key()
	publish(t, r, ContainerEntry(k, "real"))
	must(t, os.Symlink("real", filepath.Join(r.Path(), ContainerEntry(k, "link").String())))
	_, err := r.Entry(ContainerEntry(k, "link"))
	wantError(t, err, unix.ENOTDIR)
	must(t, os.Symlink(string(k), filepath.Join(r.Path(), "containers/other")))
	_, err = r.Entry(ContainerEntry("other", "real"))
	wantError(t, err, unix.ELOOP)
	_, err = r.Lock(t.Context(), Container("other"))
	wantError(t, err, unix.ENOTDIR)
	m := newMap(t)
	must(t, m.Pin(filepath.Join(r.Path(), ContainerEntry(k, "file").String())))
	_, err = r.Entry(ContainerEntry(k, "file"))
	wantError(t, err, unix.ENOTDIR)
}

func mapID(t *testing.T, path string) ebpf.MapID {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	return idOf(t, m)
}

func idOf(t *testing.T, m *ebpf.Map) ebpf.MapID {
	t.Helper()
	info, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}

func TestPathsLeadToThePins(t *testing.T) {
	r := newRoot(t)
	lock(t, r, childOwner)
	p := ContainerEntry(childOwner.Key(), "p")
	s := stage(t, r, "p")
	link, m := newMap(t), newMap(t)
	must(t, s.PinLink("obj/prog#2@3", link))
	must(t, s.PinMap("obj/.rodata", m))
	must(t, s.Publish(p))
	e := entry(t, r, p)
	if got := mapID(t, e.LinkPath("obj/prog#2@3")); got != idOf(t, link) {
		t.Errorf("link path leads to %d", got)
	}
	if got := mapID(t, e.MapPath("obj/.rodata")); got != idOf(t, m) {
		t.Errorf("map path leads to %d", got)
	}
}

func TestReplace(t *testing.T) {
	r := newRoot(t)
	p := ContainerEntry(childOwner.Key(), "p")
	publish(t, r, p)
	before := tree(t, r)
	lock(t, r, childOwner)
	e := entry(t, r, p)
	link, m := newMap(t), newMap(t)
	must(t, e.ReplaceLink("ingress", link))
	must(t, e.ReplaceMap("allow", m))
	rec := someRecord("p")
	rec.Programs[0].LinkID = 99
	must(t, e.ReplaceRecord(rec))
	wantTree(t, r, before...)
	if mapID(t, e.LinkPath("ingress")) != idOf(t, link) || mapID(t, e.MapPath("allow")) != idOf(t, m) {
		t.Error("the old pins are still there")
	}
	if got, err := e.Record(); err != nil || got.Programs[0].LinkID != 99 {
		t.Errorf("record %+v, %v", got, err)
	}

	// Where the pin is missing it is made.
	must(t, e.RemoveLink("ingress"))
	must(t, e.RemoveLink("ingress"))
	if slices.Contains(e.Links(), "ingress") || slices.Contains(entry(t, r, p).Links(), "ingress") {
		t.Error("the link is still there")
	}
	must(t, e.ReplaceLink("ingress", newMap(t)))
	if !slices.Equal(e.Links(), []string{"egress@2", "ingress"}) || !slices.Equal(entry(t, r, p).Links(), e.Links()) {
		t.Errorf("links %q", e.Links())
	}

	// If it fails, the old ones stay and nothing is left.
	refused := errors.New("refused")
	id := mapID(t, e.LinkPath("ingress"))
	wantError(t, e.ReplaceLink("ingress", pinFunc(func(string) error { return refused })), refused)
	big := someRecord("p")
	big.Generation = string(make([]byte, MaxRecord))
	wantError(t, e.ReplaceRecord(big), ErrTooLarge)
	if mapID(t, e.LinkPath("ingress")) != id {
		t.Error("the old pin is gone")
	}
	wantTree(t, r, before...)
}

func TestRemove(t *testing.T) {
	r := newRoot(t)
	p := NetnsEntry(SandboxKey("4f"), "p")
	publish(t, r, p)
	l := lock(t, r, Sandbox(SandboxKey("4f")))
	e := entry(t, r, p)
	must(t, e.Remove())
	wantError(t, e.Remove(), ErrNotExist)
	release(t, l)
	wantTree(t, r)
}

// Remove must leave the place at once and as a whole: a process that is killed
// while it unpins leaves a staging directory.
func TestRemoveIsAtomic(t *testing.T) {
	r := newRoot(t)
	p := ContainerEntry(childOwner.Key(), "p")
	publish(t, r, p)
	l := lock(t, r, childOwner)
	// Something in the entry can't be unpinned.
	must(t, os.Mkdir(filepath.Join(r.Path(), p.String(), "stuck"), 0o700))
	if err := entry(t, r, p).Remove(); err == nil {
		t.Error("removed what can't be unpinned")
	}
	release(t, l)
	names, err := r.StagingNames()
	if err != nil || len(names) != 1 {
		t.Fatalf("staging: %v, %v", names, err)
	}
	wantTree(t, r, "staging/"+names[0], "staging/"+names[0]+"/stuck")
}

func TestRemoveRetiredAtOnce(t *testing.T) {
	r := newRoot(t)
	p := ContainerEntry(childOwner.Key(), "p")
	publish(t, r, p)
	l := lock(t, r, childOwner)
	retired, err := r.Retire(p, "test", 0)
	if err != nil {
		t.Fatal(err)
	}
	release(t, l)
	e := entry(t, r, retired)
	// Somebody else is at it.
	fd, err := r.tryDir(retired.path)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, e.Remove(), ErrBusy)
	unix.Close(fd)

	removed := make(chan error)
	for range 8 {
		go func() { removed <- e.Remove() }()
	}
	n := 0
	for range 8 {
		switch err := <-removed; {
		case err == nil:
			n++
		case !errors.Is(err, ErrNotExist) && !errors.Is(err, ErrBusy):
			t.Error(err)
		}
	}
	if n != 1 {
		t.Errorf("%d removed it, want 1", n)
	}
	wantTree(t, r)
}
