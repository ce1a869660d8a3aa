// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs"
)

func TestTCXSameProgramTwice(t *testing.T) {
	i, _ := iface(t, "lptcx0")
	p := trivial(t, specs.HookTCXIngress)
	a := specs.Attachment{Hook: specs.HookTCXIngress, Side: specs.SideHost}
	mustAttach(t, p, a, Target{Interface: i})
	wantError(t, p, a, Target{Interface: i}, ErrExist,
		"tcx/ingress of lptcx0 (host side of eth0): the same program is attached there already", "; one loaded program")
	mustAttach(t, trivial(t, specs.HookTCXIngress), a, Target{Interface: i})
}

func TestTCXBehindNeighbours(t *testing.T) {
	i, _ := iface(t, "lptcx1")
	neighbour, p := trivial(t, specs.HookTCXEgress), trivial(t, specs.HookTCXEgress)
	other, err := link.AttachTCX(link.TCXOptions{Interface: i.Peer.Index, Program: neighbour, Attach: ebpf.AttachTCXEgress})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	before := attachedIDs(t, ebpf.AttachTCXEgress, i.Peer.Index)
	mustAttach(t, p, specs.Attachment{Hook: specs.HookTCXEgress, Side: specs.SideHost}, Target{Interface: i})
	if now := attachedIDs(t, ebpf.AttachTCXEgress, i.Peer.Index); len(now) != 2 || now[0] != before[0] {
		t.Errorf("programs %v, before %v", now, before)
	}
}

func TestTCXTakesNoMore(t *testing.T) {
	i, _ := iface(t, "lptcx2")
	// Links are slow to make here; legacy programs count the same.
	for n := 0; ; n++ {
		opts := link.RawAttachProgramOptions{Target: i.Peer.Index, Program: trivial(t, specs.HookTCXEgress), Attach: ebpf.AttachTCXEgress}
		err := link.RawAttachProgram(opts)
		if errors.Is(err, unix.ERANGE) && n > 32 {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	wantError(t, trivial(t, specs.HookTCXEgress), specs.Attachment{Hook: specs.HookTCXEgress, Side: specs.SideHost}, Target{Interface: i},
		ErrFull, "63 programs", "bpftool net show dev lptcx2")
}
