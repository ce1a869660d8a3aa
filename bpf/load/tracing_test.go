// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs"
)

// tracingPlan is a policy over tracing.bpf.o with one program, as prepare makes it.
func tracingPlan(t *testing.T, symbol string, h specs.Hook) *specs.Plan {
	t.Helper()
	p := plan(specs.PlanProgram{Key: symbol, Symbol: symbol, Hook: h})
	p.Objects[0].SHA256 = "tracing.bpf.o"
	p.Maps = nil
	spec, err := ebpf.LoadCollectionSpec("testdata/tracing.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := ReadKernelTypes()
	if err != nil {
		t.Fatal(err)
	}
	if p.Programs[0].AttachBTFID, err = kernel.AttachTarget(spec.Programs[symbol]); err != nil {
		t.Fatal(err)
	}
	if p.Programs[0].Fixups, err = kernel.Fixups(spec.Programs[symbol]); err != nil {
		t.Fatal(err)
	}
	p.Kernel = Kernel()
	return p
}

// hideKernelTypes makes reading the kernel's types fail.
func hideKernelTypes(t *testing.T) {
	t.Helper()
	const types = "/sys/kernel/btf"
	if err := unix.Mount("none", types, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(types, 0); err != nil {
			t.Error(err)
		}
	})
}

// With what the plan knows, the kernel's types are not read, and the program is the
// same as with them.
func TestTracingProgramNeedsNoKernelTypes(t *testing.T) {
	bpftest.NeedKernel(t, 5, 7, "tracing links")
	p := tracingPlan(t, "execs", specs.HookTPBTF)
	if len(p.Programs[0].Fixups) == 0 || p.Programs[0].AttachBTFID == 0 {
		t.Fatalf("%+v", p.Programs[0])
	}
	slow := *p
	slow.Kernel = "another kernel"
	want, err := mustLoad(t, options(&slow)).Programs["execs"].Info()
	if err != nil {
		t.Fatal(err)
	}
	hideKernelTypes(t)
	got, err := mustLoad(t, options(p)).Programs["execs"].Info()
	if err != nil {
		t.Fatal(err)
	}
	if got.Tag != want.Tag || got.Name != want.Name || got.Type != ebpf.Tracing {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if _, ok := got.BTFID(); !ok {
		t.Error("the program has no types of its own")
	}
	if _, err := Load(t.Context(), options(&slow)); err == nil {
		t.Error("another kernel's plan was believed")
	}
}

// A number that is wrong in spite of the same kernel is looked up again.
func TestTracingProgramWithWrongNumber(t *testing.T) {
	bpftest.NeedKernel(t, 5, 7, "tracing links")
	p := tracingPlan(t, "execs", specs.HookTPBTF)
	p.Programs[0].AttachBTFID = 1
	mustLoad(t, options(p))
}

// What the verifier refuses shows its log, also where the library does not load it.
func TestLogOfTracingProgram(t *testing.T) {
	p := tracingPlan(t, "execs", specs.HookTPBTF)
	spec, err := ebpf.LoadCollectionSpec("testdata/tracing.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	wild := spec.Programs["everybody"]
	wild.Instructions = wild.Instructions[len(wild.Instructions)-1:] // exit without a result
	_, err = loadAt(wild, p.Programs[0].AttachBTFID)
	r := refused(&p.Programs[0], err)
	if !errors.Is(r, unix.EACCES) || !strings.Contains(r.Error(), "the verifier refuses it: ") || !strings.Contains(r.Error(), "R0 !read_ok") {
		t.Errorf("%v", r)
	}
}

func TestTracingTargets(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpec("testdata/tracing.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := ReadKernelTypes()
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]uint32{}
	for _, name := range []string{"execs", "exits", "binds", "guard"} {
		if ids[name], err = kernel.AttachTarget(spec.Programs[name]); err != nil || ids[name] == 0 {
			t.Errorf("%s: %d, %v", name, ids[name], err)
		}
	}
	if ids["binds"] != ids["guard"] || ids["binds"] == ids["exits"] {
		t.Errorf("numbers %v", ids)
	}
	if _, err := kernel.AttachTarget(spec.Programs["nowhere"]); !errors.Is(err, errNoTarget) || !strings.Contains(err.Error(), `no tracepoint "no_such_tracepoint"`) {
		t.Errorf("%v", err)
	}
}

// A tracepoint that this kernel lacks is the kernel's lack, and says so.
func TestTracepointThatIsNotThere(t *testing.T) {
	p := plan(specs.PlanProgram{Key: "nowhere", Symbol: "nowhere", Hook: specs.HookTPBTF})
	p.Objects[0].SHA256, p.Maps = "tracing.bpf.o", nil
	_, err := Load(t.Context(), options(p))
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "no_such_tracepoint") {
		t.Errorf("%v", err)
	}
}

// Programs that the kernel calls from a trampoline load, or say clearly that this
// kernel has none. Either way the plan's number and the slow way come to the same.
func TestTrampolines(t *testing.T) {
	bpftest.NeedKernel(t, 6, 0, "lsm_cgroup")
	for symbol, h := range map[string]specs.Hook{"exits": specs.HookFentry, "binds": specs.HookLSM, "guard": specs.HookLSMCgroup} {
		p := tracingPlan(t, symbol, h)
		slow := *p
		slow.Kernel = "another kernel"
		var errs [2]error
		for i, p := range []*specs.Plan{p, &slow} {
			c, err := Load(t.Context(), options(p))
			if errs[i] = err; err == nil {
				t.Cleanup(func() { c.Close() })
				continue
			}
			t.Log(err)
			if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "a program for "+string(h)+", which the kernel calls from a trampoline, is not supported by this kernel (Linux ") ||
				!strings.Contains(err.Error(), "use a kernel that has it") {
				t.Errorf("%s: %v", symbol, err)
			}
		}
		if (errs[0] == nil) != (errs[1] == nil) {
			t.Errorf("%s: %v", symbol, errs)
		}
	}
}
