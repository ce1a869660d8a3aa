// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs"
)

func u32(n uint32) string { return string(binary.NativeEndian.AppendUint32(nil, n)) }

func value32(p *uint32) any {
	if p == nil {
		return nil
	}
	return *p
}

func TestMends(t *testing.T) {
	p := must(t, plain)
	if got, want := mapNames(p), []string{"events", "keyless", "outer", "prefixes", "ring", "sized", "totals", "vendor"}; !slices.Equal(got, want) {
		t.Errorf("maps %v, want %v", got, want)
	}
	if m := mapOf(t, p, "prefixes"); value32(m.Flags) != uint32(unix.BPF_F_NO_PREALLOC) {
		t.Errorf("LPM trie: %v", value32(m.Flags))
	}
	if m := mapOf(t, p, "ring"); value32(m.MaxEntries) != max(8192, uint32(os.Getpagesize())) {
		t.Errorf("ring buffer: %v", value32(m.MaxEntries))
	}
	if m := mapOf(t, p, "keyless"); value32(m.KeySize) != uint32(4) || m.ValueSize != nil {
		t.Errorf("array without key size: %+v", m)
	}
	if m := mapOf(t, p, "sized"); value32(m.MaxEntries) != uint32(16) {
		t.Errorf("sized: %+v", m)
	}
	if m := mapOf(t, p, "outer"); m.Inner == nil || *m.Inner != (specs.PlanInner{Type: uint32(ebpf.Array), KeySize: 4, ValueSize: 4, MaxEntries: 1}) {
		t.Errorf("outer: %+v", m)
	}
	if _, err := p.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMapsThatCanNotBeMended(t *testing.T) {
	_, err := prepare(t, "object: {file: plain.bpf.o}\n")
	wantErrors(t, err,
		[]string{"p.yaml:1: object", "map outer holds maps, and its object does not say what they are like", "maps: {outer: {inner: …}}"},
		[]string{"p.yaml:1: object", "map sized leaves its size to the loader (max_entries 0)", "maps: {sized: {maxEntries: …}}"})
}

func TestSizesThatTheKernelRefuses(t *testing.T) {
	p := must(t, "object: {file: optional.bpf.o}\nprograms: {egress: {}}\nmaps: {queue: {entries: [{value: 5}]}}\n")
	if m := mapOf(t, p, "storage"); value32(m.MaxEntries) != uint32(0) || value32(m.Flags) != uint32(unix.BPF_F_NO_PREALLOC) {
		t.Errorf("socket storage: %+v", m)
	}
	if m := mapOf(t, p, "queue"); value32(m.KeySize) != uint32(0) {
		t.Errorf("queue: %+v", m)
	}
	if _, err := p.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	_, err := prepare(t, "object: {file: optional.bpf.o}\nprograms: {on_request: {}}\n")
	wantErrors(t, err, []string{"p.yaml:1: object", "map valueless of type Hash has valueSize 0", "maps: {valueless: {valueSize: …}}"})
}

// The template of inner maps is mended as well.
func TestInnerTrie(t *testing.T) {
	p := must(t, strings.Replace(plain, "type: array, keySize: 4", "type: lpm_trie, keySize: 8", 1))
	if in := mapOf(t, p, "outer").Inner; in == nil || in.Flags != unix.BPF_F_NO_PREALLOC {
		t.Errorf("%+v", in)
	}
	if _, err := p.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// Fields that only another loader knew, in a definition older than BTF.
func TestLegacyMap(t *testing.T) {
	p := must(t, "object: {file: legacy.bpf.o}\nmaps: {old: {entries: [{key: 1, value: 0x10}]}}\n")
	if e := mapOf(t, p, "old").Entries; len(e) != 1 || string(e[0].Key.Data) != u32(1) || string(e[0].Value.Data) != u32(16) {
		t.Errorf("%+v", e)
	}
	if _, err := p.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRingSize(t *testing.T) {
	page := uint32(os.Getpagesize())
	for n, want := range map[uint32]uint32{1: page, page: page, page + 1: 2 * page, 5 * page: 8 * page, 1 << 31: 1 << 31, 1<<32 - 1: 1 << 31} {
		if got := ringSize(n); got != want {
			t.Errorf("%d: %d, want %d", n, got, want)
		}
	}
}

func TestMapErrors(t *testing.T) {
	for _, tc := range []struct{ name, maps, want string }{
		{"unknown", "nobody: {maxEntries: 1}", "there is no map nobody; the maps are events, keyless, outer"},
		{"data section", ".rodata: {maxEntries: 1}", "there is no map .rodata"},
		{"inner of a hash", "vendor: {inner: {type: array, keySize: 4, valueSize: 4, maxEntries: 1}}", "map vendor of type Hash holds no maps"},
		{"ring of odd size", "ring: {maxEntries: 5000}", "a power of two and at least a page: not 5000 but 8192"},
		{"programs in a hash", "vendor: {programs: {0: egress}}", "map vendor of type Hash holds no programs"},
		{"entries of a ring", "ring: {entries: [{key: 1, value: 1}]}", "a map of type RingBuf takes no entries from a policy"},
		{"queue with a key", "vendor: {type: queue, entries: [{key: 1, value: 1}]}", "a map of type Queue has no keys"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := prepare(t, "object: {file: plain.bpf.o}\nprograms: {connect4: {}, egress: {}, ingress: {}}\nmaps: {"+tc.maps+"}\n")
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "p.yaml:3: maps") {
				t.Errorf("got %v\nwant %s", err, tc.want)
			}
		})
	}
}

// Each error stands at the line of its entry.
func TestTooSmall(t *testing.T) {
	_, err := prepare(t, plain+`  vendor:
    entries:
      - {key: 1, value: 1}
      - {key: 2, value: 1}
  totals:
    entries:
      - {key: 0, value: {packets: 1}}
      - {key: 2, value: {packets: 1}}
  prefixes:
    entries:
      - {key: 10.0.0.0/8, value: 1}
      - {key: 192.0.2.0/24, value: 1}
      - {key: 192.0.2.0/25, value: 1}
`)
	wantErrors(t, err,
		[]string{"p.yaml:8: maps.vendor.entries[1]", "map vendor is too small: it has room for 1 entries, and the policy has 2", "maps: {vendor: {maxEntries: …}}"},
		[]string{"p.yaml:12: maps.totals.entries[1]", "map totals is too small: it has 2 entries, so there is no index 2"},
		[]string{"p.yaml:17: maps.prefixes.entries[2]", "map prefixes is too small"})
}

func TestEntries(t *testing.T) {
	p := must(t, plain+`  prefixes: {entries: [{key: 10.0.0.0/8, value: 7}]}
  totals: {entries: [{key: 1, value: {packets: 3, bytes: 4}}]}
  vendor: {entries: [{key: "${pid}", value: be:1}]}
`)
	e := mapOf(t, p, "prefixes").Entries[0]
	if string(e.Key.Data) != u32(8)+"\x0a\x00\x00\x00" || string(e.Value.Data) != u32(7) {
		t.Errorf("prefix: %+v", e)
	}
	e = mapOf(t, p, "totals").Entries[0]
	if string(e.Value.Data) != string(binary.NativeEndian.AppendUint64(nil, 3))+u32(4)+u32(0) {
		t.Errorf("struct: %x", e.Value.Data)
	}
	e = mapOf(t, p, "vendor").Entries[0]
	if len(e.Key.Holes) != 1 || e.Key.Holes[0].Variable != specs.VarPID || string(e.Value.Data) != "\x00\x00\x00\x01" {
		t.Errorf("hole: %+v", e)
	}
	if _, err := p.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEntryErrors(t *testing.T) {
	_, err := prepare(t, plain+`  prefixes:
    entries:
      - {key: 10.0.0.1/8, value: 7}
      - {key: 10.0.0.0/8, value: x}
      - {key: 192.0.2.0/24, value: 1}
      - {key: {prefix: 192.0.2.0/24}, value: 2}
  totals:
    entries:
      - {key: 1, value: {pakets: 3}}
  vendor: {entries: [{key: 1, value: 3}]}
`)
	wantErrors(t, err,
		[]string{"p.yaml:7: maps.prefixes.entries[0].key"},
		[]string{"p.yaml:8: maps.prefixes.entries[1].value"},
		[]string{"p.yaml:9: maps.prefixes.entries[2]", "too small"},
		[]string{"p.yaml:10: maps.prefixes.entries[3]", "the key stands at line 9 already"},
		[]string{"p.yaml:13: maps.totals.entries[0].value", "packets"})
}

// Sizes other than those of BTF make values plain bytes.
func TestOtherSizes(t *testing.T) {
	p := must(t, plain+"  totals: {valueSize: 8, entries: [{key: 0, value: 5}]}\n")
	if e := mapOf(t, p, "totals").Entries[0]; string(e.Value.Data) != string(binary.NativeEndian.AppendUint64(nil, 5)) {
		t.Errorf("%x", e.Value.Data)
	}
	p = must(t, strings.Replace(plain, "sized: {", "sized: {keySize: 8, entries: [{key: 5, value: {packets: 1}}], ", 1))
	if e := mapOf(t, p, "sized").Entries[0]; string(e.Key.Data) != string(binary.NativeEndian.AppendUint64(nil, 5)) || len(e.Value.Data) != 16 {
		t.Errorf("%+v", e)
	}
}

// A map that is used only through a map of maps.
func TestInnerMap(t *testing.T) {
	p := must(t, "object: {file: optional.bpf.o}\nprograms: {nested: {direction: to-container}}\nmaps: {inner: {entries: [{key: 0, value: 7}]}}\n")
	if got, want := mapNames(p), []string{"inner", "outer"}; !slices.Equal(got, want) {
		t.Errorf("maps %v, want %v", got, want)
	}
	if got := results(t, p)["nested"]; got != 7 {
		t.Errorf("the program reads %d", got)
	}
}

func TestUnusedMap(t *testing.T) {
	p, err := prepare(t, "object: {file: plain.bpf.o}\nprograms: {connect4: {}}\nmaps: {sized: {maxEntries: 1}}\n")
	if err != nil {
		t.Fatal(err)
	}
	wantWarnings(t, p, []string{"p.yaml:3: maps.sized", "no selected program uses the map"})
	if got, want := mapNames(p), []string{"events", "prefixes", "ring"}; !slices.Equal(got, want) {
		t.Errorf("maps %v, want %v", got, want)
	}
}

const twoObjects = "objects: {a: {file: tail.bpf.o}, b: {file: other.bpf.o}}\n" +
	"programs: {a/entry: {}, b/far: {direction: to-container}}\n"

// Maps that both objects pin by name are one, others are not.
func TestPinnedByNameIsShared(t *testing.T) {
	p := must(t, twoObjects)
	if got, want := mapNames(p), []string{"a/filled", "a/private", "b/private", "shared"}; !slices.Equal(got, want) {
		t.Errorf("maps %v, want %v", got, want)
	}
	if m := mapOf(t, p, "shared"); !slices.Equal(m.Members, []specs.MapRef{{Object: "a", Symbol: "shared"}, {Object: "b", Symbol: "shared"}}) {
		t.Errorf("%+v", m)
	}
}

// One object's wish to share does not reach another object.
func TestPinnedInOneObjectOnly(t *testing.T) {
	p := must(t, "objects: {a: {file: tail.bpf.o}, c: {file: wild.bpf.o}}\nprograms: {entry: {}, wild: {}}\n")
	if got, want := mapNames(p), []string{"a/filled", "a/private", "c/shared", "shared"}; !slices.Equal(got, want) {
		t.Errorf("maps %v, want %v", got, want)
	}
}

func TestSharedByThePolicy(t *testing.T) {
	_, err := prepare(t, twoObjects+"maps: {private: {share: container}}\n")
	wantErrors(t, err, []string{"p.yaml:3: maps.private", "the objects a and b disagree about the maxEntries of map private", "maps: {private: {maxEntries: …}}"})

	p := must(t, twoObjects+"maps: {private: {maxEntries: 6}}\n")
	if got, want := mapNames(p), []string{"a/filled", "private", "shared"}; !slices.Equal(got, want) {
		t.Errorf("maps %v, want %v", got, want)
	}
	if _, err := p.Verify(t.Context()); err != nil {
		t.Error(err)
	}

	// A name with its object keeps even pinned maps apart.
	p = must(t, twoObjects+"maps: {a/shared: {maxEntries: 5}}\n")
	if got, want := mapNames(p), []string{"a/filled", "a/private", "a/shared", "b/private", "shared"}; !slices.Equal(got, want) {
		t.Errorf("maps %v, want %v", got, want)
	}
	_, err = prepare(t, twoObjects+"maps: {a/private: {maxEntries: 6}, private: {maxEntries: 6}}\n")
	wantErrors(t, err, []string{"p.yaml:3: maps.private", "map a/private stands at line 3 already"})
}

func TestMapsThatNobodyShares(t *testing.T) {
	const objects = "objects: {b: {builtin: meter}, c: {builtin: meter}}\n"
	p := must(t, objects+"maps: {meter: {share: container}}\n")
	if got := mapNames(p); !slices.Equal(got, []string{"meter"}) {
		t.Errorf("maps %v, want one for both objects", got)
	}
	p = must(t, objects+"maps: {meter: {share: nobody, maxEntries: 4}}\n")
	if got := mapNames(p); !slices.Equal(got, []string{"b/meter", "c/meter"}) {
		t.Errorf("maps %v, want one for each object", got)
	}
	for _, name := range []string{"b/meter", "c/meter"} {
		if m := mapOf(t, p, name); value32(m.MaxEntries) != uint32(4) || len(m.Members) != 1 {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestEntryWithoutKey(t *testing.T) {
	_, err := prepare(t, "object: {builtin: meter}\nmaps:\n  meter:\n    entries:\n      - {value: {packets: 1}}\n")
	wantErrors(t, err, []string{"p.yaml:5: maps.meter.entries[0]", "has a key", "add key:"})
}
