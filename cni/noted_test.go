// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"
	"maps"
	"testing"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// What a pod asks for is recorded, also where CNI itself has nothing to attach:
// containerd tells only CNI.
func TestWhatThePodAsksForIsRecorded(t *testing.T) {
	connect := specs.Attachment{Hook: "cgroup/connect4"}
	byTeam := specs.Select{Annotations: map[string]string{"team": "web"}, Fields: specs.Fields{Containers: []string{"nginx"}}}
	n := newNode(t)
	policies := []policy{
		{name: "asked", sel: specs.Select{OptIn: true}, symbol: "connect4", at: connect},
		{name: "other", sel: specs.Select{OptIn: true}, symbol: "connect4", at: connect},
		{name: "team", sel: byTeam, symbol: "read_ifindex", at: tcxHost},
		{name: "all", sel: everybody, symbol: "connect4", at: connect},
	}
	n.apply(policies...)
	p := newPod(t, "pod", "lpnote0", "1.1.0")
	p.conf["runtimeConfig"] = map[string]any{"io.kubernetes.cri.pod-annotations": map[string]string{
		specs.OptInAnnotation: "asked", "team": "web", "secret": "x",
	}}
	n.mustAdd(p)
	n.wantState(2, 0, 0)
	n.mustAdd(p)
	n.wantState(2, 0, 0)
	if err := n.Check(p.cmd(t)); err != nil {
		t.Errorf("CHECK: %v", err)
	}

	root, err := pin.Open(n.BPFFS)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	s := &entry.Session{Root: root, By: pin.ByHook}
	// A sweep leaves it, as long as the namespace is there.
	for range 5 {
		s.Sweep(t.Context())
	}
	ns, err := target.OpenNetns(p.ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	want := map[string]string{specs.OptInAnnotation: "asked", "team": "web"}
	if got, err := s.PodAnnotations(ns); err != nil || !maps.Equal(got, want) {
		t.Errorf("recorded %v, %v; want %v", got, err, want)
	}
	other, err := target.OpenNetns(newPod(t, "other", "lpnote1", "1.1.0").ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if got, err := s.PodAnnotations(other); err != nil || len(got) > 0 {
		t.Errorf("another namespace: %v, %v", got, err)
	}

	// A note covers nothing: when the policy selects by other means, it is attached.
	policies[2].sel = everybody
	n.apply(policies...)
	n.mustAdd(p)
	n.wantState(2, 0, 1)

	// Without the note CHECK says so, and DEL takes all of it.
	lock, err := root.Lock(t.Context(), pin.Sandbox(pin.SandboxKey("pod")))
	if err != nil {
		t.Fatal(err)
	}
	err = s.Withdraw([]pin.Place{pin.InterfaceEntry(pin.SandboxKey("pod"), "net", "eth0", "asked")})
	if err := errors.Join(err, lock.Release()); err != nil {
		t.Fatal(err)
	}
	if err := n.Check(p.cmd(t)); code(t, err) != CodeDrift {
		t.Errorf("CHECK without the note: %v", err)
	}
	n.mustAdd(p)
	if err := n.Del(p.cmd(t)); err != nil {
		t.Fatal(err)
	}
	if entries, _, _ := n.state(); entries != 0 {
		t.Errorf("%d entries after DEL", entries)
	}
	if got, err := s.PodAnnotations(ns); err != nil || len(got) > 0 {
		t.Errorf("after DEL: %v, %v", got, err)
	}
}

// podman's hook sees the container's annotations itself.
func TestNothingIsNotedForPodman(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "asked", sel: specs.Select{OptIn: true}, symbol: "connect4", at: specs.Attachment{Hook: "cgroup/connect4"}})
	p := newPod(t, "pod", "lpnote2", "1.1.0")
	p.conf["caller"] = "podman"
	ask(p, "asked")
	n.mustAdd(p)
	n.wantState(0, 0, 0)
}
