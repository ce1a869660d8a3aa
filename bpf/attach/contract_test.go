// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs"
)

// TestContract is what every kind of link must do.
func TestContract(t *testing.T) {
	type row struct {
		name string
		hook specs.Hook
		make func(*testing.T, *ebpf.Program) scene
	}
	var rows []row
	for _, h := range specs.Hooks() {
		if h.Target() == specs.TargetCgroup && h != "lsm_cgroup" {
			rows = append(rows, row{string(h), h, cgroupScene(h)})
		}
	}
	for _, side := range []specs.Side{specs.SideHost, specs.SideContainer} {
		for _, h := range []specs.Hook{specs.HookTCXIngress, specs.HookTCXEgress} {
			rows = append(rows, row{fmt.Sprintf("%s/%s", h, side), h, deviceScene(h, side, "")})
		}
		for _, mode := range []specs.XDPMode{specs.XDPNative, specs.XDPGeneric, specs.XDPAuto} {
			rows = append(rows, row{fmt.Sprintf("xdp/%s/%s", mode, side), specs.HookXDP, deviceScene(specs.HookXDP, side, mode)})
		}
	}
	for _, h := range []specs.Hook{specs.HookSKLookup, specs.HookFlowDissector} {
		rows = append(rows, row{string(h), h, netnsScene(h)})
	}
	rows = append(rows, row{"netfilter", specs.HookNetfilter, netfilterScene(specs.Netfilter{Family: "ipv4", Hook: "output", Priority: 10})})

	for _, r := range rows {
		t.Run(strings.ReplaceAll(r.name, "/", "_"), func(t *testing.T) {
			p := trivial(t, r.hook)
			checkContract(t, r.hook, p, r.make(t, p))
		})
	}
}

func checkContract(t *testing.T, h specs.Hook, p *ebpf.Program, s scene) {
	t.Helper()
	progInfo, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := progInfo.ID()
	want := s.want
	want.Hook, want.ProgramID, want.ProgramTag = h, uint32(id), progInfo.Tag

	l := mustAttach(t, p, s.attachment, s.target)
	want.LinkID = mustInfo(t, l).LinkID
	check := func(what string, l *Link) {
		t.Helper()
		if got := mustInfo(t, l); got != want || got.LinkID == 0 {
			t.Errorf("%s: info %+v, want %+v", what, got, want)
		}
		if want.State == Live && !slices.Contains(s.attached(), id) {
			t.Errorf("%s: program %d is not at the hook: %v", what, id, s.attached())
		}
	}
	check("new", l)

	pin := filepath.Join(bpftest.TempBPFFS(t), "link")
	if err := l.Pin(pin); err != nil {
		t.Fatal(err)
	}
	if err := l.Pin(pin); !errors.Is(err, fs.ErrExist) {
		t.Errorf("pinned where a pin is: %v", err)
	}
	if err := l.Pin(pin + "2"); err != nil {
		t.Errorf("second pin: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(pin + "2"); err != nil {
		t.Errorf("the second pin: %v", err)
	}
	l, err = OpenPinned(pin)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	check("opened from its pin", l)

	if err := s.thieves(); err != nil {
		t.Error(err)
	}
	check("after the thieves", l)

	s.end()
	if want.State == Live {
		want.State, want.CgroupID, want.Ifindex, want.NetnsInode = Severed, 0, 0, 0
	}
	bpftest.Eventually(t, "severing", func() error {
		if got := mustInfo(t, l); got != want {
			return fmt.Errorf("info %+v, want %+v", got, want)
		}
		return nil
	})

	if err := os.Remove(pin); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	bpftest.Eventually(t, "end of the link", func() error {
		again, err := link.NewFromID(link.ID(want.LinkID))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			again.Close()
		}
		return fmt.Errorf("link %d is still there: %v", want.LinkID, err)
	})
}

// A link that is neither pinned nor held is gone, and its program with it.
func TestClosedLinkIsDetached(t *testing.T) {
	h := specs.Hook("cgroup/connect4")
	p := trivial(t, h)
	s := cgroupScene(h)(t, p)
	l := mustAttach(t, p, s.attachment, s.target)
	if n := len(s.attached()); n != 1 {
		t.Errorf("%d programs at the hook, want 1", n)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if n := len(s.attached()); n != 0 {
		t.Errorf("%d programs at the hook of a closed link", n)
	}
}

func TestDetach(t *testing.T) {
	for _, r := range []struct {
		hook specs.Hook
		make func(*testing.T, *ebpf.Program) scene
	}{
		{"cgroup/connect4", cgroupScene("cgroup/connect4")},
		{specs.HookTCXIngress, deviceScene(specs.HookTCXIngress, specs.SideContainer, "")},
		{specs.HookXDP, deviceScene(specs.HookXDP, specs.SideHost, specs.XDPNative)},
		{specs.HookSKLookup, netnsScene(specs.HookSKLookup)},
	} {
		t.Run(strings.ReplaceAll(string(r.hook), "/", "_"), func(t *testing.T) {
			p := trivial(t, r.hook)
			s := r.make(t, p)
			l := mustAttach(t, p, s.attachment, s.target)
			if err := l.Detach(); err != nil {
				t.Error(err)
			}
			if got := mustInfo(t, l); got.State != Severed {
				t.Errorf("%+v after Detach", got)
			}
			if ids := s.attached(); len(ids) != 0 {
				t.Errorf("programs %v after Detach", ids)
			}
		})
	}
}

func TestOpenPinnedRefusesOtherObjects(t *testing.T) {
	dir := bpftest.TempBPFFS(t)
	if _, err := OpenPinned(dir + "/nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	p := trivial(t, specs.HookXDP)
	if err := p.Pin(dir + "/prog"); err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Pin(dir + "/map"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/prog", "/map"} {
		if l, err := OpenPinned(dir + name); err == nil {
			l.Close()
			t.Errorf("%s was opened as a link", name)
		}
	}
}

// Links of other kinds can be read, and are never taken for ours.
func TestInfoOfForeignLink(t *testing.T) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.RawTracepoint, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	raw, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sched_process_exec", Program: p})
	if err != nil {
		t.Fatal(err)
	}
	l, err := wrapLink(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info := mustInfo(t, l); info.Hook != "" || info.State != Unknown || info.LinkID == 0 {
		t.Errorf("%+v", info)
	}
}
