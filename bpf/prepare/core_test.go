// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/load"
)

// core is a policy over the object with relocations.
const core = "object: {file: core.bpf.o}\nprograms: {len_offset: {direction: to-container}, exists: {direction: to-container}, enum_value: {direction: to-container}, kfunc: {direction: to-container}}\n"

// The loader must come to the same program with and without the fixups.
func TestFixups(t *testing.T) {
	bpftest.NeedKernel(t, 6, 2, "bpf_cast_to_kern_ctx")
	p := must(t, core)
	if p.Plan.Kernel != load.Kernel() {
		t.Errorf("kernel %q", p.Plan.Kernel)
	}
	for key, want := range map[string]int{"len_offset": 1, "exists": 4, "enum_value": 1, "kfunc": 1} {
		if got := len(programOf(t, p, key).Fixups); got != want {
			t.Errorf("%s: %d fixups, want %d", key, got, want)
		}
	}
	with := results(t, p)
	for i := range p.Plan.Programs {
		p.Plan.Programs[i].Fixups = nil
	}
	p.Plan.Kernel = ""
	without := results(t, p)
	for key, want := range without {
		if with[key] != want {
			t.Errorf("%s returns %d with fixups and %d without", key, with[key], want)
		}
	}
	if without["exists"] != 1 || without["enum_value"] != int(3) || without["len_offset"] == 0 || without["kfunc"] != 21 {
		t.Errorf("results %v", without)
	}
}

// The hook does not look at the kernel's types: they take longer than all its work.
func TestFixupsNeedNoKernelTypes(t *testing.T) {
	bpftest.NeedKernel(t, 6, 2, "bpf_cast_to_kern_ctx")
	p := must(t, core)
	const types = "/sys/kernel/btf"
	if err := unix.Mount("none", types, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(types, 0); err != nil {
			t.Error(err)
		}
	})
	if got := results(t, p); got["kfunc"] != 21 {
		t.Errorf("results %v", got)
	}
	p.Plan.Kernel = "another kernel"
	if _, err := p.Verify(t.Context()); err == nil {
		t.Error("no error without fixups and without types: this test proves nothing")
	}
}

func results(t *testing.T, p *Prepared) map[string]int {
	t.Helper()
	c, err := load.Load(t.Context(), load.Options{
		Plan:     &p.Plan,
		Object:   func(sum string) ([]byte, error) { return p.Objects[sum], nil },
		Programs: keys(p),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out := map[string]int{}
	for key, prog := range c.Programs {
		ret, err := prog.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
		if err != nil {
			t.Fatal(err)
		}
		out[key] = int(ret)
	}
	return out
}

func TestNoFixupsWithoutRelocations(t *testing.T) {
	if p := must(t, plain); p.Plan.Kernel != "" {
		t.Errorf("the plan depends on kernel %q", p.Plan.Kernel)
	}
}

// The field does not exist, so the program can't run: that is for the verifier to
// say.
func TestPoisoned(t *testing.T) {
	p := must(t, "object: {file: core.bpf.o}\nprograms: {poisoned: {direction: to-container}}\n")
	_, err := p.Verify(t.Context())
	wantErrors(t, err, []string{"p.yaml:2: programs.poisoned", "it needs a type, field or value that this kernel does not have"})
}
