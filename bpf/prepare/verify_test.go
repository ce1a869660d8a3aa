// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/policy"
)

func TestVerifierRefuses(t *testing.T) {
	p := must(t, "object: {file: wild.bpf.o}\nprograms:\n  wild: {}\n  tame: {}\nmaps: {calls: {programs: {0: tame}}}\n")
	_, err := p.Verify(t.Context())
	wantErrors(t, err, []string{"p.yaml:3: programs.wild: program wild: the verifier refuses it:", " | ", "invalid mem access"})
	var r *load.RefusedError
	if !errors.As(err, &r) || len(r.Log) < 5 {
		t.Errorf("the log is lost: %+v", r)
	}
}

// A target that is refused is named itself, once, not each of its callers.
func TestRefusedTarget(t *testing.T) {
	p := must(t, "object: {file: wild.bpf.o}\nprograms:\n  tame: {}\nmaps:\n  calls: {programs: {0: wild}}\n")
	_, err := p.Verify(t.Context())
	wantErrors(t, err, []string{"p.yaml:5: maps.calls", "program wild: the verifier refuses it"})
}

func TestVerifyStopsInTime(t *testing.T) {
	p := must(t, "object: {builtin: meter}\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.Verify(ctx)
	if !errors.Is(err, context.Canceled) || strings.Count(err.Error(), "\n") > 0 {
		t.Error(err)
	}
}

func TestVerifyLeavesNothing(t *testing.T) {
	p := must(t, plain)
	before := descriptors(t)
	if _, err := p.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

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

// What this machine can't do says nothing about a program.
func TestUncheckable(t *testing.T) {
	p := &Prepared{
		Plan:   specs.Plan{Programs: []specs.PlanProgram{{Key: "p", Hook: "cgroup_skb/egress"}}},
		places: map[string]policy.Pos{"p": {File: "p.yaml", Line: 4}},
	}
	unsupported := &load.RefusedError{Key: "p", Reason: "needs Linux 9.9", Err: fmt.Errorf("%w: %w", load.ErrUnsupported, unix.EINVAL)}
	if got := p.uncheckable("p", unsupported); got != "needs Linux 9.9" {
		t.Errorf("%q", got)
	}
	// We may load programs, so EPERM is about this one.
	if got := p.uncheckable("p", &load.RefusedError{Key: "p", Err: unix.EPERM}); got != "" {
		t.Errorf("%q", got)
	}
	if got := p.uncheckable("p", &load.RefusedError{Key: "p", Err: &ebpf.VerifierError{Cause: unix.EACCES, Log: []string{"x"}}}); got != "" {
		t.Errorf("%q", got)
	}
	u := Unchecked{"p", p.places["p"], "the kernel\nis old"}
	if got := u.String(); got != "p.yaml:4: program p can't be checked here: the kernel; is old" {
		t.Errorf("%q", got)
	}
}

// Both callers share one program array. The verifier takes each of them, and its
// log says nothing but that.
func TestCallersOfTwoAttachTypes(t *testing.T) {
	bpftest.NeedKernel(t, 6, 18, "attach types of tail calls are compared")
	p, err := prepare(t, "object: {file: tail.bpf.o}\nprograms:\n  sock_caller: [{attach: cgroup/connect4}, {attach: cgroup/connect6}]\n")
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Verify(t.Context())
	wantErrors(t, err, []string{"p.yaml:3: programs.sock_caller[1]: program sock_caller#2: ", "one attach type (since 6.18)"})
}
