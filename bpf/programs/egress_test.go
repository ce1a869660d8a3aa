// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/vishvananda/netlink"
)

// lists are the rules of one map, by prefix.
type lists map[string][]egressRule

// setup is what a policy would say. The zero value is the object's own default.
type setup struct {
	defaultAllow bool
	noReplies    bool
	replySeconds uint32 // 0: the default
	allow, deny  lists
}

// egress is the object, loaded.
type egress struct {
	egressObjects
	events *ringbuf.Reader
}

func loadEgressTest(t *testing.T, s setup) *egress {
	t.Helper()
	spec, err := loadEgress()
	if err != nil {
		t.Fatal(err)
	}
	set := func(name string, value any) {
		if err := spec.Variables[name].Set(value); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if s.defaultAllow {
		set(egressVarDefaultDeny, false)
	}
	if s.noReplies {
		set(egressVarAllowReplies, false)
	}
	if s.replySeconds != 0 {
		set(egressVarReplySeconds, s.replySeconds)
	}
	e := &egress{}
	if err := spec.LoadAndAssign(&e.egressObjects, nil); err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { e.Close() })
	fill(t, e.Allow, s.allow)
	fill(t, e.Deny, s.deny)
	if e.events, err = ringbuf.NewReader(e.Events); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.events.Close() })
	return e
}

func fill(t *testing.T, m *ebpf.Map, l lists) {
	t.Helper()
	for prefix, rules := range l {
		var value [8]egressRule
		copy(value[:], rules)
		if err := m.Put(lpmKey(prefix), value); err != nil {
			t.Fatalf("%s: %v", prefix, err)
		}
	}
}

// lpmKey is what a policy's {prefix: …} becomes.
func lpmKey(prefix string) egressLpmKey {
	p := netip.MustParsePrefix(prefix)
	key := egressLpmKey{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As16()}
	if p.Addr().Is4() {
		key.Prefixlen += 96
	}
	return key
}

const (
	next = 0xffffffff // TCX_NEXT
	drop = 2          // TCX_DROP
)

// run gives a frame to a program as if it were on the device of that index; 0 is lo.
func run(t *testing.T, prog *ebpf.Program, frame []byte, ifindex int) uint32 {
	t.Helper()
	opts := &ebpf.RunOptions{Data: frame}
	if ifindex != 0 {
		opts.Context = skbContext(40, uint32(ifindex))
	}
	ret, err := prog.Run(opts)
	if err != nil {
		t.Fatalf("%s: %v", prog, err)
	}
	return ret
}

// skbContext is a struct __sk_buff with one field, at its offset, set.
func skbContext(offset int, value uint32) []byte {
	ctx := make([]byte, 192)
	binary.NativeEndian.PutUint32(ctx[offset:], value)
	return ctx
}

// device makes a network device and returns its index.
func device(t *testing.T) int {
	t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "device0"}, PeerName: "device1"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(link); err != nil {
			t.Error(err)
		}
	})
	return link.Attrs().Index
}

// event returns the oldest event that has not been read; ok is false if there is none.
func (e *egress) event(t *testing.T) (ev egressEvent, ok bool) {
	t.Helper()
	e.events.SetDeadline(time.Now())
	record, err := e.events.Read()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ev, false
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &ev); err != nil {
		t.Fatal(err)
	}
	if len(record.RawSample) != binary.Size(ev) {
		t.Fatalf("an event has %d bytes, want %d", len(record.RawSample), binary.Size(ev))
	}
	return ev, true
}

// send gives a frame to from_container and returns what became of it.
func (e *egress) send(t *testing.T, frame []byte) egressReason {
	t.Helper()
	return e.outcome(t, run(t, e.FromContainer, frame, 0), next, drop)
}

// sendFromSocket gives a frame to skb_egress.
func (e *egress) sendFromSocket(t *testing.T, frame []byte, ifindex int) egressReason {
	t.Helper()
	return e.outcome(t, run(t, e.SkbEgress, frame, ifindex), 1, 0)
}

// outcome turns a return value, and the event that goes with refusals only, into a reason.
func (e *egress) outcome(t *testing.T, ret, pass, refuse uint32) egressReason {
	t.Helper()
	ev, told := e.event(t)
	switch {
	case ret == pass && !told:
		return egressReasonPassed
	case ret == refuse && told && ev.Reason != egressReasonPassed:
		return ev.Reason
	}
	t.Fatalf("returned %d, event %+v (%v): they do not belong together", int32(ret), ev, told)
	return 0
}

// receive gives a frame to to_container.
func (e *egress) receive(t *testing.T, frame []byte) {
	t.Helper()
	if ret := run(t, e.ToContainer, frame, 0); ret != next {
		t.Fatalf("to_container returned %d", int32(ret))
	}
	if ev, told := e.event(t); told {
		t.Fatalf("to_container refused: %+v", ev)
	}
}
