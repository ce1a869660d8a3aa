// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// verified returns the findings on one entry, and its first link's path.
func (f *fixture) verified(t testing.TB, p pin.Place) ([]Finding, string) {
	t.Helper()
	item, ok := f.Look(p)
	if !ok {
		t.Fatalf("no entry %s", p)
	}
	e, err := f.Root.Entry(p)
	if err != nil {
		t.Fatal(err)
	}
	path := ""
	if names := e.Links(); len(names) > 0 {
		path = e.LinkPath(names[0])
	} else if item.Record != nil && len(item.Record.Programs) > 0 {
		path = e.LinkPath(item.Record.Programs[0].Name)
	}
	return f.Verify(item), path
}

// Every way to take a program off that the kernel does not refuse, on a cgroup and
// on an interface: verify sees it, repair mends it, and then all is in order.
func TestRepairMends(t *testing.T) {
	thieves := []struct {
		name  string
		steal func(t *testing.T, f *fixture, path string)
		want  Problem
	}{
		{"force-detach", func(t *testing.T, _ *fixture, path string) {
			withLink(t, path, func(l *attach.Link) error { return l.Detach() })
		}, ProblemSevered},
		{"unpin while somebody holds the link", func(t *testing.T, _ *fixture, path string) {
			l, err := attach.OpenPinned(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			remove(t, path)
		}, ProblemUnpinned},
		{"unpin", func(t *testing.T, _ *fixture, path string) {
			// The descriptor is held across it: the kernel frees a last pin later.
			l, err := attach.OpenPinned(path)
			if err != nil {
				t.Fatal(err)
			}
			remove(t, path)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}, ProblemMissing},
		{"update", func(t *testing.T, f *fixture, path string) {
			other := f.other(t, path)
			withLink(t, path, func(l *attach.Link) error { return l.Update(other) })
		}, ProblemProgram},
	}
	ps := interfacePlans(t)
	ps["cg"] = plan(t, "cg", program("read_cgroup", "cgroup_skb/egress"))
	ps["pod"] = podPlans(t)["pod"]
	for _, target := range []string{"cg", "pod", "tcx", "xdp"} {
		for _, thief := range thieves {
			t.Run(target+"/"+thief.name, func(t *testing.T) {
				f := newFixture(t, ps)
				var place pin.Place
				switch target {
				case "cg":
					c := newContainer(t, "web")
					f.mustAttach(t, c, target)
					place = pin.ContainerEntry(c.key, target)
				case "pod":
					s := newSandbox(t, "pod", "lpver0")
					if err := f.addPod(t, s, openPod(t, bpftest.Cgroup(t))); err != nil {
						t.Fatal(err)
					}
					place = pin.PodCgroupEntry(s.sub.Sandbox, target)
				default:
					s := newSandbox(t, "pod", "lpver0")
					f.mustAdd(t, s, target)
					place = pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", target)
				}
				findings, path := f.verified(t, place)
				if len(findings) != 0 {
					t.Fatalf("before: %+v", findings)
				}
				thief.steal(t, f, path)
				findings, _ = f.verified(t, place)
				if len(findings) != 1 || findings[0].Problem != thief.want || !findings[0].Problem.Drift() {
					t.Fatalf("after the theft: %+v, want %s", findings, thief.want)
				}
				findings, err := f.Repair(context.Background(), place)
				if err != nil || len(findings) != 1 || findings[0].Repaired == "" || findings[0].Err != nil {
					t.Fatalf("repair: %+v, %v", findings, err)
				}
				if findings, _ = f.verified(t, place); len(findings) != 0 {
					t.Errorf("after the repair: %+v", findings)
				}
				item, _ := f.Look(place)
				if item.Links[0].Info.State != attach.Live {
					t.Errorf("link after the repair: %+v", item.Links[0])
				}
			})
		}
	}
}

func withLink(t *testing.T, path string, fn func(*attach.Link) error) {
	t.Helper()
	l, err := attach.OpenPinned(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := fn(l); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// other loads a different program that fits the link at path.
func (f *fixture) other(t *testing.T, path string) *ebpf.Program {
	t.Helper()
	info, err := linkInfo(path)
	if err != nil {
		t.Fatal(err)
	}
	symbol := map[specs.TargetKind]string{specs.TargetCgroup: "connect4", specs.TargetInterface: "connect4"}[info.Hook.Target()]
	p := plan(t, "other", specs.PlanProgram{
		Key: "x", Symbol: symbol, Hook: info.Hook, Attachments: []specs.Attachment{{Name: "x", Hook: info.Hook}},
	})
	col, err := load.Load(context.Background(), load.Options{Plan: p, Object: f.Plans.Object, Attach: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { col.Close() })
	return col.Programs["x"]
}

// A target that has ended is no drift.
func TestEndedTargetIsNoDrift(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	f.mustAttach(t, c, "a")
	place := pin.ContainerEntry(c.key, "a")
	c.end(t)
	c.sub.Cgroup.Close()
	bpftest.RemoveCgroup(t, c.dir)
	bpftest.Eventually(t, "link is severed", func() error {
		findings, _ := f.verified(t, place)
		if len(findings) != 1 || findings[0].Problem != ProblemEnded {
			return errors.New("not yet")
		}
		return nil
	})
}

func TestEndedInterfaceIsNoDrift(t *testing.T) {
	f := newFixture(t, interfacePlans(t))
	s := newSandbox(t, "pod", "lpend0")
	f.mustAdd(t, s, "tcx", "xdp")
	s.kill(t)
	for _, p := range []string{"tcx", "xdp"} {
		bpftest.Eventually(t, "link is severed", func() error {
			findings, _ := f.verified(t, pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", p))
			if len(findings) != 1 || findings[0].Problem != ProblemEnded {
				return errors.New("not yet")
			}
			return nil
		})
	}
}

// Somebody else's XDP program stays where it is: what is lost is reported.
func TestRepairLeavesOthersAlone(t *testing.T) {
	f := newFixture(t, interfacePlans(t))
	s := newSandbox(t, "pod", "lpoth0")
	f.mustAdd(t, s, "xdp")
	place := pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "xdp")
	_, path := f.verified(t, place)
	other := f.other(t, path)
	withLink(t, path, func(l *attach.Link) error { return l.Detach() })
	foreign, err := attach.Attach(other, specs.Attachment{Name: "foreign", Hook: specs.HookXDP, Side: specs.SideContainer},
		attach.Target{Interface: s.iface})
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	findings, err := f.Repair(context.Background(), place)
	if err != nil || len(findings) != 1 || !errors.Is(findings[0].Err, attach.ErrBusy) {
		t.Fatalf("%+v, %v", findings, err)
	}
	if info, err := foreign.Info(); err != nil || info.State != attach.Live {
		t.Errorf("the other program: %+v, %v", info, err)
	}
}

// What somebody took off is drift, and stays to be seen: only what the kernel severed
// is swept.
func TestSweepHidesNoTheft(t *testing.T) {
	for _, thief := range []struct {
		name  string
		steal func(t *testing.T, path string)
	}{
		{"force-detach", func(t *testing.T, path string) {
			withLink(t, path, func(l *attach.Link) error { return l.Detach() })
		}},
		{"unpin", remove},
	} {
		t.Run(thief.name, func(t *testing.T) {
			f := newFixture(t, interfacePlans(t))
			s := newSandbox(t, "pod", "lphid0")
			f.mustAdd(t, s, "tcx")
			place := pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "tcx")
			_, path := f.verified(t, place)
			thief.steal(t, path)
			if _, err := f.GC(context.Background(), GCOptions{}); err != nil {
				t.Fatal(err)
			}
			if findings, _ := f.verified(t, place); len(findings) != 1 || !findings[0].Problem.Drift() {
				t.Errorf("after gc: %+v", findings)
			}
		})
	}
}

// A link of another container in the place of ours is not taken for ours, even if it
// runs the same program.
func TestRepairRecordsNoForeignLink(t *testing.T) {
	f := newFixture(t, plans{"cg": plan(t, "cg", program("connect4", "cgroup/connect4"))})
	ours, theirs := newContainer(t, "ours"), newContainer(t, "theirs")
	f.mustAttach(t, ours, "cg")
	f.mustAttach(t, theirs, "cg")
	place := pin.ContainerEntry(ours.key, "cg")
	_, path := f.verified(t, place)
	_, foreign := f.verified(t, pin.ContainerEntry(theirs.key, "cg"))
	withLink(t, path, func(l *attach.Link) error {
		remove(t, path)
		return nil
	})
	withLink(t, foreign, func(l *attach.Link) error { return l.Pin(path) })
	if findings, _ := f.verified(t, place); len(findings) != 1 || findings[0].Problem != ProblemLink {
		t.Fatalf("%+v", findings)
	}
	if findings, err := f.Repair(context.Background(), place); err != nil || len(findings) != 1 || findings[0].Repaired == "" {
		t.Fatalf("%+v, %v", findings, err)
	}
	for _, c := range []*container{ours, theirs} {
		if got := attached(t, c.dir, connect4); got != 1 {
			t.Errorf("%d programs, want 1", got)
		}
	}
	if findings, _ := f.verified(t, place); len(findings) != 0 {
		t.Errorf("after the repair: %+v", findings)
	}
}

// A link that is lost is mended in its entry; the others of it are not touched. What
// has lost its interface is made anew.
func TestCovered(t *testing.T) {
	f := newFixture(t, plans{"two": plan(t, "two",
		program("read_ifindex", specs.HookTCXIngress, onHost), program("landing", specs.HookTCXEgress, onHost))})
	s := newSandbox(t, "pod", "lpcov0")
	f.mustAdd(t, s, "two")
	place := pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "two")
	before, _ := f.Look(place)
	e, err := f.Root.Entry(place)
	if err != nil {
		t.Fatal(err)
	}
	withLink(t, e.LinkPath("landing"), func(l *attach.Link) error { return l.Detach() })
	f.mustAdd(t, s, "two")
	after, _ := f.Look(place)
	for i, p := range after.Record.Programs {
		if after.Links[i].Info.State != attach.Live {
			t.Errorf("%s: %+v", p.Name, after.Links[i])
		}
		if same := p.LinkID == before.Record.Programs[i].LinkID; same != (p.Name == "read_ifindex") {
			t.Errorf("%s: link %d before, %d now", p.Name, before.Record.Programs[i].LinkID, p.LinkID)
		}
	}
	if len(f.warnings) != 1 {
		t.Errorf("warnings: %v", f.warnings)
	}

	// What can't be mended must not take along what is left.
	kept := f.Plans
	f.Plans = plans{}
	withLink(t, e.LinkPath("landing"), func(*attach.Link) error { remove(t, e.LinkPath("landing")); return nil })
	bpftest.Eventually(t, "the program is gone", func() error {
		if p, err := ebpf.NewProgramFromID(ebpf.ProgramID(after.Record.Programs[1].ProgramID)); err == nil {
			p.Close()
			return errors.New("not yet")
		}
		return nil
	})
	l := f.lock(t, pin.Sandbox(s.sub.Sandbox))
	if covered, err := f.Covered(context.Background(), place); covered || err == nil {
		t.Errorf("covered %v, %v", covered, err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if item, ok := f.Look(place); !ok || item.Links[0].Info.State != attach.Live {
		t.Errorf("the other link: %+v", item)
	}
	f.Plans = kept

	// The interface is made again, with the same name.
	bpftest.Veth(t, s.ns, "lpcov1", "tmp0")
	s.ns.Do(t, func() {
		if err := replace("eth0", "tmp0"); err != nil {
			t.Error(err)
		}
	})
	if s.iface, err = s.sub.Netns.Interface("eth0"); err != nil {
		t.Fatal(err)
	}
	f.mustAdd(t, s, "two")
	item, _ := f.Look(place)
	if len(item.Links) != 2 || item.Record.Interface.Index != s.iface.Index || item.Links[0].Info.State != attach.Live {
		t.Errorf("%+v", item)
	}
}

// replace removes an interface and gives its name to another one.
func replace(old, next string) error {
	l, err := netlink.LinkByName(old)
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err == nil {
		l, err = netlink.LinkByName(next)
	}
	if err == nil {
		err = netlink.LinkSetDown(l)
	}
	if err == nil {
		err = netlink.LinkSetName(l, old)
	}
	return err
}
