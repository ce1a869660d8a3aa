// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"errors"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// annotate gives a pod annotations, as the capability passes them.
func annotate(p *pod, annotations map[string]string) {
	p.conf["runtimeConfig"] = map[string]any{"io.kubernetes.cri.pod-annotations": annotations}
}

// unplug deletes a pod's interface, as its author may with CAP_NET_ADMIN.
func unplug(t *testing.T, p *pod) {
	t.Helper()
	p.ns.Do(t, func() {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			err = netlink.LinkDel(l)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// recorded returns what is recorded for the hooks of a pod's containers.
func (n *node) recorded(p *pod) map[string]string {
	n.t.Helper()
	root, err := pin.Open(n.BPFFS)
	if errors.Is(err, pin.ErrNoState) {
		return nil
	}
	if err != nil {
		n.t.Fatal(err)
	}
	defer root.Close()
	ns, err := target.OpenNetns(p.ns.Path())
	if err != nil {
		n.t.Fatal(err)
	}
	defer ns.Close()
	got, err := (&entry.Session{Root: root, By: pin.ByHook}).PodAnnotations(context.Background(), ns)
	if err != nil {
		n.t.Fatal(err)
	}
	return got
}

// What policies look at is recorded of a pod's annotations, also where CNI itself has
// nothing to attach, and for callers that it does not know: containerd tells only CNI.
func TestAnnotationsOfThePodAreRecorded(t *testing.T) {
	n := newNode(t)
	policies := []policy{
		{name: "asked", sel: specs.Select{OptIn: true}, symbol: "connect4", at: connect},
		{name: "team", sel: specs.Select{Annotations: map[string]string{"team": "db"}, Fields: specs.Fields{Callers: []specs.Caller{specs.CallerContainerd}}}, symbol: "read_ifindex", at: tcxHost},
		{name: "all", sel: everybody, symbol: "connect4", at: connect},
	}
	n.apply(policies...)
	p := newPod(t, "pod", "lpnote0", "1.1.0")
	annotate(p, map[string]string{specs.OptInAnnotation: "asked", "team": "web", "secret": "x"})
	n.mustAdd(p)
	n.wantState(1, 0, 0)
	want := map[string]string{specs.OptInAnnotation: "asked", "team": "web"}
	if got := n.recorded(p); !maps.Equal(got, want) {
		t.Errorf("recorded %v, want %v", got, want)
	}
	if got := n.recorded(newPod(t, "other", "lpnote1", "1.1.0")); len(got) > 0 {
		t.Errorf("for another namespace: %v", got)
	}
	if err := n.Check(p.cmd(t)); err != nil {
		t.Errorf("CHECK: %v", err)
	}

	// Again: brought up to date, and no second one.
	annotate(p, map[string]string{"team": "db"})
	n.mustAdd(p)
	n.wantState(1, 0, 0)
	if got := n.recorded(p); !maps.Equal(got, map[string]string{"team": "db"}) {
		t.Errorf("after the second ADD: %v", got)
	}

	// It does not hang on a device that the pod can delete, nor is it swept.
	policies = append(policies, policy{name: "tcx", sel: everybody, symbol: "read_ifindex", at: tcxHost})
	n.apply(policies...)
	n.mustAdd(p)
	n.wantState(2, 0, 1)
	unplug(t, p)
	root, err := pin.Open(n.BPFFS)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	s := &entry.Session{Root: root}
	bpftest.Eventually(t, "the interface's own entry is swept", func() error {
		s.Sweep(t.Context())
		if entries, _, _ := n.state(); entries != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	if got := n.recorded(p); !maps.Equal(got, map[string]string{"team": "db"}) {
		t.Errorf("without the interface: %v", got)
	}
	if err := n.Del(p.cmd(t)); err != nil {
		t.Fatal(err)
	}
	if got := n.recorded(p); len(got) > 0 {
		t.Errorf("after DEL: %v", got)
	}
	if entries, _, _ := n.state(); entries != 0 {
		t.Errorf("%d entries after DEL", entries)
	}
}

// The namespace is gone without DEL: so is the note, with the next sweeps.
func TestNoteGoesWithTheNamespace(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "asked", sel: specs.Select{OptIn: true}, symbol: "connect4", at: connect})
	p := newPod(t, "pod", "lpnote2", "1.1.0")
	n.mustAdd(p)
	n.wantState(0, 0, 0) // it asks for nothing
	ask(p, "asked")
	n.mustAdd(p)
	n.wantState(1, 0, 0)
	args := p.cmd(t)
	args.Netns = ""
	if err := n.Del(args); err != nil {
		t.Fatal(err)
	}
	n.wantState(0, 0, 0)
}

// An ADD that fails leaves no note; one that may fail leaves it.
func TestNoteOfAFailedAdd(t *testing.T) {
	for onError, want := range map[specs.OnError]int{specs.Deny: 0, specs.Allow: 1} {
		n := newNode(t)
		n.apply(policy{name: "asked", sel: specs.Select{OptIn: true}, symbol: "connect4", at: connect},
			policy{name: "wrong", sel: everybody, onError: onError, symbol: "wild", at: tcxHost})
		p := newPod(t, "pod", "lpnote3", "1.1.0")
		ask(p, "asked")
		if _, err := n.add(p); (err == nil) != (onError == specs.Allow) {
			t.Errorf("%s: %v", onError, err)
		}
		if got := n.recorded(p); len(got) != want {
			t.Errorf("%s: recorded %v", onError, got)
		}
		unplug(t, p)
	}
}

// What an author writes takes no more room than a request may.
func TestLongAnnotations(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "team", sel: specs.Select{Annotations: map[string]string{"team": "web"}}, onError: specs.Allow, symbol: "connect4", at: connect})
	p := newPod(t, "pod", "lpnote4", "1.1.0")
	annotate(p, map[string]string{"team": strings.Repeat("x", 4097), "other": strings.Repeat("x", 100000)})
	if _, err := n.add(p); err == nil || !strings.Contains(err.Error(), "annotation team: is longer than 4096 bytes") {
		t.Errorf("got %v", err)
	}
	n.wantState(0, 0, 0)
	annotate(p, map[string]string{"team": strings.Repeat("x", 4096), "other": strings.Repeat("x", 100000)})
	n.mustAdd(p)
}

// podman's hook sees the container's annotations itself, and without policies that
// look at annotations there is nothing to record.
func TestNothingIsRecorded(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "asked", sel: specs.Select{OptIn: true}, symbol: "connect4", at: connect})
	p := newPod(t, "pod", "lpnote5", "1.1.0")
	p.conf["caller"] = "podman"
	ask(p, "asked")
	n.mustAdd(p)
	n.wantState(0, 0, 0)
	n.apply(policy{name: "all", sel: everybody, symbol: "connect4", at: connect})
	p.conf["caller"] = "containerd"
	annotate(p, map[string]string{"team": "web"})
	n.mustAdd(p)
	if _, err := os.Stat(n.BPFFS.Path + "/linkpin"); err == nil {
		n.wantState(0, 0, 0)
	}
}

// Without the note, hooks would not know what the pod asks for: no policy may pass
// over that, whatever it says for itself.
func TestWithoutTheNoteThereIsNoPod(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "asked", sel: specs.Select{OptIn: true}, symbol: "connect4", at: connect},
		policy{name: "tcx", sel: everybody, onError: specs.Allow, symbol: "read_ifindex", at: tcxHost})
	for annotation, refused := range map[string]bool{"asked": true, "": false} {
		p := newPod(t, "pod", "lpnote6", "1.1.0")
		if annotation != "" {
			ask(p, annotation)
		}
		unplug(t, p) // before anything can be locked or recorded
		if _, err := n.add(p); (err != nil) != refused {
			t.Errorf("the pod asks for %q: %v", annotation, err)
		}
	}
}
