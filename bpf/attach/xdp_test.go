// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/specs"
)

func xdpAt(side specs.Side, mode specs.XDPMode) specs.Attachment {
	return specs.Attachment{Hook: specs.HookXDP, Side: side, Mode: mode}
}

// attachMode returns where the kernel says that XDP runs (XDP_ATTACHED_*).
func attachMode(t *testing.T, index int) uint32 {
	t.Helper()
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Xdp.AttachMode
}

func TestXDPModes(t *testing.T) {
	const driver, skb = 1, 2
	i, _ := iface(t, "lpxdp0")
	p := trivial(t, specs.HookXDP)
	for _, c := range []struct {
		ask, got specs.XDPMode
		kernel   uint32
	}{
		{specs.XDPNative, specs.XDPNative, driver},
		{specs.XDPGeneric, specs.XDPGeneric, skb},
		{specs.XDPAuto, specs.XDPNative, driver},
		{"", specs.XDPNative, driver},
	} {
		l := mustAttach(t, p, xdpAt(specs.SideHost, c.ask), Target{Interface: i})
		if l.Mode() != c.got || attachMode(t, i.Peer.Index) != c.kernel {
			t.Errorf("asked for %q: mode %q, kernel's %d", c.ask, l.Mode(), attachMode(t, i.Peer.Index))
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A veth refuses native XDP while its peer's MTU is too large for one page.
func TestXDPAutoFallsBackToGeneric(t *testing.T) {
	i, _ := iface(t, "lpxdp1")
	err := i.Netns.Do(func() error {
		return netlink.LinkSetMTU(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", Index: i.Index}}, 9000)
	})
	if err != nil {
		t.Fatal(err)
	}
	p := trivial(t, specs.HookXDP)
	to := Target{Interface: i}
	wantError(t, p, xdpAt(specs.SideHost, specs.XDPNative), to, unix.ERANGE, "native mode", "; the driver does not take it")
	if l := mustAttach(t, p, xdpAt(specs.SideHost, specs.XDPAuto), to); l.Mode() != specs.XDPGeneric {
		t.Errorf("mode %q", l.Mode())
	}
}

func TestXDPDriverWithoutNativeModeIsNotAnOldKernel(t *testing.T) {
	i, _ := iface(t, "lpxdp2")
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lpxdpbr"}}); err != nil {
		t.Fatal(err)
	}
	br, err := netlink.LinkByName("lpxdpbr")
	if err != nil {
		t.Fatal(err)
	}
	defer netlink.LinkDel(br)
	fake, peer := *i, *i.Peer
	peer.Index, peer.Name = br.Attrs().Index, "lpxdpbr"
	fake.Peer = &peer
	p := trivial(t, specs.HookXDP)
	to := Target{Interface: &fake}
	wantError(t, p, xdpAt(specs.SideHost, specs.XDPNative), to, unix.EOPNOTSUPP, "lpxdpbr", "mode: auto")
	if _, err := Attach(p, xdpAt(specs.SideHost, specs.XDPNative), to); errors.Is(err, ErrUnsupported) {
		t.Errorf("%v", err)
	}
	if l := mustAttach(t, p, xdpAt(specs.SideHost, specs.XDPAuto), to); l.Mode() != specs.XDPGeneric {
		t.Errorf("mode %q", l.Mode())
	}
}

func TestXDPOnOldKernel(t *testing.T) {
	i, _ := iface(t, "lpxdp3")
	// The kernel says EINVAL to a program that was loaded for a device map, as it
	// does to a link type that it does not know.
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, AttachType: ebpf.AttachXDPDevMap, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	wantError(t, p, xdpAt(specs.SideHost, specs.XDPAuto), Target{Interface: i}, unix.EINVAL, "generic mode", "native mode")
	old := kernelRelease
	defer func() { kernelRelease = old }()
	kernelRelease = func() (hooks.Version, error) { return hooks.Version{Major: 5, Minor: 8}, nil }
	wantError(t, p, xdpAt(specs.SideHost, specs.XDPAuto), Target{Interface: i}, ErrUnsupported, "xdp link: not supported by this kernel (requires >= 5.9, this is 5.8)")
}

func TestXDPOccupied(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags int // of netlink's program; -1: a link
	}{{"native", 1 << 2}, {"generic", 1 << 1}, {"link", -1}} {
		t.Run(c.name, func(t *testing.T) {
			i, _ := iface(t, "lpxdp4")
			other, p := trivial(t, specs.HookXDP), trivial(t, specs.HookXDP)
			host := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: i.Peer.Index}}
			if c.flags < 0 {
				mustAttach(t, other, xdpAt(specs.SideHost, specs.XDPNative), Target{Interface: i})
			} else if err := netlink.LinkSetXdpFdWithFlags(host, other.FD(), c.flags); err != nil {
				t.Fatal(err)
			}
			info, err := other.Info()
			if err != nil {
				t.Fatal(err)
			}
			id, _ := info.ID()
			for _, mode := range []specs.XDPMode{specs.XDPNative, specs.XDPGeneric, specs.XDPAuto} {
				wantError(t, p, xdpAt(specs.SideHost, mode), Target{Interface: i}, ErrBusy,
					"xdp of lpxdp4 (host side of eth0)", fmt.Sprintf("program %d (trivial) is there", id), "is occupied", "; take the other program off")
			}
			l, err := netlink.LinkByIndex(i.Peer.Index)
			if err != nil {
				t.Fatal(err)
			}
			if l.Attrs().Xdp.ProgId != uint32(id) {
				t.Errorf("the other program was replaced by %d", l.Attrs().Xdp.ProgId)
			}
		})
	}
}
