// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs"
)

// attr is one netlink attribute.
func attr(kind uint16, parts ...[]byte) []byte {
	value := slices.Concat(parts...)
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

func number(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// answer is what nfnl_hook_dump_one writes for a program (net/netfilter/nfnetlink_hook.c,
// kernel 6.4).
func answer(id uint32, priority int32) []byte {
	const nested = unix.NLA_F_NESTED
	return slices.Concat(
		[]byte{2, 0, 0, 0}, // nfgenmsg
		attr(attrChainInfo|nested, attr(attrInfoType, number(hookTypeBPF)), attr(attrInfoDesc|nested, attr(attrProgramID, number(id)))),
		attr(attrHookNum, number(1)),
		attr(attrPriority, number(uint32(priority))),
	)
}

func TestParseNetfilterHook(t *testing.T) {
	p, ok, err := parseNetfilterHook(answer(4711, -7))
	if err != nil || !ok || p != (NetfilterProgram{ID: 4711, Priority: -7}) {
		t.Errorf("%+v %v %v", p, ok, err)
	}
	// A chain of nftables, and a function of a module.
	for _, other := range [][]byte{
		slices.Concat([]byte{2, 0, 0, 0}, attr(4, []byte("nft_do_chain\x00")), attr(attrChainInfo, attr(attrInfoType, number(1)),
			attr(attrInfoDesc, attr(1, []byte("table\x00")))), attr(attrPriority, number(0))),
		slices.Concat([]byte{2, 0, 0, 0}, attr(4, []byte("ipv4_conntrack_in\x00")), attr(attrPriority, number(0))),
	} {
		if p, ok, err := parseNetfilterHook(other); ok || err != nil {
			t.Errorf("%+v %v %v", p, ok, err)
		}
	}
	// Nothing that is cut off is taken for an answer, and nothing makes it panic.
	whole := answer(1, 2)
	for n := range len(whole) {
		if p, ok, err := parseNetfilterHook(whole[:n]); ok && p != (NetfilterProgram{ID: 1, Priority: 2}) {
			t.Errorf("%d bytes: %+v %v", n, p, err)
		}
	}
}

// A kernel either lists a link that is attached, and no longer when it is taken off, or
// says that it can't.
func TestNetfilterPrograms(t *testing.T) {
	n := openNetns(t, bpftest.NetNS(t).Path())
	p := trivial(t, specs.HookNetfilter)
	for _, family := range []string{"ipv4", "ipv6"} {
		nf := &specs.Netfilter{Family: family, Hook: "forward", Priority: -11}
		l := mustAttach(t, p, specs.Attachment{Hook: specs.HookNetfilter, Netfilter: nf}, Target{Netns: n})
		want := NetfilterProgram{ID: mustInfo(t, l).ProgramID, Priority: -11}
		got, err := NetfilterPrograms(n, nf)
		if errors.Is(err, ErrUnsupported) {
			t.Logf("%v: asked for nothing more", err)
			continue
		}
		if err != nil || !slices.Equal(got, []NetfilterProgram{want}) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		if err := l.Detach(); err != nil {
			t.Fatal(err)
		}
		if got, err = NetfilterPrograms(n, nf); err != nil || len(got) > 0 {
			t.Errorf("after the link was detached: %+v, %v", got, err)
		}
	}
}
