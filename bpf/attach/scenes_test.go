// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/specs"
)

// scene is a target with what the contract needs to know of it.
type scene struct {
	attachment specs.Attachment
	target     Target
	want       Info         // what the info must say of the target
	end        func()       // makes the target go
	thieves    func() error // tries to take the program off by the ordinary interfaces
	attached   func() []ebpf.ProgramID
}

func cgroupScene(h specs.Hook) func(*testing.T, *ebpf.Program) scene {
	return func(t *testing.T, p *ebpf.Program) scene {
		t.Helper()
		_, at, err := hooks.Types(h)
		if err != nil {
			t.Fatal(err)
		}
		dir := bpftest.Cgroup(t)
		c := openCgroup(t, dir)
		fd := int(c.Dir.Fd())
		return scene{
			attachment: specs.Attachment{Hook: h},
			target:     Target{Cgroup: c},
			want:       Info{CgroupID: c.ID, State: Live},
			end: func() {
				if err := unix.Rmdir(dir); err != nil {
					t.Error(err)
				}
			},
			thieves: func() error {
				return errors.Join(
					mustFail("PROG_DETACH", link.RawDetachProgram(link.RawDetachProgramOptions{Target: fd, Program: p, Attach: at})),
					mustFail("PROG_ATTACH", link.RawAttachProgram(link.RawAttachProgramOptions{Target: fd, Program: p, Attach: at})),
					mustFail("PROG_ATTACH with override", link.RawAttachProgram(link.RawAttachProgramOptions{Target: fd, Program: p, Attach: at, Flags: 1})),
					mustFail("PROG_ATTACH with replace", link.RawAttachProgram(link.RawAttachProgramOptions{Target: fd, Program: p, Attach: at, Flags: 2, Anchor: link.ReplaceProgram(p)})),
				)
			},
			attached: func() []ebpf.ProgramID { return attachedIDs(t, at, fd) },
		}
	}
}

func mustFail(what string, err error) error {
	if err == nil {
		return fmt.Errorf("%s succeeded", what)
	}
	return nil
}

func deviceScene(h specs.Hook, side specs.Side, mode specs.XDPMode) func(*testing.T, *ebpf.Program) scene {
	return func(t *testing.T, p *ebpf.Program) scene {
		t.Helper()
		_, at, err := hooks.Types(h)
		if err != nil {
			t.Fatal(err)
		}
		i, _ := iface(t, "lpcontract")
		dev, run := &i.Device, i.Netns.Do
		if side == specs.SideHost {
			dev, run = i.Peer, func(f func() error) error { return f() }
		}
		s := scene{
			attachment: specs.Attachment{Hook: h, Side: side, Mode: mode},
			target:     Target{Interface: i},
			want:       Info{Ifindex: dev.Index, State: Live},
			end: func() {
				if err := netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lpcontract"}}); err != nil {
					t.Error(err)
				}
			},
		}
		there := func(f func() error) {
			if err := run(f); err != nil {
				t.Error(err)
			}
		}
		if h == specs.HookXDP {
			s.attached = func() (ids []ebpf.ProgramID) {
				there(func() error {
					l, err := netlink.LinkByIndex(dev.Index)
					if err == nil && l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached {
						ids = append(ids, ebpf.ProgramID(l.Attrs().Xdp.ProgId))
					}
					return err
				})
				return ids
			}
			s.thieves = func() error {
				return run(func() error {
					l := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: dev.Index}}
					var errs []error
					for _, flags := range []int{0, 1 << 1, 1 << 2} { // XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE
						// Switching off the mode that is not used may "succeed".
						_ = netlink.LinkSetXdpFdWithFlags(l, -1, flags)
						if err := netlink.LinkSetXdpFdWithFlags(l, p.FD(), flags); err == nil {
							errs = append(errs, fmt.Errorf("netlink replaced the program, flags %d", flags))
						}
					}
					return errors.Join(errs...)
				})
			}
			return s
		}
		s.attached = func() (ids []ebpf.ProgramID) {
			there(func() error { ids = attachedIDs(t, at, dev.Index); return nil })
			return ids
		}
		s.thieves = func() error {
			return run(func() error {
				l, err := netlink.LinkByIndex(dev.Index)
				if err != nil {
					return err
				}
				qdisc := &netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: dev.Index, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0)}, QdiscType: "clsact"}
				_ = netlink.QdiscAdd(qdisc)
				_ = netlink.QdiscDel(qdisc)
				_ = netlink.LinkSetDown(l)
				_ = netlink.LinkSetUp(l)
				return errors.Join(
					mustFail("PROG_DETACH", link.RawDetachProgram(link.RawDetachProgramOptions{Target: dev.Index, Program: p, Attach: at})),
					mustFail("PROG_ATTACH with replace", link.RawAttachProgram(link.RawAttachProgramOptions{Target: dev.Index, Program: p, Attach: at, Anchor: link.ReplaceProgram(p)})),
				)
			})
		}
		return s
	}
}

func netnsScene(h specs.Hook) func(*testing.T, *ebpf.Program) scene {
	return func(t *testing.T, p *ebpf.Program) scene {
		t.Helper()
		_, at, err := hooks.Types(h)
		if err != nil {
			t.Fatal(err)
		}
		ns := bpftest.NetNS(t)
		n := openNetns(t, ns.Path())
		fd := int(n.File.Fd())
		return scene{
			attachment: specs.Attachment{Hook: h},
			target:     Target{Netns: n},
			want:       Info{NetnsInode: n.Inode, State: Live},
			end: func() {
				ns.Kill(t)
				n.Close()
			},
			thieves: func() error {
				return n.Do(func() error {
					return errors.Join(
						mustFail("PROG_DETACH", link.RawDetachProgram(link.RawDetachProgramOptions{Target: fd, Program: p, Attach: at})),
						mustFail("PROG_ATTACH", link.RawAttachProgram(link.RawAttachProgramOptions{Target: fd, Program: p, Attach: at})),
					)
				})
			},
			attached: func() []ebpf.ProgramID { return attachedIDs(t, at, fd) },
		}
	}
}

func netfilterScene(nf specs.Netfilter) func(*testing.T, *ebpf.Program) scene {
	return func(t *testing.T, p *ebpf.Program) scene {
		t.Helper()
		ns := bpftest.NetNS(t)
		n := openNetns(t, ns.Path())
		return scene{
			attachment: specs.Attachment{Hook: specs.HookNetfilter, Netfilter: &nf},
			target:     Target{Netns: n},
			want:       Info{State: Unknown},
			thieves: func() error {
				return n.Do(func() error {
					return mustFail("PROG_DETACH", link.RawDetachProgram(link.RawDetachProgramOptions{Program: p, Attach: ebpf.AttachNetfilter}))
				})
			},
			end: func() {
				ns.Kill(t)
				n.Close()
			},
		}
	}
}
