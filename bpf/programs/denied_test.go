// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"testing"

	"github.com/cilium/ebpf"
)

func to(addr [16]byte, proto egressIpProto, port, ethertype uint16) egressDestination {
	return egressDestination{Addr: addr, Proto: proto, Port: port, Ethertype: ethertype}
}

// total returns one of the totals, over all CPUs.
func (e *egress) total(t *testing.T, stat egressStat) uint64 {
	t.Helper()
	var values []uint64
	if err := e.Stats.Lookup(stat, &values); err != nil {
		t.Fatal(err)
	}
	var sum uint64
	for _, v := range values {
		sum += v
	}
	return sum
}

// TestDenied: each refusal is counted by destination, in the totals, and told once.
func TestDenied(t *testing.T) {
	e := loadEgressTest(t, setup{deny: lists{other6 + "/128": everything}})
	ifindex := device(t)
	tcp4, udp6, ping4, mpls := tcpTo(other4, 443), udpTo(other6, 53), pingTo(other4), eth(0x8847, make([]byte, 30))
	unknown6 := v6{src: ctr6, dst: peer6, next: 6, extensions: repeat(padding(60, 0), 9)}.frame(nil)
	routed4 := v4{src: ctr4, dst: peer4, proto: 6, options: []byte{131, 7, 4, 1, 2, 3, 4}}.frame(tcpSegment(1, 2, syn))
	cutOff := eth(typeIPv4, make([]byte, 10), typeVLAN)

	start := monotonic(t)
	for name, test := range map[string]struct {
		frame    []byte
		atSocket bool
		want     egressEvent
	}{
		"TCP at the interface":     {tcp4, false, egressEvent{To: to(mapped(other4), protoTCP, 443, typeIPv4), SourcePort: 40000, Reason: noRule}},
		"TCP at the socket":        {tcp4, true, egressEvent{To: to(mapped(other4), protoTCP, 443, typeIPv4), SourcePort: 40000, Reason: noRule}},
		"UDP over IPv6":            {udp6, false, egressEvent{To: to(mapped(other6), protoUDP, 53, typeIPv6), SourcePort: 40000, Reason: denied}},
		"ICMP has no port":         {ping4, false, egressEvent{To: to(mapped(other4), egressIpProtoIcmp, 0, typeIPv4), Reason: noRule}},
		"not IP":                   {mpls, false, egressEvent{To: egressDestination{Ethertype: 0x8847}, Reason: notIP}},
		"protocol out of reach":    {unknown6, false, egressEvent{To: to(mapped(peer6), protoAny, 0, typeIPv6), Reason: noRule}},
		"source route":             {routed4, true, egressEvent{To: to(mapped(peer4), protoAny, 0, typeIPv4), Reason: badFrame}},
		"no destination to be had": {cutOff, false, egressEvent{To: egressDestination{Ethertype: typeIPv4}, Reason: badFrame}},
	} {
		test.want.Place = egressPlaceAtInterface
		test.want.Bytes = uint32(len(test.frame))
		var ret uint32
		if test.atSocket {
			test.want.Place = egressPlaceAtSocket
			test.want.Bytes -= 14
			ret = run(t, e.SkbEgress, test.frame, ifindex)
		} else {
			ret = run(t, e.FromContainer, test.frame, 0) - drop
		}
		if ret != 0 {
			t.Fatalf("%s: not refused", name)
		}
		got, told := e.event(t)
		if !told {
			t.Fatalf("%s: no event", name)
		}
		if got.TimeNs < start || got.TimeNs > monotonic(t) {
			t.Errorf("%s: time %d", name, got.TimeNs)
		}
		if test.want.TimeNs = got.TimeNs; got != test.want {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, test.want)
		}
		var r egressRefusals
		if err := e.Denied.Lookup(got.To, &r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r.LastNs != got.TimeNs || r.Attempts == 0 || r.Bytes < uint64(got.Bytes) {
			t.Errorf("%s: counted %+v, event %+v", name, r, got)
		}
		if again, told := e.event(t); told {
			t.Errorf("%s: told twice: %+v", name, again)
		}
	}

	var r egressRefusals
	if err := e.Denied.Lookup(to(mapped(other4), protoTCP, 443, typeIPv4), &r); err != nil {
		t.Fatal(err)
	}
	if want := uint64(2*len(tcp4) - 14); r.Attempts != 2 || r.Bytes != want {
		t.Errorf("%d attempts, %d bytes; want 2, %d", r.Attempts, r.Bytes, want)
	}
	all := uint64(2*len(tcp4) + len(udp6) + len(ping4) + len(mpls) + len(unknown6) + len(routed4) + len(cutOff) - 2*14)
	for stat, want := range map[egressStat]uint64{egressStatDeniedCalls: 0, egressStatDeniedPackets: 8, egressStatDeniedBytes: all, egressStatEventsLost: 0} {
		if got := e.total(t, stat); got != want {
			t.Errorf("total %d is %d, want %d", stat, got, want)
		}
	}
}

// TestPassedIsNotCounted: nothing is counted or told of what passes.
func TestPassedIsNotCounted(t *testing.T) {
	e := loadEgressTest(t, setup{allow: lists{"0.0.0.0/0": everything}})
	if got := e.send(t, tcpTo(other4, 443)); got != passed {
		t.Fatalf("%d, want passed", got)
	}
	var key egressDestination
	var r egressRefusals
	if e.Denied.Iterate().Next(&key, &r) {
		t.Errorf("counted: %+v %+v", key, r)
	}
}

// TestEventsLost: nobody has to read the ring buffer. What it can't take is counted.
func TestEventsLost(t *testing.T) {
	e := loadEgressTest(t, setup{})
	const packets = 3000
	if _, err := e.FromContainer.Run(&ebpf.RunOptions{Data: tcpTo(other4, 443), Repeat: packets}); err != nil {
		t.Fatal(err)
	}
	told := uint64(0)
	for {
		if _, ok := e.event(t); !ok {
			break
		}
		told++
	}
	lost := e.total(t, egressStatEventsLost)
	if told == 0 || lost == 0 || told+lost != packets {
		t.Errorf("%d events told, %d lost, want %d together and some of both", told, lost, packets)
	}
	var r egressRefusals
	if err := e.Denied.Lookup(to(mapped(other4), protoTCP, 443, typeIPv4), &r); err != nil {
		t.Fatal(err)
	}
	if r.Attempts != packets {
		t.Errorf("%d attempts, want %d", r.Attempts, packets)
	}
	if got := e.send(t, udpTo(other4, 53)); got != noRule {
		t.Errorf("the next event: %d, want %d", got, noRule)
	}
}
