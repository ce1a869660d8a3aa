// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// TestFilterChild is the process that TestFilterKilled kills.
func TestFilterChild(t *testing.T) {
	if flag.NArg() != 2 {
		return
	}
	root, err := pin.Open(pin.Options{Path: flag.Arg(0)})
	if err != nil {
		t.Fatal(err)
	}
	ns, err := target.OpenNetns(flag.Arg(1))
	if err != nil {
		t.Fatal(err)
	}
	iface, err := ns.Interface("eth0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sandbox{id: "pod", iface: iface, sub: &Subject{Identity: specs.Identity{ContainerID: "pod", Network: "net"}, Netns: ns}}
	s.sub.Recheck = func() error { return unix.Kill(os.Getpid(), unix.SIGKILL) }
	f := &fixture{Session: &Session{Root: root, Plans: killedPlans(t), attachLink: oldKernel}}
	t.Error(f.add(t, s, "host", "ctr"))
}

func killedPlans(t testing.TB) plans {
	return plans{"host": filterPlan(t, "host", actShot, onHost), "ctr": filterPlan(t, "ctr", actNext)}
}

// Unlike links, filters outlive the process that made them: killed before it could
// publish, it leaves a note of them, and one gc takes them off.
func TestFilterKilled(t *testing.T) {
	f := newOldKernel(t, killedPlans(t))
	s := newSandbox(t, "pod", "lpfil5")
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestFilterChild$", "--", strings.TrimSuffix(f.Root.Path(), "/linkpin/v1"), s.ns.Path())
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("it was not killed: %v", err)
	}
	inside := func() (n int) {
		s.ns.Do(t, func() { n = len(filters(t, "eth0", netlink.HANDLE_MIN_INGRESS)) })
		return n
	}
	if n := len(filters(t, "lpfil5", netlink.HANDLE_MIN_INGRESS)); n != 1 || inside() != 1 || s.arrives(t) {
		t.Fatalf("%d filters on the host, %d inside", n, inside())
	}
	early := foreign(t, "lpfil5", "theirs", 1, 1)
	if _, err := f.GC(context.Background(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := filters(t, "lpfil5", netlink.HANDLE_MIN_INGRESS); !slices.Equal(got, []string{"theirs"}) || inside() != 0 || !s.gets(t) {
		t.Errorf("left: %q, and %d inside", got, inside())
	}
	s.ns.Do(t, func() {
		if hasClsact(t, "eth0") {
			t.Error("the qdisc inside is left")
		}
	})
	emptyState(t, f)
	if err := netlink.FilterDel(early); err != nil {
		t.Error(err)
	}
}

// As long as its maker lives, nobody touches what it is making.
func TestFilterInTheMaking(t *testing.T) {
	f := newOldKernel(t, plans{"drop": filterPlan(t, "drop", actShot, onHost)})
	s := newSandbox(t, "pod", "lpfil6")
	other := f.another(t)
	s.sub.Recheck = func() error {
		r, err := other.GC(context.Background(), GCOptions{})
		if err == nil && r.Busy == 0 {
			err = errors.New("nothing was busy")
		}
		return err
	}
	f.mustAdd(t, s, "drop")
	if s.arrives(t) {
		t.Error("the filter is gone")
	}
}

// The note comes first: without it nothing is made.
func TestFilterIsNotedFirst(t *testing.T) {
	f := newOldKernel(t, plans{})
	s := newSandbox(t, "pod", "lpfilc")
	other := foreignProgram(t)
	full := errors.New("no space left")
	_, _, err := f.addFilter(attach.FilterOptions{
		Program: other, Target: attach.Target{Interface: s.iface}, Name: "x",
		Attachment: specs.Attachment{Hook: specs.HookTCXIngress, Side: specs.SideHost},
	}, pin.ProgramRecord{}, s.sub.Netns, pin.Sandbox("pod"), func(row pin.ProgramRecord) error {
		if row.Filter == nil || row.Filter.Priority == 0 || !row.Filter.MadeQdisc || row.Ifindex != s.iface.Peer.Index || row.ProgramID == 0 {
			t.Errorf("noted %+v with %+v", row, row.Filter)
		}
		return full
	})
	if !errors.Is(err, full) || hasClsact(t, "lpfilc") {
		t.Errorf("%v, and a qdisc: %v", err, hasClsact(t, "lpfilc"))
	}
}

// The process by which a namespace was known may end before those that hold it.
func TestFilterNetnsByItsProcesses(t *testing.T) {
	f := newOldKernel(t, plans{"in": filterPlan(t, "in", actNext)})
	s := newSandbox(t, "pod", "lpfild")
	path := s.sub.Netns.Path
	s.sub.Netns.Path = "/proc/0/ns/net"
	f.mustAdd(t, s, "in")
	item, _ := f.Look(s.place("in"))
	if item.Links[0].Err != nil || item.Links[0].Info.State != attach.Live {
		t.Errorf("%+v", item.Links[0])
	}
	note := pin.Filters{Netns: item.Record.Netns, Programs: item.Record.Programs}
	is := func(when string, want bool) {
		t.Helper()
		ns := f.noteNetns(note)
		if (ns != nil) != want {
			t.Errorf("%s: found %v", when, ns)
		}
		if ns != nil {
			ns.Close()
		}
	}
	is("by a process", true)
	f.Roots.Proc = t.TempDir()
	is("by nothing", false)
	note.Sandbox = s.sub.Sandbox
	is("by an entry that knows no better", false)
	s.sub.Netns.Path = path
	f.mustAdd(t, s, "in")
	note.Netns.Cookie++
	is("with another cookie", false)
	f.Roots.Proc = ""
	is("with another cookie, by a process", false)
}

// What is taken down to be made anew takes its filters along.
func TestFilterIsTakenDown(t *testing.T) {
	f := newOldKernel(t, plans{"drop": filterPlan(t, "drop", actShot, onHost)})
	s := newSandbox(t, "pod", "lpfile")
	f.mustAdd(t, s, "drop")
	lock := f.lock(t, pin.Sandbox(s.sub.Sandbox))
	defer lock.Release()
	e, err := f.Root.Entry(s.place("drop"))
	if err == nil {
		err = f.takeDown(e)
	}
	if err != nil || hasClsact(t, "lpfile") {
		t.Errorf("%v, and a qdisc: %v", err, hasClsact(t, "lpfile"))
	}
}
