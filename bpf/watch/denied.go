// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/pin"
)

// The maps of the built-in policy egress that tell of refusals (bpf/programs/c/denied.h).
// They are counters and any number of readers may look at them. The ring buffer of
// single refusals beside them has one reader's position for all: it is left to
// whoever wants it, since a watcher would take from it what another one waits for.
const (
	mapDenied = "denied"
	mapEvents = "events"
	mapStats  = "stats"
)

const (
	// maxDestinations bounds what is read and remembered of one map: four times what
	// egress has room for. What is beyond it is counted as "others".
	maxDestinations = 4096
	// maxDenials bounds the events of one map in one look.
	maxDenials = 64
)

// destination is struct destination.
type destination [destinationSize]byte

const (
	destinationSize = 24
	refusalsSize    = 24
)

// refusals is struct refusals.
type refusals struct {
	attempts, bytes, last uint64
}

// counters are the refusals of one entry as they were at the last look.
type counters struct {
	name string // of the map, in the plan
	file string // of its pin
	sums string // of the pin of the totals
	seen map[destination]refusals
	told totals // what there have been events for, and what was there before
	sum  uint64 // attempts at the last look
}

// totals are sums over all destinations, which do not forget any.
type totals struct {
	attempts, bytes uint64
}

// deniedMaps returns the maps of an entry that egress counts in. A policy with several
// objects has their names before those of their maps.
func deniedMaps(rec *pin.Record) []*counters {
	var out []*counters
	for _, name := range rec.Maps {
		prefix, ok := strings.CutSuffix(name, mapDenied)
		if ok && (prefix == "" || strings.HasSuffix(prefix, "/")) &&
			slices.Contains(rec.Maps, prefix+mapEvents) && slices.Contains(rec.Maps, prefix+mapStats) {
			out = append(out, &counters{name: name, seen: map[destination]refusals{}})
		}
	}
	return out
}

// reader has the buffers for reading maps.
type reader struct {
	keys, values []byte
	perCPU       []byte
}

func newReader() (*reader, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	return &reader{
		keys: make([]byte, maxDestinations*destinationSize), values: make([]byte, maxDestinations*refusalsSize), perCPU: make([]byte, 8*cpus),
	}, nil
}

// start takes what has been refused so far as told. dir is the entry's directory.
func (c *counters) start(dir string, r *reader) error {
	seen, err := r.refusals(filepath.Join(dir, c.file))
	if err != nil || seen == nil {
		return err
	}
	c.seen = seen
	c.told, _, err = r.totals(dir+"/"+c.sums, 0)
	return err
}

// next reads the counters of an entry and returns what was refused since the last
// time.
func (c *counters) next(dir string, r *reader, now clocks) ([]Denial, error) {
	// The programs count a destination first and then the total. So totals that are read
	// before the destinations are never ahead of them, unless the map has forgotten some.
	// And as long as they stay there is nothing new, or it is told at the next look.
	sum, more, err := r.totals(dir+"/"+c.sums, c.sum)
	if err != nil || !more {
		return nil, err
	}
	seen, err := r.refusals(dir + "/" + c.file)
	if err != nil || seen == nil {
		return nil, err
	}
	c.sum = sum.attempts
	var out []Denial
	for to, have := range seen {
		if more := have.since(c.seen[to]); more.attempts > 0 {
			out = append(out, describe(to, more, now))
		}
	}
	c.seen = seen // the map forgets; what it has forgotten is forgotten here, too
	return c.sumUp(out, sum), nil
}

// locate takes over how the pins are called in the directory of an entry.
func (c *counters) locate(e *pin.Entry) {
	c.file = filepath.Base(e.MapPath(c.name))
	c.sums = filepath.Base(e.MapPath(strings.TrimSuffix(c.name, mapDenied) + mapStats))
}

// sumUp bounds a list of denials, and adds to it what the map has forgotten.
func (c *counters) sumUp(all []Denial, sum totals) []Denial {
	slices.SortFunc(all, func(a, b Denial) int {
		return cmp.Or(cmp.Compare(b.Attempts, a.Attempts), a.Address.Compare(b.Address), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	others := Denial{Protocol: protocolName(0), Others: true}
	for i, d := range all {
		c.told.attempts += d.Attempts
		c.told.bytes += d.Bytes
		if i >= maxDenials {
			others.Attempts += d.Attempts
			others.Bytes += d.Bytes
		}
	}
	forgotten := totals{sum.attempts - min(sum.attempts, c.told.attempts), sum.bytes - min(sum.bytes, c.told.bytes)}
	if forgotten.attempts > 0 {
		c.told.attempts += forgotten.attempts
		c.told.bytes += forgotten.bytes
		others.Attempts += forgotten.attempts
		others.Bytes += forgotten.bytes
	}
	out := all[:min(len(all), maxDenials)]
	if others.Attempts > 0 {
		out = append(out, others)
	}
	return out
}

// refusals reads the map of egress at path. nil: it is gone, or another kind of map.
func (r *reader) refusals(path string) (map[destination]refusals, error) {
	fd, info, err := openMap(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if ebpf.MapType(info.kind) != ebpf.LRUHash || info.keySize != destinationSize || info.valueSize != refusalsSize {
		return nil, nil
	}
	n, err := readMap(fd, r.keys, r.values, maxDestinations)
	if err != nil {
		return nil, err
	}
	seen := make(map[destination]refusals, n)
	for i := range n {
		seen[destination(r.keys[i*destinationSize:])] = parseRefusals(r.values[i*refusalsSize:])
	}
	return seen, nil
}

// totals reads the totals of calls, packets and bytes (enum stat). more is false, and the
// bytes are not read, if there were as many attempts before.
func (r *reader) totals(path string, before uint64) (sum totals, more bool, err error) {
	fd, info, err := openMap(path)
	if err != nil {
		return sum, false, err
	}
	defer unix.Close(fd)
	if ebpf.MapType(info.kind) != ebpf.PerCPUArray || info.keySize != 4 || info.valueSize != 8 {
		return sum, false, nil // another kind of map
	}
	const calls, packets, bytes = 0, 1, 2
	for _, stat := range []uint32{calls, packets} {
		n, err := readPerCPU(fd, stat, r.perCPU)
		if err != nil {
			return sum, false, err
		}
		sum.attempts += n
	}
	if sum.attempts == before {
		return sum, false, nil
	}
	sum.bytes, err = readPerCPU(fd, bytes, r.perCPU)
	return sum, true, err
}

func parseRefusals(b []byte) refusals {
	u64 := func(off int) uint64 { return binary.NativeEndian.Uint64(b[off:]) }
	return refusals{u64(0), u64(8), u64(16)}
}

// since returns what came after old. A destination that the map had forgotten
// in between starts anew.
func (r refusals) since(old refusals) refusals {
	if r.attempts < old.attempts || r.bytes < old.bytes {
		return r
	}
	return refusals{r.attempts - old.attempts, r.bytes - old.bytes, r.last}
}

// clocks is one instant on both clocks: the kernel's counters have the monotonic one.
type clocks struct {
	wall      time.Time
	monotonic int64 // nanoseconds
}

func (c clocks) wallOf(monotonic uint64) time.Time {
	return c.wall.Add(time.Duration(int64(monotonic) - c.monotonic))
}

// describe reads struct destination: addr (16 bytes), proto (4), port (2) and
// ethertype (2), in host order.
func describe(to destination, r refusals, now clocks) Denial {
	d := Denial{
		Protocol:  protocolName(binary.NativeEndian.Uint32(to[16:])),
		Port:      binary.NativeEndian.Uint16(to[20:]),
		EtherType: binary.NativeEndian.Uint16(to[22:]),
		Attempts:  r.attempts,
		Bytes:     r.bytes,
		Last:      now.wallOf(r.last),
	}
	if addr := netip.AddrFrom16([16]byte(to[:16])); !addr.IsUnspecified() {
		d.Address = addr.Unmap()
	}
	return d
}

// protocolName writes a protocol as policies do (enum ip_proto).
func protocolName(proto uint32) string {
	switch proto {
	case 0:
		return "any"
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_IGMP:
		return "igmp"
	case unix.IPPROTO_IPIP:
		return "ipip"
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_DCCP:
		return "dccp"
	case unix.IPPROTO_GRE:
		return "gre"
	case unix.IPPROTO_ESP:
		return "esp"
	case unix.IPPROTO_AH:
		return "ah"
	case unix.IPPROTO_ICMPV6:
		return "icmpv6"
	case unix.IPPROTO_SCTP:
		return "sctp"
	case unix.IPPROTO_UDPLITE:
		return "udplite"
	}
	return strconv.FormatUint(uint64(proto), 10)
}

// text describes a denial for people: "10.0.0.1:443 tcp, 3 attempts, 180 bytes".
func (d Denial) text() string {
	var b strings.Builder
	switch {
	case d.Others:
		b.WriteString("other destinations")
	case d.Address.IsValid() && d.Port != 0:
		b.WriteString(netip.AddrPortFrom(d.Address, d.Port).String() + " " + d.Protocol)
	case d.Address.IsValid():
		b.WriteString(d.Address.String() + " " + d.Protocol)
	case d.EtherType != 0:
		b.WriteString("ethertype 0x" + strconv.FormatUint(uint64(d.EtherType), 16))
	default:
		b.WriteString("unknown destination")
	}
	b.WriteString(", " + strconv.FormatUint(d.Attempts, 10) + " attempt")
	if d.Attempts != 1 {
		b.WriteByte('s')
	}
	if d.Bytes > 0 {
		b.WriteString(", " + strconv.FormatUint(d.Bytes, 10) + " bytes")
	}
	return b.String()
}
