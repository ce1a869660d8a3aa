// SPDX-License-Identifier: Apache-2.0

package programs

import "testing"

// TestLinkUpkeep: neighbour discovery and listener reports pass to the link only.
func TestLinkUpkeep(t *testing.T) {
	const linkLocal, solicited, allRouters, mld2 = "fe80::1", "ff02::1:ff00:1", "ff02::2", "ff02::16"
	nd := func(dst string, kind, hops byte) []byte {
		return v6{src: ctr6, dst: dst, next: 58, hops: hops}.frame(icmpMessage(kind, 0, ip(dst)...))
	}
	mld := func(dst string, kind, hops byte) []byte {
		return v6{src: "fe80::2", dst: dst, next: 58, hops: hops, extensions: []ext{padding(0, 0)}}.frame(icmpMessage(kind, 0, make([]byte, 16)...))
	}
	tests := map[string]struct {
		frame []byte
		want  egressReason
	}{
		"solicitation":                      {nd(solicited, 135, 255), passed},
		"solicitation, link-local":          {nd(linkLocal, 135, 255), passed},
		"solicitation, end of link-local":   {nd("febf:ffff::1", 135, 255), passed},
		"solicitation, behind link-local":   {nd("fec0::1", 135, 255), noRule},
		"advertisement, all nodes":          {nd("ff02::1", 136, 255), passed},
		"advertisement, link-local":         {nd(linkLocal, 136, 255), passed},
		"router solicitation":               {nd(allRouters, 133, 255), passed},
		"router advertisement":              {nd("ff02::1", 134, 255), noRule},
		"redirect":                          {nd(linkLocal, 137, 255), noRule},
		"echo to the link":                  {nd("ff02::1", 128, 255), noRule},
		"advertisement, stranger":           {nd(other6, 136, 255), noRule},
		"solicitation, stranger":            {nd(other6, 135, 255), noRule},
		"solicitation, site multicast":      {nd("ff05::1", 135, 255), noRule},
		"listener report":                   {mld(mld2, 143, 1), passed},
		"listener report, version 1":        {mld("ff0e::1234", 131, 1), passed},
		"listener done":                     {mld(allRouters, 132, 1), passed},
		"listener report that travels":      {mld("ff0e::1234", 143, 2), noRule},
		"listener report to an address":     {mld(other6, 143, 1), noRule},
		"listener query":                    {mld("ff02::1", 130, 1), noRule},
		"solicitation, cut off":             {v6{src: ctr6, dst: linkLocal, next: 58, hops: 255}.frame([]byte{135, 0, 0, 0}), noRule},
		"solicitation in IPv4":              {v4{src: ctr4, dst: other4, proto: 58, ttl: 255}.frame(icmpMessage(135, 0)), noRule},
		"TCP with flags like ND":            {v6{src: ctr6, dst: linkLocal, next: 6, hops: 255}.frame(tcpSegment(1, 2, 135)), noRule},
		"protocol that looks like ND":       {v6{src: ctr6, dst: linkLocal, next: 253, hops: 255}.frame(icmpMessage(135, 0)), noRule},
		"solicitation to an IPv4 neighbour": {v4{src: ctr4, dst: peer4, proto: 1}.frame(icmpMessage(135, 0)), noRule},
	}
	e := loadEgressTest(t, setup{})
	for name, test := range tests {
		if got := e.send(t, test.frame); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
	// The lists have no say in it: a rule against all of IPv6 would cut off IPv6 for good.
	e = loadEgressTest(t, setup{defaultAllow: true, deny: lists{"::/0": everything}})
	if got := e.send(t, nd(solicited, 135, 255)); got != passed {
		t.Errorf("solicitation under a deny rule for everything: %d, want passed", got)
	}
}

// TestNeighbours: an address is a neighbour's once a discovery message came from it
// that no router can have passed on. That holds without allow_replies, too.
func TestNeighbours(t *testing.T) {
	from := func(kind, hops byte) []byte {
		return v6{src: peer6, dst: ctr6, next: 58, hops: hops}.frame(icmpMessage(kind, 0, ip(ctr6)...))
	}
	advert := v6{src: ctr6, dst: peer6, next: 58, hops: 255}.frame(icmpMessage(136, 0, ip(ctr6)...))
	solicit := v6{src: ctr6, dst: peer6, next: 58, hops: 255}.frame(icmpMessage(135, 0, ip(peer6)...))
	for _, s := range []setup{{}, {noReplies: true}} {
		for _, test := range []struct {
			name string
			in   []byte
			want egressReason
		}{
			{"solicitation", from(135, 255), passed},
			{"advertisement", from(136, 255), passed},
			{"solicitation that was passed on", from(135, 254), noRule},
			{"router advertisement", from(134, 255), noRule},
			{"in IPv4", v4{src: peer4, dst: ctr4, proto: 58, ttl: 255}.frame(icmpMessage(135, 0)), noRule},
		} {
			e := loadEgressTest(t, s)
			e.receive(t, test.in)
			for _, out := range [][]byte{advert, solicit} {
				if got := e.send(t, out); got != test.want {
					t.Errorf("after a %s, %+v: %d, want %d", test.name, s, got, test.want)
				}
			}
			for _, id := range []uint16{0, 135} {
				if got := e.send(t, between(ctr6, peer6, 58, icmpMessage(129, id))); got != noRule {
					t.Errorf("after a %s: echo reply %d to a neighbour: %d, want %d", test.name, id, got, noRule)
				}
			}
		}
	}
}
