// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs"
)

func TestPublish(t *testing.T) {
	r := newRoot(t)
	p := ContainerEntry(childOwner.Key(), "egress-web")
	l := lock(t, r, childOwner)
	s := stage(t, r, "egress-web")
	if _, err := r.Entry(p); !errors.Is(err, ErrNotExist) {
		t.Errorf("the entry is there before it is published: %v", err)
	}
	if err := s.Publish(p); err != nil {
		t.Fatal(err)
	}
	if err := s.Discard(); err != nil {
		t.Errorf("Discard after Publish: %v", err)
	}
	// A staging directory is done with.
	wantError(t, s.PinLink("more", newMap(t)), ErrNotExist)
	wantError(t, s.Publish(p), ErrNotExist)
	release(t, l)
	dir := p.String() + "/"
	wantTree(t, r, filepath.Dir(p.String()), p.String(), dir+"link_egress%402", dir+"link_ingress", dir+"map_allow", dir+"meta")
	e := entry(t, r, p)
	if e.Place() != p || !slices.Equal(e.Links(), []string{"egress@2", "ingress"}) || !slices.Equal(e.Maps(), []string{"allow"}) {
		t.Errorf("place %v, links %q, maps %q", e.Place(), e.Links(), e.Maps())
	}
}

func TestPublishNeverReplaces(t *testing.T) {
	r := newRoot(t)
	p := InterfaceEntry(SandboxKey("4f"), "n", "eth0", "p")
	publish(t, r, p)
	before := tree(t, r)
	l := lock(t, r, Sandbox(SandboxKey("4f")))
	s := stage(t, r, "p")
	wantError(t, s.Publish(p), ErrExist)
	must(t, s.Discard())
	release(t, l)
	wantTree(t, r, before...)
	// Not even an empty directory.
	k := ContainerKey("a", "/a")
	l = lock(t, r, Container(k))
	empty := ContainerEntry(k, "p")
	must(t, os.Mkdir(filepath.Join(r.Path(), empty.String()), 0o700))
	wantError(t, stage(t, r, "p").Publish(empty), ErrExist)
	release(t, l)
}

// pinFunc is a Pinner that a test makes up.
type pinFunc func(path string) error

func (f pinFunc) Pin(path string) error { return f(path) }

// Each step of an attachment fails in turn; nothing must be left.
func TestEachStepFails(t *testing.T) {
	refused := errors.New("refused")
	fails := pinFunc(func(string) error { return refused })
	long := strings.Repeat("/", 300)
	p := InterfaceEntry(SandboxKey("4f"), "n", "eth0", "p")
	type step func(r *Root, s *Staging) error
	nothing := func(*Root, *Staging) error { return nil }
	link := func(name string, pinner Pinner) step {
		return func(_ *Root, s *Staging) error { return s.PinLink(name, pinner) }
	}
	aMap := func(name string, pinner Pinner) step {
		return func(_ *Root, s *Staging) error { return s.PinMap(name, pinner) }
	}
	record := func(rec Record) step {
		return func(_ *Root, s *Staging) error { return s.WriteRecord(rec) }
	}
	publish := func(_ *Root, s *Staging) error { return s.Publish(p) }
	large := someRecord("p")
	large.Generation = strings.Repeat("x", MaxRecord)
	steps := []struct {
		name     string
		do, fail step
		want     error
	}{
		{"link", link("a", unpinned(t)), link("a", fails), refused},
		{"second link", link("b", unpinned(t)), link("a", unpinned(t)), ErrExist},
		{"link name", nothing, link(long, unpinned(t)), ErrName},
		{"map", aMap("m", unpinned(t)), aMap("m", fails), refused},
		{"map name", nothing, aMap(long, unpinned(t)), ErrName},
		{"record", record(someRecord("p")), record(large), ErrTooLarge},
		{"second record", nothing, record(someRecord("p")), ErrExist},
		{"publish", publish, func(r *Root, s *Staging) error {
			// The owner's directory vanishes under its lock.
			if err := os.Remove(filepath.Join(r.Path(), "sandboxes/4f")); err != nil {
				return err
			}
			return s.Publish(p)
		}, ErrNotExist},
	}
	for i, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			r := newRoot(t)
			l := lock(t, r, Sandbox(SandboxKey("4f")))
			s, err := r.Stage()
			if err != nil {
				t.Fatal(err)
			}
			for _, before := range steps[:i] {
				if err := before.do(r, s); err != nil {
					t.Fatal(err)
				}
			}
			wantError(t, step.fail(r, s), step.want)
			must(t, s.Discard())
			release(t, l)
			wantTree(t, r)
		})
	}
}

// unpinned returns a Pinner that pins a new map each time.
func unpinned(t *testing.T) Pinner {
	t.Helper()
	return pinFunc(func(path string) error { return newMap(t).Pin(path) })
}

func TestPublishNeedsARecord(t *testing.T) {
	r := newRoot(t)
	lock(t, r, childOwner)
	s, err := r.Stage()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Discard()
	must(t, s.PinLink("a", newMap(t)))
	err = s.Publish(ContainerEntry(childOwner.Key(), "p"))
	wantError(t, err, ErrIncomplete)
	wantError(t, err, ErrNoRecord)
}

// cilium/ebpf moves the pin of an object that is pinned a second time. An entry
// that has lost one that way must not be published.
func TestPublishMissesAStolenPin(t *testing.T) {
	r := newRoot(t)
	lock(t, r, childOwner)
	m := newMap(t)
	a, b := stage(t, r, "a"), stage(t, r, "b")
	must(t, a.PinMap("shared", m))
	must(t, b.PinMap("shared", m))
	err := a.Publish(ContainerEntry(childOwner.Key(), "a"))
	wantError(t, err, ErrIncomplete)
	if err == nil || !strings.Contains(err.Error(), "map_shared") {
		t.Errorf("error %v does not name the pin", err)
	}
	must(t, b.Publish(ContainerEntry(childOwner.Key(), "b")))
}

func TestStageAndPinAtOnce(t *testing.T) {
	r := newRoot(t)
	lock(t, r, childOwner)
	s, err := r.Stage()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Discard()
	var wg sync.WaitGroup
	for i := range 16 {
		m := newMap(t)
		wg.Go(func() { must(t, s.PinLink(fmt.Sprint("l", i), m)) })
	}
	wg.Wait()
	must(t, s.WriteRecord(someRecord("p")))
	p := ContainerEntry(childOwner.Key(), "p")
	must(t, s.Publish(p))
	if n := len(entry(t, r, p).Links()); n != 16 {
		t.Errorf("%d links, want 16", n)
	}
}

func TestRemoveStaging(t *testing.T) {
	r := newRoot(t)
	cmd, name := startChild(t, "stage", filepath.Dir(filepath.Dir(r.Path())))
	if names, err := r.StagingNames(); err != nil || !slices.Equal(names, []string{name}) {
		t.Fatalf("staging: %q, %v, want %q", names, err, name)
	}
	// Stopped is not dead.
	must(t, cmd.Process.Signal(syscall.SIGSTOP))
	before := tree(t, r)
	wantError(t, r.RemoveStaging(name), ErrBusy)
	wantTree(t, r, before...)
	cmd.Process.Kill()
	cmd.Wait()
	must(t, r.RemoveStaging(name))
	wantTree(t, r)
	wantError(t, r.RemoveStaging(name), ErrNotExist)
}

// A sweep that opened a staging directory just before it was published must not
// take the entry apart.
func TestRemoveStagingLosesToPublish(t *testing.T) {
	r := newRoot(t)
	lock(t, r, childOwner)
	s := stage(t, r, "p")
	fd, err := openDir(r.fd, stagingPath(s.name))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	name := s.name
	must(t, s.Publish(ContainerEntry(childOwner.Key(), "p")))
	must(t, tryFlock(fd, unix.LOCK_EX)) // as tryDir would
	if ok, err := same(fd, r.fd, stagingPath(name)); ok || err != nil {
		t.Errorf("the published directory still counts as staging: %v", err)
	}
	wantError(t, r.RemoveStaging(name), ErrNotExist)
}

func TestStagingNamesAreTakenOnce(t *testing.T) {
	r := newRoot(t)
	seen := make(map[string]bool)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			s, err := r.Stage()
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Discard()
			mu.Lock()
			defer mu.Unlock()
			if seen[s.name] {
				t.Errorf("%s twice", s.name)
			}
			seen[s.name] = true
		})
	}
	// Sweeps that run meanwhile must not disturb it.
	wg.Go(func() {
		for range 200 {
			names, err := r.StagingNames()
			must(t, err)
			for _, name := range names {
				if err := r.RemoveStaging(name); err != nil && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrNotExist) {
					t.Error(err)
				}
			}
		}
	})
	wg.Wait()
	wantTree(t, r)
}

func TestRecordMustNotChangePaths(t *testing.T) {
	r := newRoot(t)
	s, err := r.Stage()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Discard()
	for _, rec := range []Record{
		{Cgroup: &CgroupRecord{Path: "/sys/fs/cgroup/a\xffb"}, Identity: specs.Identity{}},
		{Netns: &NetnsRecord{Path: "/run/netns/a\xffb"}},
	} {
		if err := s.WriteRecord(rec); err == nil {
			t.Errorf("%+v was written", rec)
		}
	}
}
