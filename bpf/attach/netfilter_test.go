// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs"
)

func TestNetfilterPlaces(t *testing.T) {
	n := openNetns(t, bpftest.NetNS(t).Path())
	p := trivial(t, specs.HookNetfilter)
	for family, pf := range map[string]uint32{"ipv4": 2, "ipv6": 10} { // NFPROTO_*
		for num, hook := range []string{"prerouting", "input", "forward", "output", "postrouting"} { // NF_INET_*
			for _, defrag := range []bool{false, true} {
				nf := specs.Netfilter{Family: family, Hook: hook, Priority: -7, Defrag: defrag}
				l := mustAttach(t, p, specs.Attachment{Hook: specs.HookNetfilter, Netfilter: &nf}, Target{Netns: n})
				var b [linkInfoSize]byte
				if err := objInfo(l.FD(), b[:]); err != nil {
					t.Fatal(err)
				}
				u32 := func(off int) uint32 { return binary.NativeEndian.Uint32(b[off:]) }
				flags := uint32(0)
				if defrag {
					flags = 1
				}
				if u32(16) != pf || u32(20) != uint32(num) || int32(u32(24)) != -7 || u32(28) != flags {
					t.Errorf("%+v: family %d, hook %d, priority %d, flags %d", nf, u32(16), u32(20), int32(u32(24)), u32(28))
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestNetfilterPriorityIsTaken(t *testing.T) {
	n := openNetns(t, bpftest.NetNS(t).Path())
	p := trivial(t, specs.HookNetfilter)
	a := specs.Attachment{Hook: specs.HookNetfilter, Netfilter: &specs.Netfilter{Family: "ipv4", Hook: "input", Priority: 5}}
	mustAttach(t, p, a, Target{Netns: n})
	wantError(t, trivial(t, specs.HookNetfilter), a, Target{Netns: n}, ErrBusy, "priority 5", "; choose another priority")
}

func TestNetfilterRefusesNonsense(t *testing.T) {
	n := openNetns(t, bpftest.NetNS(t).Path())
	p := trivial(t, specs.HookNetfilter)
	for _, c := range []struct {
		nf   *specs.Netfilter
		text string
	}{
		{nil, "not given"},
		{&specs.Netfilter{Family: "inet", Hook: "input"}, `"inet" is not a family`},
		{&specs.Netfilter{Family: "ipv4", Hook: "ingress"}, `"ingress" is not a hook`},
		{&specs.Netfilter{Family: "ipv4", Hook: "input", Priority: math.MinInt32}, "first or last"},
		{&specs.Netfilter{Family: "ipv4", Hook: "input", Priority: math.MaxInt32}, "first or last"},
		{&specs.Netfilter{Family: "ipv4", Hook: "input", Priority: -400, Defrag: true}, "before defragmentation"},
	} {
		wantError(t, p, specs.Attachment{Hook: specs.HookNetfilter, Netfilter: c.nf}, Target{Netns: n}, nil, c.text)
	}
}

// The info of a netfilter link does not tell its namespace: packets do.
func TestNetfilterIsInTheContainersNamespace(t *testing.T) {
	n := openNetns(t, bpftest.NetNS(t).Path())
	_ = trivial(t, specs.HookNetfilter)
	drop, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Netfilter, AttachType: ebpf.AttachNetfilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}, // NF_DROP
	})
	if err != nil {
		t.Fatal(err)
	}
	defer drop.Close()
	send := func() error {
		c, err := net.Dial("udp4", "127.0.0.1:9")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	}
	if err := n.Do(send); err != nil {
		t.Fatal(err)
	}
	l := mustAttach(t, drop, specs.Attachment{Hook: specs.HookNetfilter, Netfilter: &specs.Netfilter{Family: "ipv4", Hook: "output"}}, Target{Netns: n})
	if err := n.Do(send); !errors.Is(err, unix.EPERM) {
		t.Errorf("in the container's namespace: %v, want it dropped", err)
	}
	if err := send(); err != nil {
		t.Errorf("in our own namespace: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := n.Do(send); err != nil {
		t.Errorf("after the link: %v", err)
	}
}
