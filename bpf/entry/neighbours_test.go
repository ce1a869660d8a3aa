// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// examined returns all findings on one entry.
func (f *fixture) examined(t testing.TB, p pin.Place) []Finding {
	t.Helper()
	it, ok := f.Look(p)
	if !ok {
		t.Fatalf("no entry %s", p)
	}
	return f.Examine().Entry(it)
}

// wantProblems compares the problems of findings with those wanted, in order.
func wantProblems(t testing.TB, findings []Finding, want ...Problem) {
	t.Helper()
	var got []Problem
	for _, f := range findings {
		got = append(got, f.Problem)
	}
	if !slices.Equal(got, want) {
		t.Errorf("problems %q, want %q\n%+v", got, want, findings)
	}
}

// theirProgram is somebody else's program for a hook; it lets everything pass.
func theirProgram(t testing.TB, spec *ebpf.ProgramSpec, verdict int32) *ebpf.Program {
	t.Helper()
	spec.Name, spec.License = "theirs", "GPL"
	spec.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()}
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func attachTCX(t *testing.T, index int, p *ebpf.Program, at ebpf.AttachType, anchor link.Anchor) {
	t.Helper()
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: at, Anchor: anchor})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

func TestForeignProgramInFrontOnTCX(t *testing.T) {
	ps := interfacePlans(t)
	ps["inside"] = plan(t, "inside", program("landing", specs.HookTCXEgress))
	f := newFixture(t, ps)
	s := newSandbox(t, "pod", "lpnb0")
	f.mustAdd(t, s, "tcx", "inside")
	place := pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "tcx")
	inside := pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "inside")
	wantProblems(t, f.examined(t, place))

	theirs := func() *ebpf.Program { return theirProgram(t, &ebpf.ProgramSpec{Type: ebpf.SchedCLS}, -1) }
	attachTCX(t, s.iface.Peer.Index, theirs(), ebpf.AttachTCXIngress, link.Tail())
	wantProblems(t, f.examined(t, place)) // behind ours
	attachTCX(t, s.iface.Peer.Index, theirs(), ebpf.AttachTCXIngress, link.Head())
	findings := f.examined(t, place)
	wantProblems(t, findings, ProblemInFront)
	if findings[0].Problem.Drift() || !strings.Contains(findings[0].Detail, "(theirs)") {
		t.Errorf("%+v", findings[0])
	}
	// Repair leaves it where it is.
	repaired, err := f.Examine().Repair(context.Background(), place)
	if err != nil {
		t.Fatal(err)
	}
	wantProblems(t, repaired, ProblemInFront)

	// On the container's side the query is made in its namespace.
	wantProblems(t, f.examined(t, inside))
	s.ns.Do(t, func() { attachTCX(t, s.iface.Index, theirs(), ebpf.AttachTCXEgress, link.Head()) })
	wantProblems(t, f.examined(t, inside), ProblemInFront)

	// A program at XDP is before all of tcx/ingress.
	x := theirProgram(t, &ebpf.ProgramSpec{Type: ebpf.XDP}, 2)
	l, err := link.AttachXDP(link.XDPOptions{Program: x, Interface: s.iface.Peer.Index, Flags: link.XDPGenericMode})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	findings = f.examined(t, place)
	wantProblems(t, findings, ProblemInFront)
	if strings.Count(findings[0].Detail, "(theirs)") != 2 {
		t.Errorf("%s", findings[0].Detail)
	}
}

// Other policies of ours are no neighbours, also if another container made them.
func TestOurOwnProgramInFrontIsNoWarning(t *testing.T) {
	ps := interfacePlans(t)
	ps["second"] = plan(t, "second", program("landing", specs.HookTCXIngress, onHost))
	f := newFixture(t, ps)
	s := newSandbox(t, "pod", "lpnb1")
	f.mustAdd(t, s, "tcx", "second")
	wantProblems(t, f.examined(t, pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "second")))
}

func TestForeignProgramInFrontOnCgroup(t *testing.T) {
	f := newFixture(t, plans{"cg": plan(t, "cg", program("connect4", "cgroup/connect4"), program("read_cgroup", "cgroup_skb/egress"))})
	c := newContainer(t, "web")
	for _, spec := range []*ebpf.ProgramSpec{
		{Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect},
		{Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress},
	} {
		raw, err := link.AttachRawLink(link.RawLinkOptions{Target: int(c.sub.Cgroup.Dir.Fd()), Program: theirProgram(t, spec, 1), Attach: spec.AttachType})
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
	}
	f.mustAttach(t, c, "cg")
	// All programs of a cgroup run: only where the one before can rewrite is it told.
	findings := f.examined(t, pin.ContainerEntry(c.key, "cg"))
	wantProblems(t, findings, ProblemInFront)
	if findings[0].Program != "connect4" {
		t.Errorf("%+v", findings)
	}
}

// What is attached to a cgroup below a container's, in every way, takes nothing off.
func TestChildCgroupOverridesNothing(t *testing.T) {
	f := newFixture(t, plans{"cg": plan(t, "cg", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	f.mustAttach(t, c, "cg")
	it, _ := f.Look(pin.ContainerEntry(c.key, "cg"))
	for name, flags := range map[string]uint32{"none": 0, "override": 1, "multi": 2} {
		child := c.dir + "/" + name
		if err := os.Mkdir(child, 0o755); err != nil {
			t.Fatal(err)
		}
		dir, err := os.Open(child)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		theirs := theirProgram(t, &ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: connect4}, 1)
		if err := link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: theirs, Attach: connect4, Flags: flags}); err != nil {
			t.Logf("%s: %v", name, err)
		}
		r, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: connect4, QueryFlags: 1})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(r.Programs, func(p link.AttachedProgram) bool { return uint32(p.ID) == it.Record.Programs[0].ProgramID }) {
			t.Errorf("%s: ours does not run for the child: %v", name, r.Programs)
		}
	}
	wantProblems(t, f.examined(t, pin.ContainerEntry(c.key, "cg")))
}

func rename(t testing.TB, old, next string) {
	t.Helper()
	l, err := netlink.LinkByName(old)
	if err == nil {
		err = errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, next))
	}
	if err != nil {
		t.Error(err)
	}
}

// An interface keeps its programs under every name, and a theft is seen under every name.
func TestRenamedInterface(t *testing.T) {
	ps := interfacePlans(t)
	f := newFixture(t, ps)
	s := newSandbox(t, "pod", "lprn0")
	f.mustAdd(t, s, "tcx", "xdp")
	outside, inside := pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "tcx"), pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "xdp")
	rename(t, "lprn0", "lprn1")
	wantProblems(t, f.examined(t, outside), ProblemRenamed)
	s.ns.Do(t, func() { rename(t, "eth0", "eth7") })
	wantProblems(t, f.examined(t, inside), ProblemRenamed)
	for _, p := range []pin.Place{outside, inside} {
		_, path := f.verified(t, p)
		withLink(t, path, func(l *attach.Link) error { return l.Detach() })
		wantProblems(t, f.examined(t, p), ProblemSevered)
		findings, err := f.Examine().Repair(context.Background(), p)
		if err != nil || len(findings) != 2 || findings[0].Repaired == "" || findings[0].Err != nil {
			t.Errorf("%+v, %v", findings, err)
		}
		wantProblems(t, f.examined(t, p), ProblemRenamed)
	}
}

// A device that is moved takes its link along: nothing is lost, but somebody should look.
// One that is made in its place has no programs.
func TestMovedAndReplacedInterface(t *testing.T) {
	for _, policy := range []string{"xdp", "inside"} {
		t.Run(policy, func(t *testing.T) {
			ps := interfacePlans(t)
			ps["inside"] = plan(t, "inside", program("landing", specs.HookTCXEgress))
			f := newFixture(t, ps)
			s, other := newSandbox(t, "pod", "lpmv0"), bpftest.NetNS(t)
			f.mustAdd(t, s, policy)
			place := pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", policy)
			s.ns.Do(t, func() {
				l, err := netlink.LinkByName("eth0")
				if err == nil {
					err = netlink.LinkSetNsPid(l, other.PID())
				}
				if err != nil {
					t.Error(err)
				}
			})
			wantProblems(t, f.examined(t, place), ProblemElsewhere)
			dummy := func(index int) {
				s.ns.Do(t, func() {
					if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", Index: index}, PeerName: "peer0"}); err != nil {
						t.Error(err)
					}
				})
			}
			dummy(s.iface.Index + 20)
			wantProblems(t, f.examined(t, place), ProblemReplaced)
			s.ns.Do(t, func() {
				if l, err := netlink.LinkByName("eth0"); err != nil || netlink.LinkDel(l) != nil {
					t.Error("eth0 is not deleted")
				}
			})
			dummy(s.iface.Index) // not even the index tells
			findings := f.examined(t, place)
			wantProblems(t, findings, ProblemReplaced)
			if !findings[0].Problem.Drift() {
				t.Error("no drift")
			}
		})
	}
}

// An interface that is deleted and made again has lost its programs, and that is no end.
func TestReplacedInterfaceIsDrift(t *testing.T) {
	f := newFixture(t, interfacePlans(t))
	s := newSandbox(t, "pod", "lprp0")
	f.mustAdd(t, s, "tcx", "xdp")
	bpftest.Veth(t, s.ns, "lprp1", "tmp0")
	s.ns.Do(t, func() {
		if err := replace("eth0", "tmp0"); err != nil {
			t.Error(err)
		}
	})
	for _, p := range []string{"tcx", "xdp"} {
		place := pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", p)
		bpftest.Eventually(t, "link is severed", func() error {
			if it, _ := f.Look(place); it.Links[0].Info.State != attach.Severed {
				return errors.New("not yet")
			}
			return nil
		})
		wantProblems(t, f.examined(t, place), ProblemReplaced)
		findings, err := f.Repair(context.Background(), place)
		if err != nil || len(findings) != 1 || findings[0].Repaired != "" {
			t.Errorf("%+v, %v", findings, err)
		}
	}
}

func TestMovedProcess(t *testing.T) {
	f := newFixture(t, plans{"cg": plan(t, "cg", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	f.mustAttach(t, c, "cg")
	place := pin.ContainerEntry(c.key, "cg")
	put := func(dir string) {
		t.Helper()
		if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(c.pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	child := c.dir + "/init"
	if err := os.Mkdir(child, 0o755); err != nil {
		t.Fatal(err)
	}
	bpftest.CgroupProcess(t, c.dir) // the container goes on without it
	put(child)
	wantProblems(t, f.examined(t, place))
	for _, dir := range []string{bpftest.Cgroup(t), bpftest.Cgroup2Mount(t)} {
		put(dir)
		findings := f.examined(t, place)
		wantProblems(t, findings, ProblemMoved)
		if !findings[0].Problem.Drift() || findings[0].Remedy == "" {
			t.Errorf("%+v", findings[0])
		}
	}
	put(c.dir)
	wantProblems(t, f.examined(t, place))
}

// What is pinned beside ours in an entry is told and stays.
func TestForeignPinsInAnEntry(t *testing.T) {
	f := newFixture(t, plans{"cg": plan(t, "cg", program("connect4", "cgroup/connect4"))})
	c := newContainer(t, "web")
	f.mustAttach(t, c, "cg")
	place := pin.ContainerEntry(c.key, "cg")
	_, path := f.verified(t, place)
	withLink(t, path, func(l *attach.Link) error { return l.Pin(strings.TrimSuffix(path, "connect4") + "theirs") })
	wantProblems(t, f.examined(t, place), ProblemForeign)
	if _, err := f.Examine().Repair(context.Background(), place); err != nil {
		t.Fatal(err)
	}
	wantProblems(t, f.examined(t, place), ProblemForeign)
}

// What was both unpinned and updated or detached is mended in one go.
func TestRepairMendsTwice(t *testing.T) {
	f := newFixture(t, plans{"cg": plan(t, "cg", program("connect4", "cgroup/connect4"))})
	for name, more := range map[string]func(*attach.Link) error{
		"detached": func(l *attach.Link) error { return l.Detach() },
		"updated": func(l *attach.Link) error {
			return l.Update(theirProgram(t, &ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: connect4}, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t, name)
			f.mustAttach(t, c, "cg")
			place := pin.ContainerEntry(c.key, "cg")
			_, path := f.verified(t, place)
			l, err := attach.OpenPinned(path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			remove(t, path)
			if err := more(l); err != nil {
				t.Fatal(err)
			}
			findings, err := f.Repair(context.Background(), place)
			if err != nil || len(findings) != 1 || findings[0].Repaired == "" || findings[0].Err != nil {
				t.Errorf("%+v, %v", findings, err)
			}
			wantProblems(t, f.examined(t, place))
		})
	}
}

func TestOutdatedIsANote(t *testing.T) {
	ps := plans{"cg": plan(t, "cg", program("connect4", "cgroup/connect4"))}
	f := newFixture(t, ps)
	c := newContainer(t, "web")
	f.mustAttach(t, c, "cg")
	f.Session = &Session{Root: f.Root, Plans: newer{ps}, By: pin.ByCLI, Warn: f.Warn}
	findings := f.examined(t, pin.ContainerEntry(c.key, "cg"))
	wantProblems(t, findings, ProblemOutdated)
	if findings[0].Problem.Level() != LevelNote || findings[0].Remedy != "`linkpin update cg`" {
		t.Errorf("%+v", findings[0])
	}
}

// newer is an applied set in which every policy has changed.
type newer struct{ plans }

func (n newer) Plan(name string) (*specs.Plan, string, error) {
	p, digest, err := n.plans.Plan(name)
	return p, digest + "-newer", err
}
