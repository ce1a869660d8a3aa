// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

//go:generate sh -c "../../hack/bpfobject testdata/*.bpf.c"

func TestMain(m *testing.M) { os.Exit(bpftest.Main(m)) }

// program is a load-only program of the object "".
func program(symbol string) specs.PlanProgram {
	return specs.PlanProgram{Key: symbol, Symbol: symbol}
}

// plan is a policy over basic.bpf.o; the verdicts map gets the size it lacks.
func plan(programs ...specs.PlanProgram) *specs.Plan {
	return &specs.Plan{
		Name:     "test",
		Objects:  []specs.PlanObject{{SHA256: "basic.bpf.o", Origin: "basic.bpf.o"}},
		Programs: programs,
		Maps: []specs.PlanMap{{
			Name: "verdicts", Members: []specs.MapRef{{Symbol: "verdicts"}}, MaxEntries: new(uint32(16)),
		}},
	}
}

// options load every program of a plan. The tests name objects by file name
// instead of by hash.
func options(p *specs.Plan) Options {
	o := Options{Plan: p, Object: func(name string) ([]byte, error) { return os.ReadFile("testdata/" + name) }}
	for _, pp := range p.Programs {
		o.Programs = append(o.Programs, pp.Key)
	}
	return o
}

func mustLoad(t *testing.T, o Options) *Collection {
	t.Helper()
	c, err := Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// run returns what a program returns for a packet.
func run(t *testing.T, p *ebpf.Program) int {
	t.Helper()
	ret, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
	if err != nil {
		t.Fatal(err)
	}
	return int(ret)
}

func wantRun(t *testing.T, c *Collection, key string, want int) {
	t.Helper()
	if c.Programs[key] == nil {
		t.Fatalf("program %s was not loaded, only %v", key, slices.Sorted(maps.Keys(c.Programs)))
	}
	if got := run(t, c.Programs[key]); got != want {
		t.Errorf("%s returns %d, want %d", key, got, want)
	}
}

// wantError checks that an error is a fault.Error of one line that says all parts.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if _, ok := errors.AsType[*fault.Error](err); !ok {
		t.Errorf("%T is not a fault.Error: %v", err, err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not say %q", err, p)
		}
	}
}

func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
func u64(n uint64) []byte { return binary.NativeEndian.AppendUint64(nil, n) }

func TestOnlyWhatIsWanted(t *testing.T) {
	p := plan(program("read_verdict"), program("read_limit"), program("trace"), program("read_inner"))
	p.Programs[0].Attachments = []specs.Attachment{{Name: "a", Hook: specs.HookTCXIngress}}
	p.Programs[0].Hook = specs.HookTCXIngress
	o := options(p)
	o.Programs, o.Attach = nil, []string{"a"}
	c := mustLoad(t, o)
	if got := slices.Sorted(maps.Keys(c.Programs)); !slices.Equal(got, []string{"read_verdict"}) {
		t.Errorf("programs %v", got)
	}
	if got := slices.Sorted(maps.Keys(c.Maps)); !slices.Equal(got, []string{"verdicts"}) {
		t.Errorf("maps %v", got)
	}
	wantRun(t, c, "read_verdict", 1000)
}

func TestUnknownNames(t *testing.T) {
	o := options(plan(program("read_limit")))
	o.Attach = []string{"nobody"}
	_, err := Load(t.Context(), o)
	wantError(t, err, "policy test: attachment nobody", "linkpin policy apply")

	_, err = Load(t.Context(), options(plan(program("no_such_function"))))
	wantError(t, err, "program no_such_function", "linkpin policy apply")

	p := plan(program("read_limit"))
	p.Programs[0].Object = "other"
	_, err = Load(t.Context(), options(p))
	wantError(t, err, "object other")
}

func TestObjectErrors(t *testing.T) {
	o := options(plan(program("read_limit")))
	o.Object = func(string) ([]byte, error) { return nil, os.ErrNotExist }
	_, err := Load(t.Context(), o)
	wantError(t, err, "object basic.bpf.o", "file does not exist")

	o.Object = func(string) ([]byte, error) { return []byte("\x7fELF"), nil }
	_, err = Load(t.Context(), o)
	wantError(t, err, "object basic.bpf.o")
}

// A symbol stands twice in a plan if it needs two expected attach types.
func TestHookSetsAttachType(t *testing.T) {
	p := plan(
		specs.PlanProgram{Key: "read_cgroup", Symbol: "read_cgroup", Hook: "cgroup_skb/ingress"},
		specs.PlanProgram{Key: "read_cgroup#2", Symbol: "read_cgroup", Hook: "cgroup_skb/egress"},
		specs.PlanProgram{Key: "pass", Symbol: "pass", Hook: specs.HookXDP, Frags: true},
		specs.PlanProgram{Key: "read_limit", Symbol: "read_limit", Hook: specs.HookTCXEgress},
	)
	p.Constants = []specs.PlanConstant{{Symbol: "cgroup_id", Value: specs.Bytes{Data: u64(77)}}}
	c := mustLoad(t, options(p))
	if len(c.Programs) != 4 {
		t.Fatalf("%d programs", len(c.Programs))
	}
	wantRun(t, c, "read_cgroup", 1)
	wantRun(t, c, "read_cgroup#2", 1)
	for key, want := range map[string]ebpf.ProgramType{"read_cgroup#2": ebpf.CGroupSKB, "pass": ebpf.XDP, "read_limit": ebpf.SchedCLS} {
		if got := c.Programs[key].Type(); got != want {
			t.Errorf("%s has type %s", key, got)
		}
	}
}

func TestSetHook(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spec  ebpf.ProgramSpec
		hook  specs.Hook
		frags bool
		want  ebpf.ProgramSpec
	}{
		{"section is kept", ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect}, "", false,
			ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect}},
		{"tcx has no attach type", ebpf.ProgramSpec{Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXEgress}, specs.HookTCXIngress, false,
			ebpf.ProgramSpec{Type: ebpf.SchedCLS}},
		{"nor has a tc section", ebpf.ProgramSpec{Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXEgress}, "", false,
			ebpf.ProgramSpec{Type: ebpf.SchedCLS}},
		{"frags", ebpf.ProgramSpec{Type: ebpf.XDP}, specs.HookXDP, true,
			ebpf.ProgramSpec{Type: ebpf.XDP, AttachType: ebpf.AttachXDP, Flags: unix.BPF_F_XDP_HAS_FRAGS}},
		{"no frags", ebpf.ProgramSpec{Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS}, specs.HookXDP, false,
			ebpf.ProgramSpec{Type: ebpf.XDP, AttachType: ebpf.AttachXDP}},
		{"another type", ebpf.ProgramSpec{Type: ebpf.Tracing, AttachTo: "do_exit", Flags: unix.BPF_F_SLEEPABLE}, "cgroup_skb/egress", false,
			ebpf.ProgramSpec{Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := SetHook(&tc.spec, &specs.PlanProgram{Hook: tc.hook, Frags: tc.frags}); err != nil {
				t.Fatal(err)
			}
			got, want := fmt.Sprintf("%+v", tc.spec), fmt.Sprintf("%+v", tc.want)
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
	if err := SetHook(&ebpf.ProgramSpec{}, &specs.PlanProgram{Hook: "nowhere"}); err == nil {
		t.Error("no error for an unknown hook")
	}
}

func TestDeadline(t *testing.T) {
	cause := errors.New("5s are over")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Nanosecond, cause)
	defer cancel()
	<-ctx.Done()
	_, err := Load(ctx, options(plan(program("read_verdict"))))
	wantError(t, err, "policy test: not loaded in time: 5s are over", "try again")
	if !errors.Is(err, cause) {
		t.Error("the context's cause is lost")
	}
}

func TestEverythingIsClosedOnError(t *testing.T) {
	before := descriptors(t)
	// wild comes last, after maps and programs have been made.
	_, err := Load(t.Context(), options(plan(program("read_verdict"), program("read_inner"), program("wild"))))
	if err == nil {
		t.Fatal("no error")
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// descriptors counts this process's descriptors of maps, programs and BTF.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.Contains(to, "bpf") {
			n++
		}
	}
	return n
}
