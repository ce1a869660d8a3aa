// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs"
)

func TestVerifierRefuses(t *testing.T) {
	_, err := Load(t.Context(), options(plan(program("wild"))))
	wantError(t, err, "policy test: program wild: the verifier refuses it:", " | ", "invalid mem access", "linkpin policy validate")
	var r *RefusedError
	if !errors.As(err, &r) || r.Key != "wild" || len(r.Log) <= logLines {
		t.Errorf("the log is lost: %+v", r)
	}
	if _, ok := errors.AsType[*ebpf.VerifierError](err); !ok {
		t.Error("the library's error is lost")
	}
	if strings.Contains(err.Error(), "processed ") {
		t.Errorf("statistics in %q", err)
	}
}

func TestLastLines(t *testing.T) {
	for _, tc := range []struct{ log, want string }{
		{"a\n b\nc\nd\n\nprocessed 4 insns", "b c d"},
		{"only", "only"},
		{"processed 1 insns", ""},
	} {
		if got := strings.Join(lastLines(strings.Split(tc.log, "\n")), " "); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.log, got, tc.want)
		}
	}
}

// The library says "MEMLOCK may be too low" to every EPERM, and a tracing program
// on a kernel without trampolines is the usual case.
func TestRefusedBeforeVerification(t *testing.T) {
	eperm := fmt.Errorf("load program: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", unix.EPERM)
	r := refused(&specs.PlanProgram{Key: "p"}, eperm)
	if strings.Contains(r.Error(), "MEMLOCK") || !strings.Contains(r.Error(), "before verification") || !errors.Is(r, unix.EPERM) {
		t.Errorf("%v", r)
	}
	if !strings.Contains(r.remedy(), "CAP_BPF") {
		t.Errorf("remedy %q", r.remedy())
	}
	r = refused(&specs.PlanProgram{Key: "p", Hook: "cgroup/connect4"}, unix.EINVAL)
	if errors.Is(r, ErrUnsupported) || !errors.Is(r, unix.EINVAL) {
		t.Errorf("%v", r)
	}
	r = refused(&specs.PlanProgram{Key: "p"}, os.ErrClosed)
	if r.Error() != os.ErrClosed.Error() {
		t.Errorf("%v", r)
	}
}

// One program serves both directions of tcx, since it has no expected attach type.
func TestOneProgramForBothDirections(t *testing.T) {
	bpftest.NeedKernel(t, 6, 6, "tcx links")
	c := mustLoad(t, options(plan(specs.PlanProgram{Key: "read_ifindex", Symbol: "read_ifindex", Hook: specs.HookTCXIngress})))
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		l, err := link.AttachTCX(link.TCXOptions{Interface: 1, Program: c.Programs["read_ifindex"], Attach: at})
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		defer l.Close()
	}
}

// fixup makes an instruction of a program return a constant.
func fixup(t *testing.T, offset int, ins asm.Instruction) specs.Fixup {
	t.Helper()
	var buf bytes.Buffer
	if _, err := ins.Marshal(&buf, nativeEndian); err != nil {
		t.Fatal(err)
	}
	return specs.Fixup{Offset: offset, Raw: buf.Bytes()}
}

func corePlan(fixups ...specs.Fixup) *specs.Plan {
	p := plan(specs.PlanProgram{Key: "len_offset", Symbol: "len_offset", Fixups: fixups})
	p.Objects[0].SHA256 = "core.bpf.o"
	p.Maps = nil
	p.Kernel = Kernel()
	return p
}

// The relocated instruction stands in a subprogram, third in the program.
func TestFixups(t *testing.T) {
	relocated := int(mustRelocate(t))
	const other = 4242
	p := corePlan(fixup(t, 2, asm.Mov.Imm(asm.R0, other)))
	wantRun(t, mustLoad(t, options(p)), "len_offset", other)

	p.Kernel = "another kernel"
	wantRun(t, mustLoad(t, options(p)), "len_offset", relocated)

	p.Kernel = ""
	wantRun(t, mustLoad(t, options(p)), "len_offset", relocated)
}

// mustRelocate returns the offset of sk_buff.len on this kernel.
func mustRelocate(t *testing.T) uint32 {
	t.Helper()
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var skb *btf.Struct
	if err := kernel.TypeByName("sk_buff", &skb); err != nil {
		t.Fatal(err)
	}
	var find func([]btf.Member, uint32) uint32
	find = func(ms []btf.Member, base uint32) uint32 {
		for _, m := range ms {
			if m.Name == "len" {
				return base + m.Offset.Bytes()
			}
			if s, ok := m.Type.(*btf.Struct); ok && m.Name == "" {
				if off := find(s.Members, base+m.Offset.Bytes()); off != 0 {
					return off
				}
			}
		}
		return 0
	}
	return find(skb.Members, 0)
}

// A fixup that the verifier refuses gives way to the kernel's types of now.
func TestFixupsThatAreOutdated(t *testing.T) {
	relocated := int(mustRelocate(t))
	p := corePlan(fixup(t, 2, asm.BuiltinFunc(btf.COREBadRelocationSentinel).Call()))
	wantRun(t, mustLoad(t, options(p)), "len_offset", relocated)

	p = corePlan(fixup(t, 1000, asm.Mov.Imm(asm.R0, 1)))
	wantRun(t, mustLoad(t, options(p)), "len_offset", relocated)

	p = corePlan(fixup(t, 2, asm.LoadImm(asm.R0, 1, asm.DWord)))
	wantRun(t, mustLoad(t, options(p)), "len_offset", relocated)
}

func TestTypeThatTheKernelLacks(t *testing.T) {
	p := plan(program("poisoned"))
	p.Objects[0].SHA256 = "core.bpf.o"
	p.Maps = nil
	_, err := Load(t.Context(), options(p))
	wantError(t, err, "program poisoned: it needs a type, field or value that this kernel does not have (CO-RE)")
}

func TestKernelVersion(t *testing.T) {
	if v := kernelVersion(); v.Major < 4 {
		t.Errorf("version %s of %q", v, Kernel())
	}
}
