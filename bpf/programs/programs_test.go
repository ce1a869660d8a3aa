// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

func spec(t *testing.T, name string) *ebpf.CollectionSpec {
	t.Helper()
	object, err := Object(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestObject(t *testing.T) {
	if want := []string{"egress", "meter"}; !slices.Equal(Names(), want) {
		t.Errorf("names %q, want %q", Names(), want)
	}
	for _, name := range Names() {
		spec(t, name)
	}
	a, _ := Object("meter")
	clear(a)
	spec(t, "meter") // not changed through the copy
	if _, err := Object("../egress"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown object: %v, want ErrUnknown", err)
	}
}

// TestInterface: the names that policies, docs and listings use.
func TestInterface(t *testing.T) {
	for name, want := range map[string]struct {
		sections  map[string]string
		maps      map[string]ebpf.MapType
		variables []string
	}{
		"egress": {
			sections: map[string]string{
				"post_bind4": "cgroup/post_bind4", "post_bind6": "cgroup/post_bind6",
				"connect4": "cgroup/connect4", "connect6": "cgroup/connect6",
				"sendmsg4": "cgroup/sendmsg4", "sendmsg6": "cgroup/sendmsg6",
				"skb_egress": "cgroup_skb/egress", "skb_ingress": "cgroup_skb/ingress",
				"from_container": "tcx/egress", "to_container": "tcx/ingress",
			},
			maps: map[string]ebpf.MapType{
				"allow": ebpf.LPMTrie, "deny": ebpf.LPMTrie,
				"flows_tcp": ebpf.LRUHash, "flows_other": ebpf.LRUHash, "socket_netns": ebpf.SkStorage,
				"denied": ebpf.LRUHash, "events": ebpf.RingBuf, "stats": ebpf.PerCPUArray,
				".rodata": ebpf.Array,
			},
			variables: []string{"allow_replies", "default_deny", "reply_seconds"},
		},
		"meter": {
			sections:  map[string]string{"skb_egress": "cgroup_skb/egress", "skb_ingress": "cgroup_skb/ingress"},
			maps:      map[string]ebpf.MapType{"meter": ebpf.PerCPUArray},
			variables: nil,
		},
	} {
		s := spec(t, name)
		sections := map[string]string{}
		for symbol, p := range s.Programs {
			sections[symbol] = p.SectionName
			if p.License != "Dual BSD/GPL" {
				t.Errorf("%s: license %q", symbol, p.License)
			}
		}
		if !maps.Equal(sections, want.sections) {
			t.Errorf("%s: programs %q, want %q", name, sections, want.sections)
		}
		types := map[string]ebpf.MapType{}
		for symbol, m := range s.Maps {
			types[symbol] = m.Type
		}
		if !maps.Equal(types, want.maps) {
			t.Errorf("%s: maps %v, want %v", name, types, want.maps)
		}
		if got := slices.Sorted(maps.Keys(s.Variables)); !slices.Equal(got, want.variables) {
			t.Errorf("%s: variables %q, want %q", name, got, want.variables)
		}
	}
}

// TestRuleBTF: `allow: {entries: [{key: {prefix: 10.0.0.0/8}, value: {port: 443, proto: tcp}}]}`
// needs just these types.
func TestRuleBTF(t *testing.T) {
	for _, name := range []string{"allow", "deny"} {
		m := spec(t, "egress").Maps[name]
		key, ok := m.Key.(*btf.Struct)
		if !ok || len(key.Members) != 2 || key.Members[0].Name != "prefixlen" || key.Members[1].Name != "addr" || key.Members[1].Offset.Bytes() != 4 || m.KeySize != 20 {
			t.Errorf("%s: key %+v", name, m.Key)
		}
		rules, ok := m.Value.(*btf.Array)
		if !ok || rules.Nelems != 8 || m.ValueSize != 64 {
			t.Fatalf("%s: value %+v", name, m.Value)
		}
		r := rules.Type.(*btf.Struct)
		var fields []string
		for _, f := range r.Members {
			fields = append(fields, f.Name)
		}
		if want := []string{"proto", "port", "port_end"}; !slices.Equal(fields, want) {
			t.Errorf("%s: fields %q, want %q", name, fields, want)
		}
		proto := r.Members[0].Type.(*btf.Enum)
		if !slices.Contains(proto.Values, btf.EnumValue{Name: "tcp", Value: 6}) || proto.Signed {
			t.Errorf("%s: protocols %+v", name, proto)
		}
	}
	var event *btf.Struct
	if err := spec(t, "egress").Types.TypeByName("event", &event); err != nil || event.Size != 48 {
		t.Errorf("struct event in BTF: %v, %v", event, err)
	}
}

// TestNoPaths: an object holds no path of the machine that compiled it.
func TestNoPaths(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		object, err := Object(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{wd, filepath.Dir(filepath.Dir(filepath.Dir(wd))) + "/", "/usr/", "/home/", "/tmp/"} {
			if bytes.Contains(object, []byte(path)) {
				t.Errorf("%s contains %s", name, path)
			}
		}
	}
}

// TestAttach: every cgroup program takes a link, so that it can be pinned.
func TestAttach(t *testing.T) {
	cgroup, err := os.Open(bpftest.Cgroup(t))
	if err != nil {
		t.Fatal(err)
	}
	defer cgroup.Close()
	for _, name := range Names() {
		s := spec(t, name)
		c, err := ebpf.NewCollection(s)
		if err != nil {
			t.Fatalf("%+v", err)
		}
		defer c.Close()
		for symbol, p := range c.Programs {
			if s.Programs[symbol].Type == ebpf.SchedCLS {
				continue // see TestSockets
			}
			l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(cgroup.Fd()), Program: p, Attach: s.Programs[symbol].AttachType})
			if err != nil {
				t.Errorf("%s: %v", symbol, err)
				continue
			}
			l.Close()
		}
	}
}
