// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"testing"
)

// Short names of what is expected.
const (
	passed   = egressReasonPassed
	denied   = egressReasonDenyRule
	noRule   = egressReasonNoAllowRule
	badFrame = egressReasonUnreadable
	notIP    = egressReasonNotIp
)

var everything = []egressRule{{}}

func rule(proto egressIpProto, ports ...uint16) egressRule {
	r := egressRule{Proto: proto}
	if len(ports) > 0 {
		r.Port = ports[0]
	}
	if len(ports) > 1 {
		r.PortEnd = ports[1]
	}
	return r
}

const (
	protoAny = egressIpProtoAny
	protoTCP = egressIpProtoTcp
	protoUDP = egressIpProtoUdp
)

// sctpInit has ports where TCP has them.
func sctpInit(dst string, port uint16) []byte {
	return transportTo(dst, 132, append(append(be16(40000), be16(port)...), make([]byte, 8)...))
}

// TestRules gives each frame to the program of sockets and to that of the interface:
// the same rules must hold in both.
func TestRules(t *testing.T) {
	eight := []egressRule{
		rule(protoTCP, 1), rule(protoTCP, 2), rule(protoTCP, 3), rule(protoTCP, 4),
		rule(protoTCP, 5), rule(protoTCP, 6), rule(protoTCP, 7), rule(protoTCP, 8),
	}
	type want map[string]egressReason
	tests := map[string]struct {
		setup  setup
		frames map[string][]byte
		want   want
	}{
		"default deny": {
			frames: map[string][]byte{
				"tcp4": tcpTo(other4, 443), "udp4": udpTo(other4, 53), "icmp4": pingTo(other4), "gre4": transportTo(other4, 47, make([]byte, 8)),
				"tcp6": tcpTo(other6, 443), "udp6": udpTo(other6, 53), "icmp6": pingTo(other6), "gre6": transportTo(other6, 47, make([]byte, 8)),
			},
			want: want{
				"tcp4": noRule, "udp4": noRule, "icmp4": noRule, "gre4": noRule,
				"tcp6": noRule, "udp6": noRule, "icmp6": noRule, "gre6": noRule,
			},
		},
		"default allow": {
			setup: setup{defaultAllow: true},
			frames: map[string][]byte{
				"tcp4": tcpTo(other4, 443), "udp4": udpTo(other4, 53), "icmp4": pingTo(other4), "gre4": transportTo(other4, 47, make([]byte, 8)),
				"tcp6": tcpTo(other6, 443), "udp6": udpTo(other6, 53), "icmp6": pingTo(other6), "gre6": transportTo(other6, 47, make([]byte, 8)),
			},
			want: want{
				"tcp4": passed, "udp4": passed, "icmp4": passed, "gre4": passed,
				"tcp6": passed, "udp6": passed, "icmp6": passed, "gre6": passed,
			},
		},
		"everything to an address": {
			setup: setup{allow: lists{other4 + "/32": everything, other6 + "/128": everything}},
			frames: map[string][]byte{
				"tcp4": tcpTo(other4, 443), "udp4": udpTo(other4, 53), "icmp4": pingTo(other4), "gre4": transportTo(other4, 47, make([]byte, 8)),
				"tcp6": tcpTo(other6, 443), "udp6": udpTo(other6, 53), "icmp6": pingTo(other6), "gre6": transportTo(other6, 47, make([]byte, 8)),
				"elsewhere4": tcpTo("198.51.100.8", 443), "elsewhere6": tcpTo("2001:db8:7::8", 443),
			},
			want: want{
				"tcp4": passed, "udp4": passed, "icmp4": passed, "gre4": passed,
				"tcp6": passed, "udp6": passed, "icmp6": passed, "gre6": passed,
				"elsewhere4": noRule, "elsewhere6": noRule,
			},
		},
		"a protocol": {
			setup: setup{allow: lists{"0.0.0.0/0": {rule(protoUDP)}, "::/0": {rule(egressIpProtoIcmpv6), rule(47)}}},
			frames: map[string][]byte{
				"tcp4": tcpTo(other4, 53), "udp4": udpTo(other4, 53), "icmp4": pingTo(other4),
				"udp6": udpTo(other6, 53), "icmp6": pingTo(other6), "gre6": transportTo(other6, 47, make([]byte, 8)),
			},
			want: want{"tcp4": noRule, "udp4": passed, "icmp4": noRule, "udp6": noRule, "icmp6": passed, "gre6": passed},
		},
		"a port": {
			setup: setup{allow: lists{"0.0.0.0/0": {rule(protoTCP, 443)}, "::/0": {rule(protoAny, 443)}}},
			frames: map[string][]byte{
				"443": tcpTo(other4, 443), "442": tcpTo(other4, 442), "444": tcpTo(other4, 444), "udp 443": udpTo(other4, 443),
				"any tcp": tcpTo(other6, 443), "any udp": udpTo(other6, 443), "any sctp": sctpInit(other6, 443), "any sctp 444": sctpInit(other6, 444),
				"no ports": transportTo(other6, 47, append(be16(443), be16(443)...)), "icmp": pingTo(other6),
			},
			want: want{
				"443": passed, "442": noRule, "444": noRule, "udp 443": noRule,
				"any tcp": passed, "any udp": passed, "any sctp": passed, "any sctp 444": noRule,
				"no ports": noRule, "icmp": noRule,
			},
		},
		"a port is no identifier": {
			setup:  setup{allow: lists{"0.0.0.0/0": {rule(protoAny, 7)}, "::/0": {rule(protoAny, 0, 1023)}}},
			frames: map[string][]byte{"echo 7": pingTo(other4), "gre": transportTo(other6, 47, make([]byte, 8)), "udp": udpTo(other4, 7)},
			want:   want{"echo 7": noRule, "gre": noRule, "udp": passed},
		},
		"a range": {
			setup: setup{allow: lists{
				"0.0.0.0/0": {rule(protoTCP, 8000, 8100)},
				"::/0":      {rule(protoTCP, 0, 1023), rule(protoUDP, 9, 8)},
			}},
			frames: map[string][]byte{
				"7999": tcpTo(other4, 7999), "8000": tcpTo(other4, 8000), "8050": tcpTo(other4, 8050), "8100": tcpTo(other4, 8100), "8101": tcpTo(other4, 8101),
				"0": tcpTo(other6, 0), "1023": tcpTo(other6, 1023), "1024": tcpTo(other6, 1024),
				"the wrong way round 8": udpTo(other6, 8), "the wrong way round 9": udpTo(other6, 9),
			},
			want: want{
				"7999": noRule, "8000": passed, "8050": passed, "8100": passed, "8101": noRule,
				"0": passed, "1023": passed, "1024": noRule,
				"the wrong way round 8": noRule, "the wrong way round 9": noRule,
			},
		},
		"eight rules": {
			setup:  setup{allow: lists{"0.0.0.0/0": eight}},
			frames: map[string][]byte{"first": tcpTo(other4, 1), "last": tcpTo(other4, 8), "none": tcpTo(other4, 9)},
			want:   want{"first": passed, "last": passed, "none": noRule},
		},
		"the list ends at an empty rule": {
			setup:  setup{allow: lists{"0.0.0.0/0": {rule(protoTCP, 1), {}, rule(protoTCP, 3)}}},
			frames: map[string][]byte{"before": tcpTo(other4, 1), "after": tcpTo(other4, 3), "everything": tcpTo(other4, 2)},
			want:   want{"before": passed, "after": noRule, "everything": noRule},
		},
		"the longest prefix decides": {
			setup: setup{allow: lists{
				"198.51.0.0/16": {rule(protoTCP, 80)}, "198.51.100.0/24": {rule(protoTCP, 443)},
				"2001:db8::/32": {rule(protoTCP, 80)}, "2001:db8:7::/48": {rule(protoTCP, 443)},
			}},
			frames: map[string][]byte{
				"long4": tcpTo(other4, 443), "short4": tcpTo(other4, 80), "outside4": tcpTo("198.51.7.7", 80),
				"long6": tcpTo(other6, 443), "short6": tcpTo(other6, 80), "outside6": tcpTo("2001:db8:8::1", 80),
			},
			want: want{"long4": passed, "short4": noRule, "outside4": passed, "long6": passed, "short6": noRule, "outside6": passed},
		},
		"deny beats allow": {
			setup: setup{
				allow: lists{other4 + "/32": everything, "::/0": everything},
				deny:  lists{"0.0.0.0/0": {rule(protoTCP, 25)}, "2001:db8:7::/48": everything},
			},
			frames: map[string][]byte{
				"25": tcpTo(other4, 25), "26": tcpTo(other4, 26), "udp 25": udpTo(other4, 25),
				"denied prefix": tcpTo(other6, 443), "around it": tcpTo("2001:db8:8::1", 443),
			},
			want: want{"25": denied, "26": passed, "udp 25": passed, "denied prefix": denied, "around it": passed},
		},
		"deny under default allow": {
			setup:  setup{defaultAllow: true, deny: lists{"198.51.100.0/24": {rule(protoUDP), rule(protoTCP, 25)}}},
			frames: map[string][]byte{"udp": udpTo(other4, 9), "25": tcpTo(other4, 25), "443": tcpTo(other4, 443), "elsewhere": udpTo("198.51.101.1", 9)},
			want:   want{"udp": denied, "25": denied, "443": passed, "elsewhere": passed},
		},
		"IPv6 prefixes say nothing about IPv4": {
			setup: setup{allow: lists{"::/0": everything}, deny: lists{"::/1": {rule(protoTCP, 25)}}},
			frames: map[string][]byte{
				"4": tcpTo(other4, 443), "deny 4": tcpTo(other4, 25),
				"6": tcpTo(other6, 443), "deny 6": tcpTo(other6, 25),
			},
			want: want{"4": noRule, "deny 4": noRule, "6": passed, "deny 6": denied},
		},
		"IPv4 prefixes say nothing about IPv6": {
			setup:  setup{allow: lists{"0.0.0.0/0": everything}},
			frames: map[string][]byte{"4": tcpTo(other4, 443), "6": tcpTo(other6, 443)},
			want:   want{"4": passed, "6": noRule},
		},
		"IPv4-mapped destination in an IPv6 packet": {
			setup: setup{allow: lists{other4 + "/32": everything}},
			frames: map[string][]byte{
				"allowed": v6{src: ctr6, dst: "::ffff:" + other4, next: 6}.frame(tcpSegment(1, 2, syn)),
				"other":   v6{src: ctr6, dst: "::ffff:198.51.100.8", next: 6}.frame(tcpSegment(1, 2, syn)),
			},
			want: want{"allowed": passed, "other": noRule},
		},
		"multicast, broadcast and link-local have no exception": {
			frames: map[string][]byte{
				"mdns4": udpTo("224.0.0.251", 5353), "mdns6": udpTo("ff02::fb", 5353), "igmp": transportTo("224.0.0.22", 2, make([]byte, 8)),
				"dhcp": udpTo("255.255.255.255", 67), "dhcpv6": udpTo("ff02::1:2", 547), "metadata": tcpTo("169.254.169.254", 80),
			},
			want: want{"mdns4": noRule, "mdns6": noRule, "igmp": noRule, "dhcp": noRule, "dhcpv6": noRule, "metadata": noRule},
		},
		"loopback addresses that leave through a device have no exception": {
			frames: map[string][]byte{"4": tcpTo("127.0.0.1", 80), "6": tcpTo("::1", 80)},
			want:   want{"4": noRule, "6": noRule},
		},
	}
	ifindex := device(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := loadEgressTest(t, test.setup)
			for name, frame := range test.frames {
				want, ok := test.want[name]
				if !ok {
					t.Fatalf("%s: nothing is expected", name)
				}
				if got := e.send(t, frame); got != want {
					t.Errorf("%s at the interface: %d, want %d", name, got, want)
				}
				if got := e.sendFromSocket(t, frame, ifindex); got != want {
					t.Errorf("%s at the socket: %d, want %d", name, got, want)
				}
			}
		})
	}
}

// TestLoopbackDevice: what stays on lo is nobody's business, whatever its address.
func TestLoopbackDevice(t *testing.T) {
	e := loadEgressTest(t, setup{deny: lists{"0.0.0.0/0": everything, "::/0": everything}})
	for _, frame := range [][]byte{tcpTo("127.0.0.1", 80), tcpTo("::1", 80), tcpTo(ctr4, 80), tcpTo(ctr6, 80)} {
		if got := e.sendFromSocket(t, frame, 0); got != passed {
			t.Errorf("on lo: %d, want passed", got)
		}
	}
}
