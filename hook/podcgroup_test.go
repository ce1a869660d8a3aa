// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// ofPod makes a policy one for the pod's cgroup.
func ofPod(p policy) policy {
	p.cgroup = specs.CgroupPod
	return p
}

// pod is a sandbox with a cgroup, as a CRI runtime makes it.
type pod struct {
	n      *node
	cgroup string
	ns     *bpftest.NS
	host   string
}

func newPod(n *node, host string) *pod {
	n.t.Helper()
	n.hook.Caller = specs.CallerContainerd
	ns := bpftest.NetNS(n.t)
	bpftest.Veth(n.t, ns, host, "eth0")
	return &pod{n: n, cgroup: bpftest.Cgroup(n.t), ns: ns, host: host}
}

// add does what linkpin-cni does at ADD for a policy of the pod's cgroup.
func (p *pod) add(policy string) {
	p.n.t.Helper()
	t := p.n.t
	set, _, err := entry.Selection{Applied: p.n.hook.Applied}.Choose(specs.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	s := p.n.session()
	s.Plans = set
	ns, err := target.OpenNetns(p.ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	cg, err := target.PodCgroup(target.Roots{}, strings.TrimPrefix(p.cgroup, bpftest.Cgroup2Mount(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer cg.Close()
	key, lock, err := s.LockSandbox(context.Background(), ns, "pod")
	if err != nil {
		t.Fatal(err)
	}
	sub := &entry.Subject{Identity: specs.Identity{ContainerID: "pod", Network: "net"}, Netns: ns, Sandbox: key}
	_, err = s.Attach(context.Background(), sub, []entry.Want{{
		Policy: policy, Kind: specs.TargetPodCgroup, Place: pin.PodCgroupEntry(key, policy), Cgroup: cg,
		Interface: &target.Interface{Device: target.Device{Name: "eth0"}},
	}})
	if err := errors.Join(err, lock.Release()); err != nil {
		t.Fatal(err)
	}
}

// container starts a process of the pod in a cgroup.
func (p *pod) container(id, cgroup string) *container {
	p.n.t.Helper()
	if err := os.MkdirAll(cgroup, 0o755); err != nil {
		p.n.t.Fatal(err)
	}
	var pid int
	p.ns.Do(p.n.t, func() { pid = bpftest.CgroupProcess(p.n.t, cgroup).Pid })
	return describe(p.n.t, id, cgroup, p.host, p.ns, pid)
}

func TestContainersOfAPod(t *testing.T) {
	n := newNode(t, ofPod(deny("pod", connect, tcxHost)), deny("own", connect))
	p := newPod(n, "lphpc0")
	p.add("pod")
	for _, id := range []string{"one", "two"} {
		c := p.container(id, filepath.Join(p.cgroup, id))
		c.state["annotations"] = map[string]string{"io.kubernetes.cri.sandbox-id": "pod"}
		for range 2 { // prestart and createRuntime
			n.must(CreateRuntime, c)
		}
		c.wantPrograms(t, 1, 1) // of its own policy; the pod's is above
		it, ok := n.session().Look(pin.ContainerEntry(pin.ContainerKey(id, c.state["bundle"].(string)), "pod"))
		if !ok || it.Err != nil || len(it.Record.Programs) != 0 || it.Record.Identity.SandboxID != "pod" || it.Record.Sandbox != pin.SandboxKey("pod") {
			t.Errorf("%v %+v", ok, it.Record)
		}
	}
	pod := container{cgroup: p.cgroup}
	pod.wantPrograms(t, 1, 0)
	n.wantEntries(6) // the pod's cgroup and its interface, and two of each container
	if len(n.warnings) > 0 {
		t.Errorf("warnings: %v", n.warnings)
	}

	// Its containers end, the pod's programs stay.
	for _, it := range func() []entry.Item { live, _ := n.items(); return live }() {
		if it.Place.Kind() == pin.PodCgroupPlace {
			detachAll(t, n, it.Place)
		}
	}
	three := p.container("three", filepath.Join(p.cgroup, "three"))
	n.must(CreateRuntime, three)
	pod.wantPrograms(t, 1, 0) // what was taken off is there again
	three.kill(t)
	n.must(Poststop, three)
	pod.wantPrograms(t, 1, 0)
}

func TestPodPolicyIsNotInForce(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(n *node) *container
		want error
		say  string
	}{
		{"CNI has not been called", func(n *node) *container {
			p := newPod(n, "lphpn0")
			return p.container("web", filepath.Join(p.cgroup, "web"))
		}, nil, "linkpin install cni"},
		{"outside of the pod's cgroup", func(n *node) *container {
			p := newPod(n, "lphpn1")
			p.add("pod")
			return p.container("web", bpftest.Cgroup(n.t))
		}, entry.ErrOutside, "is not in the cgroup of its pod"},
		{"another pod's cgroup", func(n *node) *container {
			p, other := newPod(n, "lphpn2"), newPod(n, "lphpn3")
			other.add("pod")
			return p.container("web", filepath.Join(other.cgroup, "web"))
		}, nil, "linkpin install cni"},
		{"the host's network", func(n *node) *container {
			n.hook.Caller = specs.CallerCRIO
			cgroup := bpftest.Cgroup(n.t)
			return describe(n.t, "web", cgroup, "", nil, bpftest.CgroupProcess(n.t, cgroup).Pid)
		}, target.ErrForbidden, "exclude containers on the host's network"},
		{"no pods: none", func(n *node) *container { return newContainer(n.t, "web", "lphpn4") }, nil, `the caller none has no pods`},
		{"no pods: podman", func(n *node) *container {
			n.hook.Caller = specs.CallerPodman
			return newContainer(n.t, "web", "lphpn5")
		}, nil, `the caller podman has no pods`},
		{"no pods: cdi", func(n *node) *container {
			n.hook.Caller = specs.CallerCDI
			return newContainer(n.t, "web", "lphpn6")
		}, nil, `the caller cdi has no pods`},
	} {
		for _, onError := range []specs.OnError{specs.Deny, specs.Allow} {
			t.Run(tc.name+"/"+string(onError), func(t *testing.T) {
				p := ofPod(deny("pod", connect, tcxHost))
				p.onError = onError
				n := newNode(t, p, deny("own", connect))
				c := tc.make(n)
				before, _ := n.items()
				err := n.create(c)
				if onError == specs.Allow {
					if err != nil {
						t.Fatal(err)
					}
					if len(n.warnings) != 1 {
						t.Fatalf("%d warnings: %v", len(n.warnings), n.warnings)
					}
					err = n.warnings[0]
				}
				if err == nil || tc.want != nil && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.say) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v, want %v and %q", err, tc.want, tc.say)
				}
				want := len(before)
				if onError == specs.Allow {
					want++ // its own policy
				}
				n.wantEntries(want)
				// Never on the container's own cgroup.
				c.wantPrograms(t, want-len(before), 0)
			})
		}
	}
}
