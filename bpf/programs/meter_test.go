// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"testing"

	"github.com/cilium/ebpf"
)

func loadMeterTest(t *testing.T) *meterObjects {
	t.Helper()
	m := &meterObjects{}
	if err := loadMeterObjects(m, nil); err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// amount returns what was counted of one kind, over all CPUs.
func (m *meterObjects) amount(t *testing.T, kind meterTraffic) (sum meterAmount) {
	t.Helper()
	var values []meterAmount
	if err := m.Meter.Lookup(kind, &values); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		sum.Packets += v.Packets
		sum.Bytes += v.Bytes
	}
	return sum
}

// TestMeter: packets and bytes of the IP packet, per direction and version.
func TestMeter(t *testing.T) {
	m := loadMeterTest(t)
	tcp4, udp6, ping4 := tcpTo(other4, 443), udpTo(other6, 53), pingTo(other4)
	pass := func(prog *ebpf.Program, frames ...[]byte) {
		for _, frame := range frames {
			if ret := run(t, prog, frame, 0); ret != 1 {
				t.Errorf("%s returned %d: the meter must let everything pass", prog, ret)
			}
		}
	}
	pass(m.SkbEgress, tcp4, ping4, udp6)
	pass(m.SkbIngress, tcp4, udp6, udp6)
	ip := func(frames ...[]byte) (a meterAmount) {
		for _, f := range frames {
			a.Packets++
			a.Bytes += uint64(len(f) - 14)
		}
		return a
	}
	for kind, want := range map[meterTraffic]meterAmount{
		meterTrafficSentIpv4:     ip(tcp4, ping4),
		meterTrafficSentIpv6:     ip(udp6),
		meterTrafficReceivedIpv4: ip(tcp4),
		meterTrafficReceivedIpv6: ip(udp6, udp6),
	} {
		if got := m.amount(t, kind); got != want {
			t.Errorf("kind %d: %+v, want %+v", kind, got, want)
		}
	}
}

// TestMeterBundle: a packet that the device will cut into parts counts as them.
func TestMeterBundle(t *testing.T) {
	const gsoSegs = 164 // offset in struct __sk_buff
	m := loadMeterTest(t)
	frame := tcpTo(other4, 443)
	if _, err := m.SkbEgress.Run(&ebpf.RunOptions{Data: frame, Context: skbContext(gsoSegs, 5)}); err != nil {
		t.Fatal(err)
	}
	if got, want := m.amount(t, meterTrafficSentIpv4), (meterAmount{Packets: 5, Bytes: uint64(len(frame) - 14)}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
