// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
)

// After a failed ADD the runtime calls DEL: the sandbox that has the id stays as it is.
func TestDelAfterARefusedAdd(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "tcx", sel: everybody, symbol: "read_ifindex", at: tcxHost})
	first, second := newPod(t, "pod", "lprfd0", "1.1.0"), newPod(t, "pod", "lprfd1", "1.1.0")
	n.mustAdd(first)
	n.mustAdd(first) // once more: nothing twice
	n.wantState(1, 0, 1)
	if _, err := n.add(second); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Fatalf("got %v", err)
	}
	if err := n.Del(second.cmd(t)); err != nil {
		t.Fatal(err)
	}
	n.wantState(1, 0, 1)
	if err := n.Check(first.cmd(t)); err != nil {
		t.Errorf("CHECK of the first: %v", err)
	}
}

// A failed ADD leaves no trace, not even in the index of namespaces.
func TestFailedAddLeavesNothing(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "wrong", sel: everybody, symbol: "wild", at: tcxHost})
	if _, err := n.add(newPod(t, "pod", "lpflt0", "1.1.0")); err == nil {
		t.Fatal("it was added")
	}
	for _, dir := range []string{"sandboxes", "netns", "staging", "retired"} {
		names, err := os.ReadDir(n.BPFFS.Path + "/linkpin/v1/" + dir)
		if err != nil || len(names) > 0 {
			t.Errorf("%s: %v, %v", dir, names, err)
		}
	}
}

// GC and DEL of others leave programs of the namespace alone.
func TestNamespaceProgramsStay(t *testing.T) {
	bpftest.NeedKernel(t, 6, 4, "netfilter links")
	n := newNode(t)
	n.apply(policy{name: "nf", sel: everybody, symbol: "connect4", at: specs.Attachment{
		Hook: specs.HookNetfilter, Netfilter: &specs.Netfilter{Family: "ipv4", Hook: "input", Priority: 10}}})
	p := newPod(t, "pod", "lpnfs0", "1.1.0")
	n.mustAdd(p)
	p.conf["cni.dev/valid-attachments"] = []any{map[string]any{"containerID": p.id, "ifname": "eth0"}}
	if err := n.GC(p.cmd(t)); err != nil {
		t.Fatal(err)
	}
	other := p.cmd(t)
	other.IfName = "net1"
	if err := n.Del(other); err != nil {
		t.Fatal(err)
	}
	n.wantState(1, 0, 0) // netfilter links don't tell that they are live
	if err := n.Check(p.cmd(t)); err != nil {
		t.Error(err)
	}
	if err := n.Del(p.cmd(t)); err != nil {
		t.Fatal(err)
	}
	n.wantState(0, 0, 0)
}

// CHECK demands of a policy no more than ADD did.
func TestCheckAfterAllow(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "wrong", sel: everybody, onError: specs.Allow, symbol: "wild", at: tcxHost},
		policy{name: "tcx", sel: everybody, symbol: "read_ifindex", at: tcxHost})
	p := newPod(t, "pod", "lpcka0", "1.1.0")
	n.mustAdd(p)
	if err := n.Check(p.cmd(t)); err != nil {
		t.Error(err)
	}
	if err := n.Del(p.cmd(t)); err != nil {
		t.Fatal(err)
	}
	if err := n.Check(p.cmd(t)); code(t, err) != CodeDrift {
		t.Errorf("CHECK after DEL: %v", err)
	}
}

// A failure of what all policies need: one deny is enough.
func TestSharedFailure(t *testing.T) {
	for _, tc := range []struct {
		onError specs.OnError
		refused bool
	}{{specs.Deny, true}, {specs.Allow, false}} {
		n := newNode(t)
		n.apply(policy{name: "a", sel: everybody, onError: specs.Allow, symbol: "pass", at: xdpInside},
			policy{name: "b", sel: everybody, onError: tc.onError, symbol: "read_ifindex", at: tcxHost})
		n.BPFFS.Path = t.TempDir()
		p := newPod(t, "pod", "lpshf-"+string(tc.onError), "1.1.0")
		out, err := n.add(p)
		if (err != nil) != tc.refused || (out == "") != tc.refused {
			t.Errorf("%s: printed %q, %v", tc.onError, out, err)
		}
		if !tc.refused && len(n.warnings) != 1 {
			t.Errorf("warnings: %v", n.warnings)
		}
	}
}

// The loopback plugin's interface is nobody's target.
func TestLoopback(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "xdp", sel: everybody, symbol: "pass", at: xdpInside})
	cmd := newPod(t, "pod", "lplo0", "1.1.0").cmd(t)
	cmd.IfName = "lo"
	stdout(t, func() {
		if err := n.Add(cmd); err != nil {
			t.Error(err)
		}
	})
	n.wantState(0, 0, 0)
}

// The codes tell a runtime what to do: wait, give up, or report.
func TestErrorCodes(t *testing.T) {
	for want, causes := range map[uint][]error{
		types.ErrTryAgainLater:    {pin.ErrDeadline, pin.ErrBusy},
		types.ErrUnknownContainer: {target.ErrGone},
		CodeNoPolicies:            {applied.ErrMissing, applied.ErrDamaged},
		CodeUnavailable:           {pin.ErrNoBPFFS, pin.ErrReadOnly, pin.ErrForeign},
		CodeRefused:               {errors.New("other")},
	} {
		for _, cause := range causes {
			err := cniError(fmt.Errorf("x:\n%w", cause))
			if code(t, err) != want || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v: %v, want code %d and one line", cause, err, want)
			}
		}
	}
	if cniError(nil) != nil {
		t.Error("an error out of nothing")
	}
}

// CHECK for an id in another namespace is not answered for the one that is recorded;
// and where no policy wants anything, it has nothing to look at.
func TestCheckLooksAtTheNamespace(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "tcx", sel: everybody, symbol: "read_ifindex", at: tcxHost})
	first, second := newPod(t, "pod", "lpckn0", "1.1.0"), newPod(t, "pod", "lpckn1", "1.1.0")
	n.mustAdd(first)
	if err := n.Check(second.cmd(t)); code(t, err) != CodeDrift || !strings.Contains(err.Error(), "another network namespace") {
		t.Errorf("got %v", err)
	}
	n.apply(policy{name: "cgroup", sel: everybody, symbol: "connect4", at: specs.Attachment{Hook: "cgroup/connect4"}})
	cmd := first.cmd(t)
	cmd.Netns = "/gone"
	if err := n.Check(cmd); err != nil {
		t.Errorf("without policies: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	args := "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=name;broken"
	for caller, want := range map[specs.Caller]specs.Identity{
		specs.CallerContainerd: {Pod: "name", Namespace: "ns"},
		specs.CallerNone:       {Pod: "name", Namespace: "ns"},
		specs.CallerPodman:     {Container: "name"}, // it knows no pods
	} {
		conf := &Conf{Caller: caller}
		conf.Name = "net"
		got := identity(conf, "id", args)
		if got.Container != want.Container || got.Pod != want.Pod || got.Namespace != want.Namespace ||
			got.ContainerID != "id" || got.SandboxID != "id" || got.Network != "net" || got.Caller != caller {
			t.Errorf("%s: %+v", caller, got)
		}
	}
}

func TestConfigurationIsBounded(t *testing.T) {
	_, err := parse([]byte(`{"name":"net","x":"` + strings.Repeat("y", maxConf) + `"}`))
	if err == nil || code(t, err) != types.ErrDecodingFailure || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %.100v", err)
	}
}
