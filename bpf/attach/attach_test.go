// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

func TestAttachRefusesNonsense(t *testing.T) {
	xdp := trivial(t, specs.HookXDP)
	connect := trivial(t, "cgroup/connect4")
	i, _ := iface(t, "lpnonsense")
	cgroup := Target{Cgroup: openCgroup(t, bpftest.Cgroup(t))}
	wantError(t, connect, specs.Attachment{Hook: "cgroup/skb"}, cgroup, nil, "not a hook")
	wantError(t, nil, specs.Attachment{Hook: "cgroup/connect4"}, cgroup, nil, "no program")
	wantError(t, xdp, specs.Attachment{Hook: "cgroup/connect4"}, cgroup, nil,
		"cgroup/connect4 of cgroup "+cgroup.Cgroup.Path, "type XDP", "takes CGroupSockAddr")
	wantError(t, connect, specs.Attachment{Hook: "cgroup/connect4"}, Target{Interface: i}, errNoTarget)
	wantError(t, xdp, specs.Attachment{Hook: specs.HookXDP, Side: specs.SideHost}, cgroup, errNoTarget)
	wantError(t, trivial(t, specs.HookSKLookup), specs.Attachment{Hook: specs.HookSKLookup}, cgroup, errNoTarget)
	wantError(t, xdp, specs.Attachment{Hook: specs.HookXDP}, Target{Interface: i}, nil, "side was not resolved")
	wantError(t, xdp, specs.Attachment{Hook: specs.HookXDP, Side: specs.SideHost, Mode: "fast"}, Target{Interface: i}, nil, `"fast"`)
	alone := *i
	alone.Peer = nil
	wantError(t, xdp, specs.Attachment{Hook: specs.HookXDP, Side: specs.SideHost}, Target{Interface: &alone}, target.ErrNoPeer)
}

func TestAttachNeverInTheHostsNamespace(t *testing.T) {
	own, err := target.HostNetns()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	for _, h := range []specs.Hook{specs.HookSKLookup, specs.HookFlowDissector, specs.HookNetfilter} {
		a := specs.Attachment{Hook: h, Netfilter: &specs.Netfilter{Family: "ipv4", Hook: "output"}}
		wantError(t, trivial(t, h), a, Target{Netns: own}, target.ErrForbidden)
	}
	lo, err := own.Interface("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []specs.Hook{specs.HookTCXIngress, specs.HookXDP} {
		wantError(t, trivial(t, h), specs.Attachment{Hook: h, Side: specs.SideContainer}, Target{Interface: lo}, target.ErrForbidden)
	}
}

// The host side is a device of our own namespace, also when the caller stands in
// the container's, where the same ifindex is another device.
func TestAttachHostSideFromInside(t *testing.T) {
	i, _ := iface(t, "lpinside")
	p := trivial(t, specs.HookXDP)
	err := i.Netns.Do(func() error {
		l, err := Attach(p, specs.Attachment{Hook: specs.HookXDP, Side: specs.SideHost}, Target{Interface: i})
		if err == nil {
			defer l.Close()
			now, e := i.Netns.Interface("eth0")
			if e != nil {
				return e
			}
			if !now.Peer.XDP || now.XDP {
				t.Errorf("attached to %+v, peer %+v", now, now.Peer)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAttachToTargetThatIsGone(t *testing.T) {
	dir := bpftest.Cgroup(t)
	c := openCgroup(t, dir)
	if err := unix.Rmdir(dir); err != nil {
		t.Fatal(err)
	}
	wantError(t, trivial(t, "cgroup/connect4"), specs.Attachment{Hook: "cgroup/connect4"}, Target{Cgroup: c}, target.ErrGone)

	i, _ := iface(t, "lpgone")
	gone, peer := *i, *i.Peer
	gone.Index, peer.Index = 99999, 99999
	gone.Peer = &peer
	for _, side := range []specs.Side{specs.SideHost, specs.SideContainer} {
		wantError(t, trivial(t, specs.HookTCXEgress), specs.Attachment{Hook: specs.HookTCXEgress, Side: side}, Target{Interface: &gone}, target.ErrGone)
		for _, mode := range []specs.XDPMode{specs.XDPAuto, specs.XDPNative, specs.XDPGeneric} {
			wantError(t, trivial(t, specs.HookXDP), specs.Attachment{Hook: specs.HookXDP, Side: side, Mode: mode}, Target{Interface: &gone}, target.ErrGone)
		}
	}
}

func TestUnsupported(t *testing.T) {
	old := kernelRelease
	defer func() { kernelRelease = old }()
	withoutTCX(t)
	kernelRelease = func() (hooks.Version, error) { return hooks.Version{Major: 5, Minor: 6}, nil }
	for h, want := range map[specs.Hook]string{
		specs.HookTCXIngress:    "tcx link: not supported by this kernel (requires >= 6.6, this is 5.6)",
		specs.HookXDP:           "xdp link: not supported by this kernel (requires >= 5.9, this is 5.6)",
		specs.HookNetfilter:     "netfilter link: not supported by this kernel (requires >= 6.4, this is 5.6)",
		specs.HookSKLookup:      "sk_lookup network namespace link: not supported by this kernel (requires >= 5.9, this is 5.6)",
		"cgroup/connect4":       "cgroup link: not supported by this kernel (requires >= 5.7, this is 5.6)",
		"cgroup/connect_unix":   "cgroup/connect_unix link: not supported by this kernel (requires >= 6.7, this is 5.6)",
		"cgroup/sock_release":   "cgroup/sock_release link: not supported by this kernel (requires >= 5.9, this is 5.6)",
		"lsm_cgroup":            "lsm_cgroup link: not supported by this kernel (requires >= 6.0, this is 5.6)",
		"cgroup/getsockname4":   "cgroup/getsockname4 link: not supported by this kernel (requires >= 5.8, this is 5.6)",
		specs.HookFlowDissector: "flow_dissector network namespace link: not supported by this kernel (requires >= 5.8, this is 5.6)",
	} {
		for _, errno := range []error{unix.EINVAL, enotsupp} {
			u := unsupported(h, errno)
			if u == nil {
				t.Errorf("%s: %v is taken for supported", h, errno)
				continue
			}
			if u.Error() != want || !errors.Is(u, ErrUnsupported) || !errors.Is(u, errno) {
				t.Errorf("%s: %v, want %s", h, u, want)
			}
		}
		if u := unsupported(h, unix.EBUSY); u != nil {
			t.Errorf("%s: EBUSY became %v", h, u)
		}
	}
	a := specs.Attachment{Hook: specs.HookTCXIngress}
	err := explain(a, Target{}, unix.EINVAL)
	checkFault(t, err, ErrUnsupported, "tcx link: not supported by this kernel (requires >= 6.6, this is 5.6)", "; ", "tc: {fallback: clsact}")
	if !WithoutTCX(err) || WithoutTCX(explain(specs.Attachment{Hook: specs.HookXDP}, Target{}, enotsupp)) {
		t.Error("WithoutTCX is not about tcx")
	}
	if code := fault.ExitCode(err); code != fault.ExitUnavailable {
		t.Errorf("exit code %d", code)
	}

	// On a kernel that has it, EINVAL means something else, and ENOTSUPP that it
	// was left out when the kernel was built.
	kernelRelease = func() (hooks.Version, error) { return hooks.Version{Major: 6, Minor: 18}, nil }
	lacksTCX = func() bool { return false }
	for _, errno := range []error{unix.EINVAL, ebpf.ErrNotSupported} {
		if u := unsupported(specs.HookTCXIngress, errno); u != nil {
			t.Errorf("%v on a kernel that has TCX became %v", errno, u)
		}
	}
	if u := unsupported(specs.HookNetfilter, unix.EINVAL); u != nil {
		t.Errorf("EINVAL on a new kernel became %v", u)
	}
	if u := unsupported("lsm_cgroup", enotsupp); u == nil || u.Error() != "lsm_cgroup link: not supported by this kernel (it is built without it)" {
		t.Errorf("ENOTSUPP on a new kernel: %v", u)
	}
}

// withoutTCX pretends that the kernel has no TCX.
func withoutTCX(t *testing.T) {
	t.Helper()
	old := lacksTCX
	t.Cleanup(func() { lacksTCX = old })
	lacksTCX = func() bool { return true }
}

func TestLacksTCX(t *testing.T) {
	bpftest.NeedKernel(t, 6, 6, "TCX")
	if lacksTCX() {
		t.Error("a kernel that has TCX is said to lack it")
	}
	// As an older kernel answers: the attach type is none that can be queried.
	if _, _, err := progQuery(loopback, 1<<20, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("an unknown attach type: %v, want EINVAL", err)
	}
}

func TestKernelRelease(t *testing.T) {
	v, err := kernelRelease()
	if err != nil || v.Major < 4 {
		t.Errorf("%v, %v", v, err)
	}
}
