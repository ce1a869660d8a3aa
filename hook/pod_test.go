// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"context"
	"errors"
	"testing"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// A container selects by what CNI has recorded of its pod's annotations, and by its
// own. The runtime may keep the pod's from the hook.
func TestPodAnnotations(t *testing.T) {
	asked := deny("asked", connect)
	asked.sel = specs.Select{OptIn: true}
	own := deny("own", connect)
	own.sel = specs.Select{OptIn: true}
	team := deny("team", tcxHost)
	team.sel = specs.Select{Annotations: map[string]string{"team": "web"}, Fields: specs.Fields{Containers: []string{"app"}}}
	n := newNode(t, asked, own, team)
	c := newContainer(t, "first", "lphpod0")
	note(t, n, c, map[string]string{specs.OptInAnnotation: "asked", "team": "web"})

	for _, tc := range []struct {
		name        string
		caller      specs.Caller
		annotations map[string]string
		connect4    int
		tcx         int
	}{
		{name: "others", caller: specs.CallerNone},
		{name: "plain", caller: specs.CallerContainerd, connect4: 1},
		{name: "itself", caller: specs.CallerContainerd, annotations: map[string]string{specs.OptInAnnotation: "own"}, connect4: 2},
		{name: "selected", caller: specs.CallerContainerd, annotations: map[string]string{"io.kubernetes.cri.container-name": "app"}, connect4: 1, tcx: 1},
		{name: "over", caller: specs.CallerContainerd, annotations: map[string]string{"io.kubernetes.cri.container-name": "app", "team": "db"}, connect4: 1, tcx: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n.hook.Caller = tc.caller
			app := c.join(t, tc.name)
			app.state["annotations"] = tc.annotations
			n.must(CreateRuntime, app)
			app.wantPrograms(t, tc.connect4, tc.tcx) // the interface's stay with the pod
		})
	}

	// What the pod was given at its start is no longer there: its next container is
	// refused, not let through.
	n.apply(own, team)
	n.hook.Caller = specs.CallerContainerd
	if err := n.create(c.join(t, "late")); err == nil {
		t.Error("the pod asks for a policy that is gone, and its container starts")
	}
}

// note records annotations of a pod as linkpin-cni does.
func note(t *testing.T, n *node, c *container, annotations map[string]string) {
	t.Helper()
	set, _, keys, err := entry.Selection{Applied: n.hook.Applied}.ChooseForPod(specs.Identity{Annotations: annotations})
	if err != nil || len(keys) == 0 {
		t.Fatalf("nothing to note: %v", err)
	}
	defer set.Close()
	root, err := pin.Create(n.hook.BPFFS)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	s := &entry.Session{Root: root, Plans: set, By: pin.ByCNI}
	ns, err := target.OpenNetns(c.ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	iface, err := ns.Interface("eth0")
	if err != nil {
		t.Fatal(err)
	}
	key, lock, err := s.LockSandbox(context.Background(), ns, "pod")
	if err != nil {
		t.Fatal(err)
	}
	sub := &entry.Subject{Identity: specs.Identity{ContainerID: "pod", Network: "net", Annotations: annotations}, Netns: ns, Sandbox: key}
	_, err = s.NotePod(sub, iface, entry.Noted(annotations, keys))
	if err := errors.Join(err, lock.Release()); err != nil {
		t.Fatal(err)
	}
}
