// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs"
)

func TestFlowDissectorIsOne(t *testing.T) {
	to := Target{Netns: openNetns(t, bpftest.NetNS(t).Path())}
	a := specs.Attachment{Hook: specs.HookFlowDissector}
	p := trivial(t, specs.HookFlowDissector)
	mustAttach(t, p, a, to)
	wantError(t, trivial(t, specs.HookFlowDissector), a, to, ErrBusy, "one program for each namespace", "of network namespace "+to.Netns.Path)
	mustAttach(t, p, a, Target{Netns: openNetns(t, bpftest.NetNS(t).Path())})
}

func TestFlowDissectorWithoutLink(t *testing.T) {
	n := openNetns(t, bpftest.NetNS(t).Path())
	p := trivial(t, specs.HookFlowDissector)
	err := n.Do(func() error { // PROG_ATTACH takes the caller's namespace
		return link.RawAttachProgram(link.RawAttachProgramOptions{Program: p, Attach: ebpf.AttachFlowDissector})
	})
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, p, specs.Attachment{Hook: specs.HookFlowDissector}, Target{Netns: n}, ErrBusy, "without a link, or to the host's")
}

func TestSKLookupTakes64Programs(t *testing.T) {
	to := Target{Netns: openNetns(t, bpftest.NetNS(t).Path())}
	p := trivial(t, specs.HookSKLookup)
	for range 64 {
		mustAttach(t, p, specs.Attachment{Hook: specs.HookSKLookup}, to)
	}
	wantError(t, p, specs.Attachment{Hook: specs.HookSKLookup}, to, ErrFull, "64 programs")
}
