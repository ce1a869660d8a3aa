// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/linkpin/linkpin/specs"
)

func fullRecord() Record {
	rec := someRecord("egress-web")
	rec.Generation = "7-abc"
	rec.Identity = specs.Identity{
		Caller: specs.CallerCRIO, ContainerID: "web", Container: "c", Pod: "p", Namespace: "n", Image: "i",
		SandboxID: "4f", Network: "net", Annotations: map[string]string{"a\n\"": "\x00ü<&>"},
		Requests: []string{"egress-web"},
	}
	rec.Bundle, rec.PID, rec.Start = "/run/web", 42, 1<<60
	rec.Cgroup.ID = 1<<64 - 1
	rec.Netns = &NetnsRecord{Path: "/proc/42/ns/net", Inode: 4026531840, Cookie: 1<<64 - 1}
	rec.Interface = &InterfaceRecord{Network: "net", Name: "eth0", Index: 2, PeerName: "veth1", PeerIndex: 9, Kind: "veth", Addresses: []string{"192.0.2.2/24"}, DiesWithNetns: true}
	rec.Sandbox, rec.Uncovered = SandboxKey("4f"), []string{"packet sockets"}
	rec.Programs = append(rec.Programs, ProgramRecord{
		Name: "nf@2", Key: "nf", Hook: specs.HookNetfilter, Target: specs.TargetNetns, Side: specs.SideHost, Mode: specs.XDPGeneric, Ifindex: 9,
		Netfilter: &specs.Netfilter{Family: "ipv4", Hook: "input", Priority: -128}, LinkID: 1<<32 - 1, ProgramID: 5, Tag: "cd",
		Filter: &FilterRecord{Priority: 1<<16 - 1, Handle: 1<<32 - 1, Protocol: "all", Name: "linkpin:a/b", MadeQdisc: true},
	})
	rec.Maps = []string{"allow", "obj/.rodata"}
	return rec
}

func TestRecordComesBack(t *testing.T) {
	r := newRoot(t)
	for _, rec := range []Record{fullRecord(), {}} {
		p := ContainerEntry(childOwner.Key(), "p")
		l := lock(t, r, childOwner)
		s, err := r.Stage()
		if err != nil {
			t.Fatal(err)
		}
		now := time.Date(2025, 3, 4, 5, 6, 7, 8, time.UTC)
		r.now = func() time.Time { return now }
		must(t, s.WriteRecord(rec))
		must(t, s.Publish(p))
		got, err := entry(t, r, p).Record()
		if err != nil {
			t.Fatal(err)
		}
		rec.Version = RecordVersion
		if rec.Created.IsZero() {
			rec.Created = now
		}
		if !reflect.DeepEqual(got, rec) {
			t.Errorf("got  %+v\nwant %+v", got, rec)
		}
		must(t, entry(t, r, p).Remove())
		release(t, l)
	}
}

// Every field of a record must survive, also those that are added later.
func TestRecordHasNoForgottenField(t *testing.T) {
	var zero func(v reflect.Value, path string)
	zero = func(v reflect.Value, path string) {
		switch v.Kind() {
		case reflect.Pointer:
			if v.IsNil() {
				t.Errorf("%s is not set in fullRecord", path)
				return
			}
			zero(v.Elem(), path)
		case reflect.Struct:
			if v.Type() == reflect.TypeFor[time.Time]() {
				return
			}
			for i := range v.NumField() {
				zero(v.Field(i), path+"."+v.Type().Field(i).Name)
			}
		default:
			if v.IsZero() && !strings.HasSuffix(path, ".Version") && !strings.HasSuffix(path, ".Defrag") {
				t.Errorf("%s is not set in fullRecord", path)
			}
		}
	}
	rec := fullRecord()
	zero(reflect.ValueOf(rec), "Record")
	zero(reflect.ValueOf(rec.Programs[1]), "ProgramRecord")
}

// pinMeta pins a map in the place of an entry's record.
func pinMeta(t *testing.T, r *Root, p Place, spec *ebpf.MapSpec, value []byte, freeze func(*ebpf.Map) error) {
	t.Helper()
	spec.KeySize = max(spec.KeySize, 4)
	m, err := ebpf.NewMap(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	must(t, m.Put(make([]byte, spec.KeySize), value))
	must(t, freeze(m))
	path := filepath.Join(r.Path(), p.String(), recordFile)
	os.Remove(path)
	must(t, m.Pin(path))
}

func metaValue(text string) []byte {
	value := make([]byte, (metaHeader+len(text)+7)/8*8)
	binary.LittleEndian.PutUint32(value, uint32(len(text)))
	copy(value[metaHeader:], text)
	return value
}

func TestDamagedRecords(t *testing.T) {
	r := newRoot(t)
	p := ContainerEntry(childOwner.Key(), "p")
	publish(t, r, p)
	good, err := encodeMeta(func() Record { rec := fullRecord(); rec.Version = RecordVersion; return rec }())
	if err != nil {
		t.Fatal(err)
	}
	freeze := (*ebpf.Map).Freeze
	leave := func(*ebpf.Map) error { return nil }
	array := func(value []byte) *ebpf.MapSpec {
		return &ebpf.MapSpec{Type: ebpf.Array, ValueSize: uint32(len(value)), MaxEntries: 1}
	}
	patched := func(change func(v []byte)) []byte {
		v := append([]byte(nil), good...)
		change(v)
		return v
	}
	size := binary.LittleEndian.Uint32(good)
	type test struct {
		spec   *ebpf.MapSpec
		value  []byte
		freeze func(*ebpf.Map) error
		want   error
	}
	tests := map[string]test{
		"good":        {array(good), good, freeze, nil},
		"unfrozen":    {array(good), good, leave, ErrUnfrozen},
		"hash":        {&ebpf.MapSpec{Type: ebpf.Hash, ValueSize: uint32(len(good)), MaxEntries: 1}, good, freeze, ErrDamaged},
		"LRU hash":    {&ebpf.MapSpec{Type: ebpf.LRUHash, ValueSize: uint32(len(good)), MaxEntries: 1}, good, freeze, ErrDamaged},
		"two entries": {&ebpf.MapSpec{Type: ebpf.Array, ValueSize: uint32(len(good)), MaxEntries: 2}, good, freeze, ErrDamaged},
		"wide key":    {&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: uint32(len(good)), MaxEntries: 1}, good, freeze, ErrDamaged},
	}
	for name, value := range map[string][]byte{
		"oversized":     metaValue(`{"version":1,"policy":"` + strings.Repeat("x", MaxRecord) + `"}`),
		"tiny":          {0, 0},
		"empty":         metaValue(""),
		"zeros":         make([]byte, 64),
		"torn length":   patched(func(v []byte) { binary.LittleEndian.PutUint32(v, size+8) }),
		"huge length":   patched(func(v []byte) { binary.LittleEndian.PutUint32(v, 1<<32-1) }),
		"short length":  patched(func(v []byte) { binary.LittleEndian.PutUint32(v, size-1) }),
		"torn text":     patched(func(v []byte) { clear(v[len(v)/2:]) }),
		"padding":       append(append([]byte(nil), good...), make([]byte, 8)...),
		"rest":          append(metaValue(`{"version":1}`)[:metaHeader+13], "x      "...),
		"not JSON":      metaValue(`version: 1`),
		"two documents": metaValue(`{"version":1}{}`),
		"no version":    metaValue(`{}`),
		"other version": metaValue(`{"version":2,"policy":7}`),
		"wrong type":    metaValue(`{"version":1,"policy":7}`),
	} {
		tests[name] = test{array(value), value, freeze, ErrDamaged}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			pinMeta(t, r, p, tt.spec, tt.value, tt.freeze)
			_, err := entry(t, r, p).Record()
			if tt.want == nil {
				must(t, err)
				return
			}
			wantError(t, err, tt.want)
			if !strings.Contains(err.Error(), filepath.Join(r.Path(), p.String(), recordFile)) {
				t.Errorf("error %q does not name the file", err)
			}
		})
	}
}

func TestRecordMissingOrNoMap(t *testing.T) {
	r := newRoot(t)
	p := ContainerEntry(childOwner.Key(), "p")
	publish(t, r, p)
	path := filepath.Join(r.Path(), p.String(), recordFile)
	must(t, os.Remove(path))
	_, err := entry(t, r, p).Record()
	wantError(t, err, ErrNoRecord)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	must(t, prog.Pin(path))
	_, err = entry(t, r, p).Record()
	wantError(t, err, ErrDamaged)
}

// Nobody can change a record, by whatever descriptor.
func TestRecordIsFrozen(t *testing.T) {
	r := newRoot(t)
	p := ContainerEntry(childOwner.Key(), "p")
	publish(t, r, p)
	m, err := ebpf.LoadPinnedMap(filepath.Join(r.Path(), p.String(), recordFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Put(uint32(0), make([]byte, m.ValueSize())); err == nil {
		t.Error("the record was overwritten")
	}
}

func TestNewerFieldsAreIgnored(t *testing.T) {
	rec, err := decodeMeta(metaValue(`{"version":1,"policy":"p","somethingNew":[1]}`))
	if err != nil || rec.Policy != "p" {
		t.Errorf("%+v, %v", rec, err)
	}
}

func FuzzDecodeMeta(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(metaValue(`{"version":1,"policy":"p"}`))
	f.Add(metaValue(`{"version":1}{}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		rec, err := decodeMeta(value)
		if err != nil {
			return
		}
		again, err := encodeMeta(rec)
		if err != nil {
			t.Fatalf("%+v can't be written: %v", rec, err)
		}
		if back, err := decodeMeta(again); err != nil || back.Policy != rec.Policy {
			t.Fatalf("%+v, %v; want %+v", back, err, rec)
		}
	})
}
