// SPDX-License-Identifier: Apache-2.0

package cost

import (
	"context"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// crowd is how much there is of each kind on a node that is not empty.
const (
	containers = 300
	sandboxes  = 200
	draining   = 200
	abandoned  = 100
	busy       = 50
)

// filler makes entries that are in force. Making hundreds of containers would take
// minutes: here they have one process, one cgroup and one link together, which nobody
// who looks at one of them at a time can tell.
type filler struct {
	t      *testing.T
	root   *pin.Root
	cgroup *target.Cgroup
	pid    int
	start  target.ProcessStart
	netns  *bpftest.NS
	row    pin.ProgramRecord // of the one link
}

func newFiller(t *testing.T) *filler {
	t.Helper()
	root, err := pin.Create(pin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	f := &filler{t: t, root: root}
	dir := bpftest.Cgroup(t)
	f.netns = bpftest.NetNSProcess(t, dir)
	f.pid = f.netns.PID()
	if f.cgroup, err = target.CgroupOfPID(target.Roots{}, f.pid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.cgroup.Close() })
	if f.start, err = target.StartTime(target.Roots{}, f.pid); err != nil {
		t.Fatal(err)
	}
	connect4, err := link.AttachCgroup(link.CgroupOptions{
		Path: dir, Attach: ebpf.AttachCGroupInet4Connect, Program: program(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connect4.Close() })
	info, err := connect4.Info()
	if err != nil {
		t.Fatal(err)
	}
	f.row = pin.ProgramRecord{
		Name: "connect4", Key: "connect4", Hook: "cgroup/connect4", Target: specs.TargetCgroup,
		LinkID: uint32(info.ID), ProgramID: uint32(info.Program),
	}
	return f
}

func program(t *testing.T) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// stage stages an entry that holds the link, as all others do.
func (f *filler) stage(on pin.Target, rec pin.Record) *pin.Staging {
	f.t.Helper()
	st, err := f.root.StageFor(on)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, p := range rec.Programs {
		l, err := attach.OpenID(p.LinkID)
		if err != nil {
			f.t.Fatal(err)
		}
		f.must(st.PinLink(p.Name, l))
		f.must(l.Close())
	}
	f.must(st.WriteRecord(rec))
	return st
}

func (f *filler) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *filler) record(id string) pin.Record {
	return pin.Record{
		Policy: "crowd", Digest: "crowd", OnError: specs.Deny, Teardown: specs.Drain, Scope: specs.ScopeContainer,
		Identity: specs.Identity{Caller: specs.CallerNone, ContainerID: id}, By: pin.ByHook, Bundle: "/" + id,
		PID: f.pid, Start: uint64(f.start), Cgroup: &pin.CgroupRecord{Path: f.cgroup.Path, ID: f.cgroup.ID}, Programs: []pin.ProgramRecord{f.row},
	}
}

// container publishes an entry of a container that runs. retired, if it is not empty, is
// why it is retired at once: its link drains.
func (f *filler) container(id, retired string, from pin.Target) {
	f.t.Helper()
	key := pin.ContainerKey(id, "/"+id)
	lock, err := f.root.Lock(context.Background(), pin.Container(key))
	f.must(err)
	place := pin.ContainerEntry(key, "crowd")
	f.must(f.stage(pin.Target{}, f.record(id)).Publish(place))
	if retired != "" {
		_, err := f.root.RetireFrom(place, retired, from)
		f.must(err)
	}
	f.must(lock.Release())
}

// sandbox publishes what linkpin-cni would for a pod, with the index.
func (f *filler) sandbox(id string, cookie uint64) {
	f.t.Helper()
	key := pin.SandboxKey(id)
	lock, err := f.root.Lock(context.Background(), pin.Sandbox(key))
	f.must(err)
	f.must(f.root.IndexNetns(context.Background(), cookie, key))
	rec := f.record(id)
	rec.By, rec.PID, rec.Start, rec.Cgroup, rec.Sandbox = pin.ByCNI, 0, 0, nil, key
	rec.Netns = &pin.NetnsRecord{Path: f.netns.Path(), Cookie: cookie}
	rec.Interface = &pin.InterfaceRecord{Network: "crowd", Name: "eth0", DiesWithNetns: true}
	f.must(f.stage(pin.Target{}, rec).Publish(pin.InterfaceEntry(key, "crowd", "eth0", "crowd")))
	f.must(lock.Release())
}

// fill makes all of it.
func (f *filler) fill() {
	f.t.Helper()
	const foreign = 1 << 40 // cgroups and namespaces that nobody has here
	for i := range containers {
		f.container(fmt.Sprint("crowd", i), "", pin.Target{})
	}
	for i := range sandboxes {
		f.sandbox(fmt.Sprint("crowd", i), foreign+uint64(i))
	}
	for i := range draining {
		kinds := []struct {
			reason string
			from   pin.Target
		}{
			{"ended", pin.Target{Cgroup: foreign + uint64(i)}}, {"replaced", pin.Target{Cgroup: foreign + uint64(i)}},
			{"left", pin.Target{Netns: foreign + uint64(i)}}, {"deleted", pin.Target{Netns: foreign + uint64(i)}},
		}
		f.container(fmt.Sprint("drain", i), kinds[i%len(kinds)].reason, kinds[i%len(kinds)].from)
	}
	for i := range abandoned + busy {
		on := pin.Target{Cgroup: foreign + uint64(i)}
		if i%2 == 0 {
			on = pin.Target{Netns: foreign + uint64(i)}
		}
		st := f.stage(on, f.record(fmt.Sprint("stage", i)))
		if i < abandoned {
			st.Leave()
		} else {
			f.t.Cleanup(func() { f.must(st.Discard()) })
		}
	}
}
