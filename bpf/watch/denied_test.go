// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/programs"
)

// attempts sums up what a viewer was told of one destination.
func (v *viewer) attempts(to string) (n uint64) {
	for _, e := range v.all(func(e Event) bool { return e.Kind == Denied && e.Denied.Address.String() == to }) {
		n += e.Denied.Attempts
	}
	return n
}

// Each watcher sees every denial, those before it was started excepted.
func TestDeniedForEveryWatcher(t *testing.T) {
	f := newFixture(t)
	c := newContainer(t, "web")
	f.attach(t, c, "egress")
	c.dial(t, "192.0.2.9:80")
	before := time.Now()
	v, w := f.watch(t, func(o *Options) { o.Initial = true }), f.watch(t, func(o *Options) { o.Initial = true })
	v.of(t, Attached, "web")
	w.of(t, Attached, "web")
	for range 3 {
		c.dial(t, "192.0.2.1:443")
	}
	late := newContainer(t, "late")
	f.attach(t, late, "egress")
	late.dial(t, "192.0.2.3:53")
	for _, v := range []*viewer{v, w} {
		bpftest.Eventually(t, "denials", func() error {
			if a, b := v.attempts("192.0.2.1"), v.attempts("192.0.2.3"); a != 3 || b != 1 {
				return fmt.Errorf("%d and %d attempts", a, b)
			}
			return nil
		})
		if n := v.attempts("192.0.2.9"); n != 0 {
			t.Errorf("%d attempts from before the start", n)
		}
		e := v.find(t, "denied", func(e Event) bool { return e.Kind == Denied && e.Item.Record.Identity.ContainerID == "web" })
		if d := e.Denied; d.Port != 443 || d.Protocol != "tcp" || d.EtherType != 0x800 || d.Bytes != 0 || d.Last.Before(before) || d.Last.After(time.Now()) {
			t.Errorf("%+v", d)
		}
		if others := v.all(func(e Event) bool { return e.Kind == Denied && e.Denied.Others }); len(others) > 0 {
			t.Errorf("%+v", others)
		}
	}
}

// A flood of destinations gives a bounded number of events, and none is lost from the
// sum, though the map forgets most of them.
func TestDeniedFlood(t *testing.T) {
	f := newFixture(t)
	c := newContainer(t, "web")
	f.attach(t, c, "egress")
	v := f.watch(t, func(o *Options) { o.Initial, o.Interval = true, 300*time.Millisecond })
	v.of(t, Attached, "web")
	const ports = 3000
	script := fmt.Sprintf("for i in $(seq %d); do echo > /dev/udp/192.0.2.1/$i; done", ports)
	_ = bpftest.Command(t, c.dir, "bash", "-c", script).Run() // every one is refused
	bpftest.Eventually(t, "all attempts", func() error {
		var sum uint64
		for _, e := range v.all(func(e Event) bool { return e.Kind == Denied }) {
			sum += e.Denied.Attempts
		}
		if sum != ports {
			return fmt.Errorf("%d attempts", sum)
		}
		return nil
	})
	if n := len(v.all(func(e Event) bool { return e.Kind == Denied && e.Denied.Others })); n == 0 {
		t.Error("nothing was summed up")
	}
	perLook := map[int64]int{}
	for _, e := range v.all(func(e Event) bool { return e.Kind == Denied }) {
		perLook[e.Time.UnixMilli()/100]++
	}
	for at, n := range perLook {
		if n > maxDenials+1 {
			t.Errorf("%d events in one look at %d", n, at)
		}
	}
}

// The layout that is read is that of the object.
func TestDeniedLayout(t *testing.T) {
	data, err := programs.Object("egress")
	if err != nil {
		t.Fatal(err)
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	m := spec.Maps[mapDenied]
	if m == nil || spec.Maps[mapEvents] == nil || spec.Maps[mapStats] == nil || m.Type != ebpf.LRUHash || m.KeySize != destinationSize || m.ValueSize != refusalsSize {
		t.Fatalf("%v", m)
	}
	for _, test := range []struct {
		of   btf.Type
		want map[string]uint32
	}{
		{m.Key, map[string]uint32{"addr": 0, "proto": 16, "port": 20, "ethertype": 22}},
		{m.Value, map[string]uint32{"attempts": 0, "bytes": 8, "last_ns": 16}},
	} {
		s, ok := test.of.(*btf.Struct)
		if !ok || len(s.Members) != len(test.want) {
			t.Fatalf("%v", test.of)
		}
		for _, member := range s.Members {
			if off, ok := test.want[member.Name]; !ok || member.Offset.Bytes() != off {
				t.Errorf("%s is at %d", member.Name, member.Offset.Bytes())
			}
		}
	}
	var stats *btf.Enum
	if err := spec.Types.TypeByName("stat", &stats); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"denied_calls", "denied_packets", "denied_bytes"} {
		if stats.Values[i].Name != name || stats.Values[i].Value != uint64(i) {
			t.Errorf("%+v", stats.Values[i])
		}
	}
	var protos *btf.Enum
	if err := spec.Types.TypeByName("ip_proto", &protos); err != nil {
		t.Fatal(err)
	}
	for _, p := range protos.Values {
		if got := protocolName(uint32(p.Value)); got != p.Name {
			t.Errorf("%s is called %s", p.Name, got)
		}
	}
}

// A policy with several objects has their names in front of those of its maps.
func TestDeniedMaps(t *testing.T) {
	for _, test := range []struct {
		maps []string
		want int
	}{
		{[]string{"denied", "events", "stats"}, 1},
		{[]string{"a/denied", "a/events", "a/stats", "denied"}, 1},
		{[]string{"a/denied", "b/events", "a/stats"}, 0},
		{[]string{"undenied", "unevents", "unstats"}, 0},
	} {
		if got := deniedMaps(&pin.Record{Maps: test.maps}); len(got) != test.want {
			t.Errorf("%v: %d", test.maps, len(got))
		}
	}
}
