// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
)

// Where there are many entries, all of them have their turn within a second: what is
// taken off, unpinned or refused is found after as many looks as there are in one.
func TestTurnsOfMany(t *testing.T) {
	f := newFixture(t)
	const count = 2*fewEntries + 3
	all := make([]*container, count)
	for i := range all {
		all[i] = newContainer(t, fmt.Sprintf("c%03d", i))
		f.attach(t, all[i], "egress")
	}
	w, err := newWatcher(Options{Pins: pin.Options{Path: f.bpffs}, Interval: DefaultInterval})
	if err != nil {
		t.Fatal(err)
	}
	defer w.ears.close()
	w.look(lookAll)
	if w.looksPer(linkRound) != 2 {
		t.Fatalf("%d looks in a second", w.looksPer(linkRound))
	}
	for _, i := range []int{0, 1, count - 2, count - 1} {
		place := pin.ContainerEntry(all[i].key, "egress")
		f.withLink(t, place, "connect4", func(path string, l *attach.Link) error {
			if i%2 == 0 {
				return l.Detach()
			}
			return os.Remove(path)
		})
	}
	all[5].dial(t, "192.0.2.1:443")
	all[6].dial(t, "192.0.2.1:443")
	for range w.looksPer(linkRound) {
		w.look(lookAll)
	}
	suspects := 0
	for _, k := range w.entries {
		suspects += len(k.suspects) + len(k.told)
	}
	if suspects != 4 {
		t.Errorf("%d of 4 are found", suspects)
	}
	denied := 0
	for _, e := range w.events {
		if e.Kind == Denied {
			denied++
		}
	}
	if denied != 2 {
		t.Errorf("%d of 2 denials are told", denied)
	}
	if len(w.warned) > 0 {
		t.Errorf("%v", w.warned)
	}
}

// A change that falls into the same tick of the kernel's clock as the one before, which
// has been seen already, does not change the time of a directory.
func TestRecentChange(t *testing.T) {
	dir := t.TempDir()
	for i := range 200 {
		if err := os.WriteFile(fmt.Sprint(dir, "/", i), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		before, err := fingerprintOf(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(fmt.Sprint(dir, "/", i)); err != nil {
			t.Fatal(err)
		}
		now, err := fingerprintOf(dir)
		if err != nil || before.same(now) {
			t.Fatalf("%d: %+v, %+v, %v", i, before, now, err)
		}
	}
}

// What breaks no promise is a warning, and it is told when it is over.
func TestWarning(t *testing.T) {
	f := newFixture(t)
	c := newContainer(t, "web")
	f.attach(t, c, "egress")
	v := f.watch(t, func(o *Options) { o.Initial = true })
	v.of(t, Attached, "web")
	theirs, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "theirs", License: "GPL", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(c.sub.Cgroup.Dir.Fd()), Program: theirs, Attach: ebpf.AttachCGroupInet4Connect})
	if err != nil {
		t.Fatal(err)
	}
	e := v.of(t, Warning, "web")
	if e.Problem != entry.ProblemBehind || e.Program != "connect4" || !strings.Contains(e.Detail, "(theirs)") || e.Place != pin.ContainerEntry(c.key, "egress") {
		t.Errorf("%+v", e)
	}
	// Another policy of ours is no neighbour, though its record came later.
	other := newContainer(t, "other")
	f.attach(t, other, "egress", "four")
	v.of(t, Attached, "other")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if e := v.of(t, Repaired, "web"); e.Problem != entry.ProblemBehind {
		t.Errorf("%+v", e)
	}
	if told := v.all(func(e Event) bool { return e.Kind == Warning || e.Kind == Drift }); len(told) != 1 {
		t.Errorf("%+v", told)
	}
}
