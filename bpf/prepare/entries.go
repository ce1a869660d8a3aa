// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/bpf/value"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
	"github.com/linkpin/linkpin/specs/policy"
)

// encodeEntries turns the entries of all maps into bytes.
func (w *preparer) encodeEntries() {
	for _, g := range w.groups {
		if g.policy == nil || len(g.policy.Entries) == 0 {
			continue
		}
		if why := noEntries(g.spec.Type); why != "" {
			w.fail(g.policy.Entries[0].Pos, "remove entries:", "a map of type %s takes no entries from a policy: %s", g.spec.Type, why)
			continue
		}
		w.encodeGroup(g)
	}
}

// noEntries says why a policy can't fill maps of a type.
func noEntries(t ebpf.MapType) string {
	switch t {
	case ebpf.ProgramArray:
		return "its programs stand under programs:"
	case ebpf.ArrayOfMaps, ebpf.HashOfMaps:
		return "it holds maps"
	case ebpf.PerfEventArray, ebpf.RingBuf, ebpf.UserRingbuf, ebpf.Arena, ebpf.StackTrace:
		return "it holds no values"
	case ebpf.SockMap, ebpf.SockHash, ebpf.XSKMap, ebpf.ReusePortSockArray:
		return "it holds sockets"
	case ebpf.CGroupArray:
		return "it holds cgroups"
	case ebpf.SkStorage, ebpf.InodeStorage, ebpf.TaskStorage, ebpf.CgroupStorage, ebpf.CGroupStorage, ebpf.PerCPUCGroupStorage:
		return "its keys are objects of the kernel"
	}
	return ""
}

func (w *preparer) encodeGroup(g *group) {
	keyType := g.member.Key
	if g.spec.KeySize != g.member.KeySize {
		keyType = nil
	}
	keys := map[string]policy.Pos{}
	for i, pe := range g.policy.Entries {
		var e specs.PlanEntry
		var err error
		if e.Key, err = w.encodeKey(g, keyType, pe); err == nil {
			e.Value, err = encodeValue(g.member.Value, g.spec.ValueSize, pe.Value)
		}
		if err != nil {
			w.failed(pe.Pos, asFault(pe.Pos, err))
			continue
		}
		if len(e.Key.Holes) == 0 && len(e.Key.Data) > 0 {
			if first, ok := keys[string(e.Key.Data)]; ok {
				w.fail(pe.Pos, "remove one of them", "the key stands at line %d already", first.Line)
			}
			keys[string(e.Key.Data)] = pe.Pos
		}
		w.checkRoom(g, i, pe, e)
		g.plan.Entries, g.places = append(g.plan.Entries, e), append(g.places, pe.Pos)
	}
}

func (w *preparer) encodeKey(g *group, t btf.Type, pe policy.MapEntry) (specs.Bytes, error) {
	if g.spec.KeySize == 0 {
		if pe.Key != nil {
			w.fail(pe.Key.Pos, "remove key:", "a map of type %s has no keys", g.spec.Type)
		}
		return specs.Bytes{}, nil
	}
	if pe.Key == nil {
		return specs.Bytes{}, fault.Newf(pe.Pos.String(), fmt.Sprintf("an entry of a map of type %s has a key", g.spec.Type), "add key:").WithExit(fault.ExitInput)
	}
	return value.EncodeKey(t, g.spec.KeySize, g.spec.Type, pe.Key)
}

// encodeValue goes by BTF as long as the policy has not changed the size.
func encodeValue(t btf.Type, size uint32, v *policy.Value) (specs.Bytes, error) {
	if n, err := btf.Sizeof(t); t != nil && err == nil && n == int(size) {
		return value.Encode(t, v)
	}
	return value.EncodeSized(size, v)
}

// checkRoom finds entries for which the map is too small.
func (w *preparer) checkRoom(g *group, i int, pe policy.MapEntry, e specs.PlanEntry) {
	n := g.spec.MaxEntries
	if indexed := []ebpf.MapType{ebpf.Array, ebpf.PerCPUArray, ebpf.DevMap}; slices.Contains(indexed, g.spec.Type) {
		if len(e.Key.Data) == 4 && len(e.Key.Holes) == 0 {
			if index := binary.NativeEndian.Uint32(e.Key.Data); index >= n {
				w.fail(pe.Pos, "make it larger: "+g.field("maxEntries"), "map %s is too small: it has %d entries, so there is no index %d", g.plan.Name, n, index)
			}
		}
		return
	}
	if n > 0 && uint32(i) == n { // those after it are not worth errors of their own
		w.fail(pe.Pos, "make it larger: "+g.field("maxEntries"), "map %s is too small: it has room for %d entries, and the policy has %d", g.plan.Name, n, len(g.policy.Entries))
	}
}
