// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

func TestMain(m *testing.M) { os.Exit(bpftest.Main(m)) }

// verdict lets everything pass, in the language of each program type.
func verdict(t ebpf.ProgramType) int32 {
	switch t {
	case ebpf.XDP:
		return 2 // XDP_PASS
	case ebpf.SchedCLS:
		return -1 // TCX_NEXT
	case ebpf.FlowDissector:
		return 129 // BPF_FLOW_DISSECTOR_CONTINUE
	}
	return 1
}

// trivial loads a trivial program for a hook.
func trivial(t *testing.T, h specs.Hook) *ebpf.Program {
	t.Helper()
	pt, at, err := hooks.Types(h)
	if err != nil {
		t.Fatal(err)
	}
	bpftest.NeedKernel(t, hooks.Since(h).Major, hooks.Since(h).Minor, string(h))
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "trivial", Type: pt, AttachType: at, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict(pt)), asm.Return()},
	})
	if err != nil {
		t.Fatalf("%s: %v", h, err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func openCgroup(t *testing.T, dir string) *target.Cgroup {
	t.Helper()
	c, err := target.OpenCgroup(dir, bpftest.CgroupID(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func openNetns(t *testing.T, path string) *target.Netns {
	t.Helper()
	n, err := target.OpenNetns(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// iface makes a veth pair and returns its end inside a new namespace.
func iface(t *testing.T, host string) (*target.Interface, *bpftest.NS) {
	t.Helper()
	ns := bpftest.NetNS(t)
	bpftest.Veth(t, ns, host, "eth0")
	n := openNetns(t, ns.Path())
	i, err := n.Interface("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if i.Peer == nil {
		t.Fatal("the pair's host side was not found")
	}
	return i, ns
}

func mustAttach(t *testing.T, p *ebpf.Program, a specs.Attachment, to Target) *Link {
	t.Helper()
	l, err := Attach(p, a, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustInfo(t *testing.T, l *Link) Info {
	t.Helper()
	info, err := l.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// wantError checks that an attachment fails with a fault whose cause is want and
// whose line has all the texts.
func wantError(t *testing.T, p *ebpf.Program, a specs.Attachment, to Target, want error, texts ...string) {
	t.Helper()
	l, err := Attach(p, a, to)
	if err == nil {
		l.Close()
		t.Errorf("%s: attached, want: %v", a.Hook, want)
		return
	}
	checkFault(t, err, want, texts...)
}

func checkFault(t *testing.T, err, want error, texts ...string) {
	t.Helper()
	if _, ok := errors.AsType[*fault.Error](err); !ok {
		t.Errorf("not a fault: %v", err)
	}
	if want != nil && !errors.Is(err, want) {
		t.Errorf("%v, want: %v", err, want)
	}
	if strings.Contains(fmt.Sprint(err), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	for _, text := range texts {
		if !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("%v\nlacks %q", err, text)
		}
	}
}

// attachedIDs lists the programs at a hook as the kernel does.
func attachedIDs(t *testing.T, at ebpf.AttachType, fdOrIndex int) []ebpf.ProgramID {
	t.Helper()
	res, err := link.QueryPrograms(link.QueryOptions{Target: fdOrIndex, Attach: at})
	if err != nil {
		t.Error(err)
		return nil
	}
	var ids []ebpf.ProgramID
	for _, p := range res.Programs {
		ids = append(ids, p.ID)
	}
	return ids
}
