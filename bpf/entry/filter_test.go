// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// Verdicts of tc programs (include/uapi/linux/pkt_cls.h).
const (
	actNext = 0xffffffff // TC_ACT_UNSPEC: the next filter decides
	actShot = 2
)

// filterPlan has a tc program with that verdict, and allows a filter.
func filterPlan(t testing.TB, name string, verdict uint32, more ...func(*specs.Attachment)) *specs.Plan {
	t.Helper()
	p := plan(t, name, program("read_limit", specs.HookTCXIngress, more...))
	p.TCFallback = specs.FallbackClsact
	p.Constants = []specs.PlanConstant{{Symbol: "limit", Value: specs.Bytes{Data: []byte{byte(verdict), byte(verdict >> 8), byte(verdict >> 16), byte(verdict >> 24)}}}}
	return p
}

// oldKernel pretends that the kernel has no TCX links.
func oldKernel(prog *ebpf.Program, a specs.Attachment, to attach.Target) (*attach.Link, error) {
	if a.Hook == specs.HookTCXIngress || a.Hook == specs.HookTCXEgress {
		return nil, &attach.UnsupportedError{Feature: "tcx link", Since: hooks.Version{Major: 6, Minor: 6}, Have: hooks.Version{Major: 6, Minor: 1}, Err: unix.EINVAL}
	}
	return attach.Attach(prog, a, to)
}

func newOldKernel(t testing.TB, ps plans) *fixture {
	t.Helper()
	f := newFixture(t, ps)
	f.attachLink = oldKernel
	return f
}

// filters lists the bpf filters on the ingress of a device of our namespace.
func filters(t testing.TB, device string, parent uint32) (names []string) {
	t.Helper()
	l, err := netlink.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	all, err := netlink.FilterList(l, parent)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if b, ok := f.(*netlink.BpfFilter); ok {
			names = append(names, b.Name)
		}
	}
	return names
}

func hasClsact(t testing.TB, device string) bool {
	t.Helper()
	l, err := netlink.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	all, err := netlink.QdiscList(l)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(all, func(q netlink.Qdisc) bool { return q.Type() == "clsact" })
}

func clsact(t testing.TB, device string) *netlink.GenericQdisc {
	t.Helper()
	l, err := netlink.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0)},
		QdiscType:  "clsact",
	}
}

// foreign makes a filter of somebody else.
func foreign(t testing.TB, device, name string, priority uint16, handle uint32) *netlink.BpfFilter {
	t.Helper()
	l, err := netlink.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	p := foreignProgram(t)
	f := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: priority, Handle: handle, Protocol: unix.ETH_P_ALL},
		Fd:          p.FD(), Name: name, DirectAction: true,
	}
	if err := netlink.FilterAdd(f); err != nil {
		t.Fatal(err)
	}
	return f
}

func foreignProgram(t testing.TB) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// arrives sends a packet from the container to the host.
func (s *sandbox) arrives(t testing.TB) bool {
	t.Helper()
	c, err := net.ListenPacket("udp4", bpftest.HostIPv4+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 5 {
		s.ns.Do(t, func() {
			out, err := net.Dial("udp4", c.LocalAddr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer out.Close()
			_, _ = out.Write([]byte("x"))
		})
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, _, err := c.ReadFrom(make([]byte, 8)); err == nil {
			return true
		}
	}
	return false
}

// gets is arrives where a packet should: it is patient.
func (s *sandbox) gets(t testing.TB) bool {
	t.Helper()
	for range 20 {
		if s.arrives(t) {
			return true
		}
	}
	return false
}

func (s *sandbox) place(policy string) pin.Place {
	return pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", policy)
}

func TestFilterStandsIn(t *testing.T) {
	ctx := context.Background()
	f := newOldKernel(t, plans{"drop": filterPlan(t, "drop", actShot, onHost)})
	s := newSandbox(t, "pod", "lpfil0")
	if !s.gets(t) {
		t.Fatal("nothing arrives before")
	}
	f.mustAdd(t, s, "drop")
	if s.arrives(t) {
		t.Error("the packet got past the filter")
	}
	is := func(when string, kept int) {
		t.Helper()
		if got := filters(t, "lpfil0", netlink.HANDLE_MIN_INGRESS); len(got) != kept || kept == 1 && got[0] != "linkpin:drop/read_limit" {
			t.Errorf("%s: filters %q, want %d", when, got, kept)
		}
	}
	is("after ADD", 1)
	item, ok := f.Look(s.place("drop"))
	if !ok || item.Err != nil || item.Links[0].Err != nil || item.Links[0].Info.State != attach.Live {
		t.Fatalf("%+v", item)
	}
	row := item.Record.Programs[0]
	want := &pin.FilterRecord{Priority: 0xc000, Handle: 0x4c50, Protocol: "all", Name: "linkpin:drop/read_limit", MadeQdisc: true}
	if row.Filter == nil || *row.Filter != *want || row.LinkID != 0 || row.Ifindex != s.iface.Peer.Index || row.ProgramID == 0 || row.Tag == "" {
		t.Errorf("recorded %+v with %+v", row, row.Filter)
	}
	if found := f.Verify(item); len(found) != 0 {
		t.Errorf("verify: %+v", found)
	}
	f.mustAdd(t, s, "drop") // nothing twice
	is("after ADD again", 1)

	// It runs to the end, as a link would: the device goes with its namespace.
	if err := f.DelInterface(ctx, Deletion{ContainerID: "pod", Network: "net", Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.GC(ctx, GCOptions{}); err != nil {
		t.Fatal(err)
	}
	is("after DEL", 1)
	if live, retired := f.entries(t); live != 0 || retired != 1 {
		t.Errorf("%d live, %d retired; want 0 and 1", live, retired)
	}
	s.kill(t)
	if _, err := f.GC(ctx, GCOptions{Wait: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	emptyState(t, f)
}

// A filter is never made for a policy that does not ask for it, nor where the kernel
// has something better.
func TestFilterIsNeverSlippedIn(t *testing.T) {
	bpftest.NeedKernel(t, 6, 6, "TCX")
	p := filterPlan(t, "drop", actShot, onHost)
	p.TCFallback = ""
	f := newOldKernel(t, plans{"drop": p, "allowed": filterPlan(t, "allowed", actShot, onHost)})
	s := newSandbox(t, "pod", "lpfil1")
	err := f.add(t, s, "drop")
	if !errors.Is(err, attach.ErrUnsupported) || !strings.Contains(err.Error(), "tcx link: not supported by this kernel (requires >= 6.6, this is 6.1)") {
		t.Errorf("without permission: %v", err)
	}
	if hasClsact(t, "lpfil1") {
		t.Error("a qdisc was made without permission")
	}
	f.attachLink = nil
	f.mustAdd(t, s, "allowed")
	item, _ := f.Look(s.place("allowed"))
	if row := item.Record.Programs[0]; row.Filter != nil || row.LinkID == 0 || hasClsact(t, "lpfil1") {
		t.Errorf("on a kernel with TCX: %+v", row)
	}
}

// Filters of others stay as they are, in front of ours; the qdisc stays as long as it
// has any, and if it was there before.
func TestFilterNeighbours(t *testing.T) {
	ctx := context.Background()
	for _, theirs := range []bool{true, false} {
		p, q := filterPlan(t, "one", actNext, onHost), filterPlan(t, "two", actNext, onHost)
		p.Teardown, q.Teardown = specs.Detach, specs.Detach
		f := newOldKernel(t, plans{"one": p, "two": q})
		s := newSandbox(t, "pod", "lpfil2")
		if theirs {
			if err := netlink.QdiscAdd(clsact(t, "lpfil2")); err != nil {
				t.Fatal(err)
			}
			foreign(t, "lpfil2", "early", 10, 1)
			foreign(t, "lpfil2", "late", 0xd000, 1)
		}
		f.mustAdd(t, s, "one")
		if !theirs {
			foreign(t, "lpfil2", "late", 0xd000, 1)
		}
		f.mustAdd(t, s, "one", "two")
		want := []string{"early", "late", "linkpin:one/read_limit", "linkpin:two/read_limit"}
		if !theirs {
			want = []string{"linkpin:one/read_limit", "late", "linkpin:two/read_limit"}
		}
		if got := filters(t, "lpfil2", netlink.HANDLE_MIN_INGRESS); !slices.Equal(got, want) {
			t.Errorf("filters %q, want %q", got, want)
		}
		if err := f.DelInterface(ctx, Deletion{ContainerID: "pod", Network: "net", Interface: "eth0"}); err != nil {
			t.Fatal(err)
		}
		want = slices.DeleteFunc(want, func(n string) bool { return strings.HasPrefix(n, "linkpin:") })
		if got := filters(t, "lpfil2", netlink.HANDLE_MIN_INGRESS); !slices.Equal(got, want) {
			t.Errorf("after DEL: filters %q, want %q", got, want)
		}
		emptyState(t, f)
		s.kill(t)
		waitGone(t, "lpfil2")
	}
}

func waitGone(t testing.TB, device string) {
	t.Helper()
	bpftest.Eventually(t, device+" is gone", func() error {
		if _, err := netlink.LinkByName(device); err == nil {
			return errors.New("still there")
		}
		return nil
	})
}

// The qdisc goes with the last of our filters, whichever of them made it, and stays if
// somebody else made it.
func TestFilterQdisc(t *testing.T) {
	for _, theirs := range []bool{false, true} {
		ps := plans{}
		for _, name := range []string{"one", "two", "three"} {
			ps[name] = filterPlan(t, name, actNext, onHost)
			ps[name].Teardown = specs.Detach
		}
		f := newOldKernel(t, ps)
		s := newSandbox(t, "pod", "lpfil3")
		if theirs {
			if err := netlink.QdiscAdd(clsact(t, "lpfil3")); err != nil {
				t.Fatal(err)
			}
		}
		f.mustAdd(t, s, "one", "two")
		f.qdiscs = nil // of another process
		f.mustAdd(t, s, "three")
		lock := f.lock(t, pin.Sandbox(s.sub.Sandbox))
		for i, name := range []string{"one", "two", "three"} {
			if !hasClsact(t, "lpfil3") {
				t.Errorf("the qdisc went before the filter of %s", name)
			}
			if err := f.retire(s.place(name), reasonDeleted); err != nil {
				t.Fatal(err)
			}
			if n := len(filters(t, "lpfil3", netlink.HANDLE_MIN_INGRESS)); n != 2-i {
				t.Errorf("%d filters are left after %s", n, name)
			}
		}
		if err := lock.Release(); err != nil {
			t.Fatal(err)
		}
		if hasClsact(t, "lpfil3") != theirs {
			t.Errorf("made by others: %v, and there at the end: %v", theirs, !theirs)
		}
		s.kill(t)
		waitGone(t, "lpfil3")
	}
}

// What fails takes its filters along, and those of the policies beside it.
func TestFilterIsUndone(t *testing.T) {
	bad := filterPlan(t, "bad", actShot, onHost)
	bad.Programs[0].Attachments[0].Hook = specs.HookTCXEgress
	bad.Programs = append(bad.Programs, program("pass", specs.HookXDP, onHost))
	for name, fail := range map[string]func(*fixture, *sandbox){
		"a sibling": func(f *fixture, _ *sandbox) {
			f.attachLink = func(p *ebpf.Program, a specs.Attachment, to attach.Target) (*attach.Link, error) {
				if a.Hook == specs.HookXDP {
					return nil, errors.New("no XDP today")
				}
				return oldKernel(p, a, to)
			}
		},
		"recheck": func(_ *fixture, s *sandbox) {
			s.sub.Recheck = func() error { return errors.New("moved") }
		},
		"publish": func(f *fixture, s *sandbox) {
			s.sub.Recheck = func() error {
				return unix.Mkdir(f.Root.Path()+"/sandboxes/pod/net_net/eth0/bad", 0o700)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newOldKernel(t, plans{"drop": filterPlan(t, "drop", actShot, onHost), "bad": bad})
			s := newSandbox(t, "pod", "lpfil4")
			fail(f, s)
			if name == "publish" {
				if err := os.MkdirAll(f.Root.Path()+"/sandboxes/pod/net_net/eth0", 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.add(t, s, "drop", "bad"); err == nil {
				t.Fatal("it was attached")
			}
			if !s.gets(t) || hasClsact(t, "lpfil4") {
				t.Errorf("left: %q", filters(t, "lpfil4", netlink.HANDLE_MIN_INGRESS))
			}
			if names, err := f.Root.StagingNames(); len(names) > 0 || err != nil {
				t.Errorf("left in staging: %q, %v", names, err)
			}
			for _, w := range f.warnings {
				t.Errorf("warning: %v", w)
			}
		})
	}
}
