// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"context"
	"errors"
	"testing"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// CNI adds an interface to a namespace that the hook knows already (podman network
// connect): later containers find it covered, and believe the id of CNI's sandbox.
func TestCNIAfterTheHook(t *testing.T) {
	n := newNode(t, deny("all", connect, tcxHost))
	n.hook.Caller = specs.CallerContainerd
	first := newContainer(t, "first", "lphjo0")
	n.must(CreateRuntime, first)
	bpftest.Veth(t, first.ns, "lphjo1", "eth1")

	set, _, err := entry.Selection{Applied: n.hook.Applied}.Choose(specs.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	s := n.session()
	s.Plans = set
	ns, err := target.OpenNetns(first.ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	iface, err := ns.Interface("eth1")
	if err != nil {
		t.Fatal(err)
	}
	key, lock, err := s.LockSandbox(context.Background(), ns, "pod")
	if err != nil {
		t.Fatal(err)
	}
	sub := &entry.Subject{Identity: specs.Identity{ContainerID: "pod", Network: "net"}, Netns: ns, Sandbox: key}
	_, err = s.Attach(context.Background(), sub, []entry.Want{{
		Policy: "all", Kind: specs.TargetInterface, Interface: iface, Place: pin.InterfaceEntry(key, "net", "eth1", "all"),
	}})
	if err := errors.Join(err, lock.Release()); err != nil {
		t.Fatal(err)
	}

	second := first
	for _, tc := range []struct{ claimed, want string }{{"pod", "pod"}, {"other", ""}, {"first", ""}} {
		c := first.join(t, "app-"+tc.claimed)
		c.state["annotations"] = map[string]string{"io.kubernetes.cri.sandbox-id": tc.claimed}
		n.must(CreateRuntime, c)
		c.wantPrograms(t, 1, 1)
		second = c
		it, ok := s.Look(pin.ContainerEntry(pin.ContainerKey("app-"+tc.claimed, c.state["bundle"].(string)), "all"))
		if !ok || it.Record.Sandbox != key || it.Record.Identity.SandboxID != tc.want {
			t.Errorf("claimed %s: %v %+v", tc.claimed, ok, it.Record)
		}
	}
	second.host = "lphjo1"
	second.wantPrograms(t, 1, 1) // CNI's, and not a second one
	n.wantEntries(6)             // of the hook for eth0, of CNI for eth1, and of four containers
	if len(n.warnings) > 0 {
		t.Errorf("warnings: %v", n.warnings)
	}
}
