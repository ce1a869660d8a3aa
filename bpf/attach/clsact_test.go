// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// classifier loads a tc program that lets the next one decide; no two are the same.
func classifier(t *testing.T) *ebpf.Program {
	t.Helper()
	bpftest.NeedKernel(t, 6, 6, "TCX") // trivial loads it for TCX
	return trivial(t, specs.HookTCXIngress)
}

// planned plans a filter on the host side of an interface.
func planned(t *testing.T, p *ebpf.Program, i *target.Interface, hook specs.Hook) *Filter {
	t.Helper()
	f, err := PlanFilter(FilterOptions{
		Program: p, Target: Target{Interface: i}, Name: "linkpin:test/trivial",
		Attachment: specs.Attachment{Hook: hook, Side: specs.SideHost},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustAdd(t *testing.T, f *Filter, p *ebpf.Program) {
	t.Helper()
	if err := f.Add(p, nil); err != nil {
		t.Fatal(err)
	}
}

func filterState(t *testing.T, f *Filter) State {
	t.Helper()
	info, err := f.Info(nil)
	if err != nil {
		t.Fatal(err)
	}
	if info.State == Live && info.Ifindex != f.Ifindex {
		t.Errorf("info %+v", info)
	}
	return info.State
}

func listed(t *testing.T, ifindex int, parent uint32) (priorities []uint16) {
	t.Helper()
	all, err := tcFilters(ifindex, parent)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.handle != 0 {
			priorities = append(priorities, f.priority)
		}
	}
	return priorities
}

func TestFilter(t *testing.T) {
	for _, hook := range []specs.Hook{specs.HookTCXIngress, specs.HookTCXEgress} {
		i, _ := iface(t, "lpcls0")
		p, q := classifier(t), classifier(t)
		f := planned(t, p, i, hook)
		if !f.MakesQdisc || f.Priority != firstPriority || f.Ifindex != i.Peer.Index {
			t.Errorf("planned %+v", f)
		}
		if filterState(t, f) != Severed {
			t.Error("planning made it")
		}
		mustAdd(t, f, p)
		if filterState(t, f) != Live {
			t.Error("it is not there")
		}
		second := planned(t, q, i, hook)
		if second.MakesQdisc || second.Priority != firstPriority+1 {
			t.Errorf("the second one: %+v", second)
		}
		mustAdd(t, second, q)
		if got := listed(t, f.Ifindex, map[specs.Hook]uint32{specs.HookTCXIngress: parentIngress, specs.HookTCXEgress: parentEgress}[hook]); !slices.Equal(got, []uint16{firstPriority, firstPriority + 1}) {
			t.Errorf("%s: priorities %d", hook, got)
		}
		if other := map[specs.Hook]uint32{specs.HookTCXIngress: parentEgress, specs.HookTCXEgress: parentIngress}[hook]; len(listed(t, f.Ifindex, other)) > 0 {
			t.Errorf("%s: filters on the other direction", hook)
		}
		// Ours by name, but not with this program: it is not removed.
		for _, change := range []func(*Filter){
			func(f *Filter) { f.ProgramID = second.ProgramID },
			func(f *Filter) { f.Tag = "0123456789abcdef" },
			func(f *Filter) { f.Name = "thief" },
			func(f *Filter) { f.Handle++ },
			func(f *Filter) { f.Priority = 7 },
		} {
			wrong := *f
			change(&wrong)
			if removed, err := wrong.Remove(nil); err != nil || removed || filterState(t, f) != Live {
				t.Errorf("%+v was removed, %v", wrong, err)
			}
		}
		for _, next := range []*Filter{f, second} {
			if err := next.RemoveQdisc(nil); err != nil || filterState(t, second) != Live {
				t.Fatalf("the qdisc went with filters below it, %v", err)
			}
			for i := range 2 {
				if removed, err := next.Remove(nil); err != nil || removed != (i == 0) || filterState(t, next) != Severed {
					t.Errorf("Remove: %v", err)
				}
			}
		}
		for range 2 {
			if err := f.RemoveQdisc(nil); err != nil {
				t.Error(err)
			}
		}
		if kind, err := qdiscKind(f.Ifindex); kind != "" || err != nil {
			t.Errorf("left: qdisc %q, %v", kind, err)
		}
		if _, err := f.Remove(nil); err != nil {
			t.Error(err)
		}
		deleteLink(t, "lpcls0")
		if err := errors.Join(remove(f), f.RemoveQdisc(nil)); err != nil || filterState(t, f) != Severed {
			t.Errorf("without the device: %v", err)
		}
		if err := f.Add(p, nil); !errors.Is(err, target.ErrGone) {
			t.Errorf("without the device: %v", err)
		}
	}
}

func deleteLink(t *testing.T, name string) {
	t.Helper()
	if err := netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
		t.Fatal(err)
	}
}

func TestFilterReplace(t *testing.T) {
	i, _ := iface(t, "lpcls1")
	p, q := classifier(t), classifier(t)
	f := planned(t, p, i, specs.HookTCXIngress)
	if err := f.Replace(q, nil); !errors.Is(err, target.ErrGone) {
		t.Errorf("before it is there: %v", err)
	}
	mustAdd(t, f, p)
	old := *f
	if err := f.Replace(q, nil); err != nil {
		t.Fatal(err)
	}
	info, err := f.Info(nil)
	if err != nil || info.State != Live || info.ProgramID != f.ProgramID || f.ProgramID == old.ProgramID {
		t.Errorf("%+v, %v", info, err)
	}
	if got := listed(t, f.Ifindex, parentIngress); len(got) != 1 {
		t.Errorf("filters %d", got)
	}
	stolen := *f
	stolen.Name = "thief"
	if err := changeFilter(unix.RTM_NEWTFILTER, unix.NLM_F_REPLACE, &stolen, p.FD()); err != nil {
		t.Fatal(err)
	}
	if err := f.Replace(q, nil); !errors.Is(err, target.ErrGone) || filterState(t, &stolen) != Live {
		t.Errorf("what somebody else put there: %v", err)
	}
}

// Whatever happens between planning and adding, nothing of others is replaced.
func TestFilterRaces(t *testing.T) {
	bpftest.NeedKernel(t, 6, 6, "TCX")
	i, _ := iface(t, "lpcls2")
	p, q := classifier(t), classifier(t)
	first := planned(t, p, i, specs.HookTCXIngress)
	late := planned(t, q, i, specs.HookTCXIngress)
	mustAdd(t, first, p)
	changed := func(when string, f *Filter) {
		t.Helper()
		if err := f.Add(q, nil); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "lpcls2") {
			t.Errorf("%s: %v", when, err)
		}
		if filterState(t, first) != Live && when != "the qdisc has gone" {
			t.Errorf("%s: the first one is gone", when)
		}
	}
	changed("somebody made the qdisc", late)
	if late.MakesQdisc {
		t.Error("it takes the qdisc for its own")
	}
	changed("the place is taken by a filter like ours", late)
	taken := planned(t, q, i, specs.HookTCXIngress)
	u32filter := &netlink.U32{FilterAttrs: netlink.FilterAttrs{LinkIndex: i.Peer.Index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: taken.Priority, Protocol: unix.ETH_P_IP}, ClassId: 1}
	if err := netlink.FilterAdd(u32filter); err != nil {
		t.Fatal(err)
	}
	changed("the place is taken by another kind", taken)
	behind := planned(t, q, i, specs.HookTCXIngress)
	if behind.Priority != taken.Priority+1 {
		t.Errorf("planned at %d behind %d", behind.Priority, taken.Priority)
	}
	if err := changeQdisc(unix.RTM_DELQDISC, 0, i.Peer.Index); err != nil {
		t.Fatal(err)
	}
	changed("the qdisc has gone", behind)
}

func TestFilterKeepsItsPriority(t *testing.T) {
	i, _ := iface(t, "lpcls3")
	p := classifier(t)
	plan := func(priority uint16) *Filter {
		t.Helper()
		f, err := PlanFilter(FilterOptions{Program: p, Target: Target{Interface: i}, Name: "x", Priority: priority,
			Attachment: specs.Attachment{Hook: specs.HookTCXIngress, Side: specs.SideHost}})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := plan(100)
	mustAdd(t, f, p)
	if f.Priority != 100 || plan(0).Priority != 101 || plan(100).Priority != 101 || plan(99).Priority != 99 {
		t.Errorf("%d, then %d, %d and %d", f.Priority, plan(0).Priority, plan(100).Priority, plan(99).Priority)
	}
	last := plan(lastPriority)
	mustAdd(t, last, p)
	_, err := PlanFilter(FilterOptions{Program: p, Target: Target{Interface: i}, Name: "x",
		Attachment: specs.Attachment{Hook: specs.HookTCXIngress, Side: specs.SideHost}})
	checkFault(t, err, ErrFull, "lpcls3", "65535", "another priority")
}

// An ingress qdisc would take an egress filter for an ingress one.
func TestFilterUnderAnIngressQdisc(t *testing.T) {
	i, _ := iface(t, "lpcls4")
	p := classifier(t)
	ingress := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: i.Peer.Index, Parent: netlink.HANDLE_INGRESS, Handle: netlink.MakeHandle(0xffff, 0)}}
	if err := netlink.QdiscAdd(ingress); err != nil {
		t.Fatal(err)
	}
	_, err := PlanFilter(FilterOptions{Program: p, Target: Target{Interface: i}, Name: "x",
		Attachment: specs.Attachment{Hook: specs.HookTCXEgress, Side: specs.SideHost}})
	checkFault(t, err, ErrBusy, "tcx/egress of lpcls4 (host side of eth0)", "qdisc of kind ingress", "clsact")
	f := planned(t, p, i, specs.HookTCXIngress)
	mustAdd(t, f, p)
	if f.MakesQdisc || filterState(t, f) != Live {
		t.Errorf("%+v", f)
	}
	if err := errors.Join(remove(f), f.RemoveQdisc(nil)); err != nil {
		t.Error(err)
	}
	if kind, _ := qdiscKind(i.Peer.Index); kind != kindIngress {
		t.Errorf("their qdisc is %q now", kind)
	}
}

func TestFilterRefusesNonsense(t *testing.T) {
	i, _ := iface(t, "lpcls5")
	p := classifier(t)
	own, err := target.HostNetns()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	lo, err := own.Interface("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		a    specs.Attachment
		i    *target.Interface
		want error
	}{
		{specs.Attachment{Hook: specs.HookTCXIngress, Side: specs.SideContainer}, lo, target.ErrForbidden},
		{specs.Attachment{Hook: specs.HookTCXIngress, Side: specs.SideHost}, lo, target.ErrNoPeer},
		{specs.Attachment{Hook: specs.HookTCXIngress}, i, nil},
		{specs.Attachment{Hook: specs.HookXDP, Side: specs.SideHost}, i, nil},
		{specs.Attachment{Hook: specs.HookTCXIngress, Side: specs.SideHost}, nil, errNoTarget},
	} {
		_, err := PlanFilter(FilterOptions{Program: p, Attachment: c.a, Target: Target{Interface: c.i}, Name: "x"})
		if err == nil {
			t.Errorf("%+v: planned", c.a)
			continue
		}
		checkFault(t, err, c.want)
	}
	// Without priority or handle the kernel would delete what is others'.
	f := planned(t, p, i, specs.HookTCXIngress)
	mustAdd(t, f, p)
	for _, bad := range []Filter{{Hook: f.Hook, Ifindex: f.Ifindex, Priority: f.Priority}, {Hook: f.Hook, Ifindex: f.Ifindex, Handle: f.Handle}} {
		if err := changeFilter(unix.RTM_DELTFILTER, 0, &bad, 0); err == nil || filterState(t, f) != Live {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	inside := &Filter{Hook: f.Hook, Side: specs.SideContainer, Ifindex: 1, Priority: 1, Handle: 1}
	if _, err := inside.Info(nil); !errors.Is(err, target.ErrGone) {
		t.Errorf("without its namespace: %v", err)
	}
	if got := filterName(strings.Repeat("x", 254) + "é"); len(got) != 254 {
		t.Errorf("a name of %d bytes: %q", len(got), got[250:])
	}
}

func remove(f *Filter) error {
	_, err := f.Remove(nil)
	return err
}
