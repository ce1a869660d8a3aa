// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

var connect = specs.Attachment{Hook: "cgroup/connect4"}

func podPolicy(onError specs.OnError) policy {
	return policy{name: "pod", sel: everybody, onError: onError, symbol: "connect4", at: connect, cgroup: specs.CgroupPod}
}

// inPod makes a cgroup for a pod, and has its runtime pass it.
func (p *pod) inPod(t testing.TB) string {
	t.Helper()
	dir := bpftest.Cgroup(t)
	p.conf["caller"] = "containerd"
	p.passes(strings.TrimPrefix(dir, bpftest.Cgroup2Mount(t)))
	return dir
}

func (p *pod) passes(cgroupPath string) {
	p.conf["runtimeConfig"] = map[string]any{"cgroupPath": cgroupPath}
}

func connects(t testing.TB, dir string) int {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r, err := link.QueryPrograms(link.QueryOptions{Target: int(d.Fd()), Attach: ebpf.AttachCGroupInet4Connect})
	if err != nil {
		t.Fatal(err)
	}
	return len(r.Programs)
}

func TestPodCgroup(t *testing.T) {
	n := newNode(t)
	n.apply(podPolicy(specs.Deny), policy{name: "tcx", sel: everybody, symbol: "read_ifindex", at: tcxHost},
		policy{name: "container", sel: everybody, symbol: "connect4", at: connect})
	p := newPod(t, "pod", "lpcgp0", "1.1.0")
	dir := p.inPod(t)
	n.mustAdd(p)
	n.wantState(2, 0, 2)
	if got := connects(t, dir); got != 1 {
		t.Errorf("%d programs on the pod's cgroup", got)
	}
	if err := n.Check(p.cmd(t)); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	// A further interface finds it, also if its network gets no cgroup.
	p.passes("")
	bpftest.Veth(t, p.ns, "lpcgp1", "net1")
	second := p.cmd(t)
	second.IfName = "net1"
	stdout(t, func() {
		if err := n.Add(second); err != nil {
			t.Error(err)
		}
	})
	n.wantState(3, 0, 3)
	if err := n.Check(second); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if err := n.Del(second); err != nil {
		t.Fatal(err)
	}
	n.wantState(2, 1, 2)
	if err := n.GC(p.cmd(t)); err != nil { // nothing is valid
		t.Fatal(err)
	}
	if e, _, _ := n.state(); e != 0 || connects(t, dir) != 1 {
		t.Errorf("%d entries, %d programs after GC: they drain with the cgroup", e, connects(t, dir))
	}
	if err := n.Check(p.cmd(t)); code(t, err) != CodeDrift {
		t.Errorf("CHECK: %v", err)
	}

	// The pod's next sandbox takes over, and a policy that is gone by then ends.
	again := newPod(t, "again", "lpcgp2", "1.1.0")
	again.conf["caller"], again.conf["runtimeConfig"] = "crio", map[string]any{"cgroupPath": strings.TrimPrefix(dir, bpftest.Cgroup2Mount(t))}
	n.mustAdd(again)
	if got := connects(t, dir); got != 1 {
		t.Errorf("%d programs after the next ADD", got)
	}
	for range 2 {
		if err := n.Del(again.cmd(t)); err != nil {
			t.Fatal(err)
		}
	}
	n.apply()
	again.id = "third"
	n.mustAdd(again)
	if got := connects(t, dir); got != 0 {
		t.Errorf("%d programs of a policy that is gone", got)
	}
	if len(n.warnings) > 0 {
		t.Errorf("warnings: %v", n.warnings)
	}
}

// A chain entry that serves several runtimes names none of them.
func TestPodCgroupWithoutCaller(t *testing.T) {
	n := newNode(t)
	n.apply(podPolicy(specs.Deny))
	p := newPod(t, "pod", "lpcgn0", "1.1.0")
	dir := p.inPod(t)
	delete(p.conf, "caller")
	n.mustAdd(p)
	if got := connects(t, dir); got != 1 {
		t.Errorf("%d programs on the pod's cgroup", got)
	}
}

// Stolen links are found by CHECK and mended by the next ADD.
func TestPodCgroupTheft(t *testing.T) {
	n := newNode(t)
	n.apply(podPolicy(specs.Deny))
	p := newPod(t, "pod", "lpcgp3", "1.1.0")
	dir := p.inPod(t)
	n.mustAdd(p)
	root, err := pin.Open(n.BPFFS)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	e, err := root.Entry(pin.PodCgroupEntry(pin.SandboxKey("pod"), "pod"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(e.LinkPath("connect4")); err != nil {
		t.Fatal(err)
	}
	bpftest.Eventually(t, "the link goes", func() error {
		if got := connects(t, dir); got != 0 {
			return fmt.Errorf("%d programs", got)
		}
		return nil
	})
	if err := n.Check(p.cmd(t)); code(t, err) != CodeDrift {
		t.Errorf("CHECK: %v", err)
	}
	n.mustAdd(p)
	if got := connects(t, dir); got != 1 {
		t.Errorf("%d programs after ADD", got)
	}
}

func TestPodCgroupRefused(t *testing.T) {
	for i, tc := range []struct {
		name   string
		change func(t *testing.T, n *node, p *pod, dir string)
		want   error
		say    string
	}{
		{"no capability", func(_ *testing.T, _ *node, p *pod, _ string) { delete(p.conf, "runtimeConfig") }, errNoCgroupPath,
			`add "cgroupPath": true to the capabilities`},
		{"no caller", func(_ *testing.T, _ *node, p *pod, _ string) {
			p.conf["caller"] = "none"
			p.passes("")
		}, errNoCgroupPath, "cgroupPath"},
		{"cdi", func(_ *testing.T, _ *node, p *pod, _ string) { p.conf["caller"] = "cdi" }, nil, `the caller cdi has no pods`},
		{"podman", func(_ *testing.T, _ *node, p *pod, _ string) { p.conf["caller"] = "podman" }, nil, `the caller podman has no pods`},
		{"gone", func(_ *testing.T, _ *node, p *pod, _ string) { p.passes("/linkpin-test-gone/pod") }, target.ErrGone, "kubelet"},
		{"root", func(_ *testing.T, _ *node, p *pod, _ string) { p.passes("/") }, target.ErrForbidden, "root cgroup"},
		{"a slice's parts", func(_ *testing.T, _ *node, p *pod, _ string) { p.passes("a--b.slice") }, nil, "not the name of a slice"},
		{"up", func(_ *testing.T, _ *node, p *pod, _ string) { p.passes("/a/../../b") }, nil, `".."`},
		{"another pod's", func(t *testing.T, n *node, p *pod, _ string) {
			other := newPod(t, "other", "lpcgo0", "1.1.0")
			other.conf["caller"], other.conf["runtimeConfig"] = "containerd", p.conf["runtimeConfig"]
			n.mustAdd(other)
		}, entry.ErrInUse, "sandbox other"},
		{"another one than before", func(t *testing.T, n *node, p *pod, _ string) {
			n.mustAdd(p)
			p.inPod(t)
		}, entry.ErrInUse, "delete that sandbox first"},
	} {
		for _, onError := range []specs.OnError{specs.Deny, specs.Allow} {
			t.Run(tc.name+"/"+string(onError), func(t *testing.T) {
				n := newNode(t)
				n.apply(podPolicy(onError), policy{name: "tcx", sel: everybody, onError: onError, symbol: "read_ifindex", at: tcxHost})
				p := newPod(t, "pod", fmt.Sprintf("lpcgr%d", i), "1.1.0")
				dir := p.inPod(t)
				tc.change(t, n, p, dir)
				before, _, _ := n.state()
				was := connects(t, dir)
				_, err := n.add(p)
				if onError == specs.Allow {
					if err != nil {
						t.Fatal(err)
					}
					if len(n.warnings) != 1 {
						t.Fatalf("%d warnings: %v", len(n.warnings), n.warnings)
					}
					err = n.warnings[0]
				} else if code(t, err) != CodeRefused && code(t, err) != 3 {
					t.Errorf("code %d", code(t, err))
				}
				if err == nil || tc.want != nil && onError == specs.Allow && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.say) ||
					!strings.Contains(err.Error(), "pod") || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v, want %v and %q", err, tc.want, tc.say)
				}
				// Nothing of it stays; under allow the other policy is there.
				after, _, _ := n.state()
				if onError == specs.Deny && after != before {
					t.Errorf("%d entries, before it were %d", after, before)
				}
				if got := connects(t, dir); got != was {
					t.Errorf("%d programs on the pod's cgroup, before it were %d", got, was)
				}
			})
		}
	}
}

// Sandboxes that are made at the same time in one cgroup do not both get it.
func TestPodCgroupRace(t *testing.T) {
	n := newNode(t)
	n.apply(podPolicy(specs.Deny))
	var mu sync.Mutex
	n.Warn = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		n.warnings = append(n.warnings, err)
	}
	first := newPod(t, "first", "lpcgx0", "1.1.0")
	dir := first.inPod(t)
	pods := []*pod{first}
	for i := 1; i < 6; i++ {
		p := newPod(t, fmt.Sprintf("pod%d", i), fmt.Sprintf("lpcgx%d", i), "1.1.0")
		p.conf["caller"], p.conf["runtimeConfig"] = "containerd", first.conf["runtimeConfig"]
		pods = append(pods, p)
	}
	added := 0
	stdout(t, func() {
		var wg sync.WaitGroup
		for _, p := range pods {
			cmd := p.cmd(t)
			wg.Go(func() {
				if err := n.Add(cmd); err == nil {
					mu.Lock()
					defer mu.Unlock()
					added++
				}
			})
		}
		wg.Wait()
	})
	if got := connects(t, dir); added > 1 || got != added {
		t.Errorf("%d sandboxes got it, %d programs", added, got)
	}
}

// The path that CRI-O gives: a slice of systemd by its name.
func TestPodCgroupSlice(t *testing.T) {
	n := newNode(t)
	n.apply(podPolicy(specs.Deny))
	p := newPod(t, "pod", "lpcgs0", "1.1.0")
	stem := filepath.Base(p.inPod(t)) // nobody else has that name: linkpin-test-N
	top := filepath.Join(bpftest.Cgroup2Mount(t), "linkpin.slice")
	dir := filepath.Join(top, "linkpin-test.slice", stem+".slice")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for d := dir; d != filepath.Dir(top); d = filepath.Dir(d) {
			_ = os.Remove(d) // others may be at it as well
		}
	})
	p.conf["caller"] = "crio"
	p.passes(stem + ".slice")
	n.mustAdd(p)
	if got := connects(t, dir); got != 1 {
		t.Errorf("%d programs", got)
	}
}

// Where the hook came to the namespace first, CNI finds its sandbox, and CHECK and
// DEL find it again.
func TestAfterTheHook(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "tcx", sel: everybody, symbol: "read_ifindex", at: tcxHost},
		policy{name: "xdp", sel: everybody, symbol: "pass", at: xdpInside})
	p := newPod(t, "pod", "lpaft0", "1.1.0")
	root, err := pin.Create(n.BPFFS)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	set, _, err := entry.Selection{Applied: n.Applied}.Choose(specs.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	s := &entry.Session{Root: root, Plans: set, By: pin.ByHook}
	ns, err := target.OpenNetns(p.ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	iface, err := ns.Interface("eth0")
	if err != nil {
		t.Fatal(err)
	}
	key, lock, err := s.LockSandbox(t.Context(), ns, "")
	if err != nil {
		t.Fatal(err)
	}
	pid := bpftest.CgroupProcess(t, bpftest.Cgroup(t)).Pid
	start, err := target.StartTime(target.Roots{}, pid)
	if err != nil {
		t.Fatal(err)
	}
	ctr := pin.ContainerKey("ctr", "/bundle")
	held, err := root.Lock(t.Context(), pin.Container(ctr))
	if err != nil {
		t.Fatal(err)
	}
	sub := &entry.Subject{Identity: specs.Identity{ContainerID: "ctr"}, PID: pid, Start: start, Netns: ns, Sandbox: key}
	if _, err := s.Attach(t.Context(), sub, []entry.Want{
		{Policy: "xdp", OnError: specs.Deny, Kind: specs.TargetInterface, Interface: iface, Place: pin.HookInterfaceEntry(key, "eth0", "xdp")},
		{Policy: "xdp", OnError: specs.Deny, Kind: specs.TargetCgroup, Place: pin.ContainerEntry(ctr, "xdp")},
	}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.JoinSandbox(key, ctr), held.Release(), lock.Release()); err != nil {
		t.Fatal(err)
	}

	n.mustAdd(p) // a second XDP program would be refused
	if err := n.Check(p.cmd(t)); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	for _, name := range []string{"tcx", "xdp"} {
		_, byCNI := s.Look(pin.InterfaceEntry(key, "net", "eth0", name))
		_, byHook := s.Look(pin.HookInterfaceEntry(key, "eth0", name))
		if byHook != (name == "xdp") || byCNI != (name == "tcx") {
			t.Errorf("%s: by hook %v, by CNI %v", name, byHook, byCNI)
		}
	}
	if err := n.Del(p.cmd(t)); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Look(pin.InterfaceEntry(key, "net", "eth0", "tcx")); ok {
		t.Error("DEL left what ADD made")
	}
	if err := n.Check(p.cmd(t)); code(t, err) != CodeDrift {
		t.Errorf("CHECK after DEL: %v", err)
	}
}
