// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"math/bits"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// demand is what the kernel wants of the sizes of a map type.
type demand struct {
	key, value uint32 // bytes to put where the object says 0
	noKey      bool   // the kernel refuses a key size
	noValue    bool   // the kernel refuses a value size
	noEntries  bool   // the kernel refuses max_entries
	prealloc   bool   // false needs BPF_F_NO_PREALLOC
}

// demands follow the checks of map creation (map_alloc_check) in the kernel, 6.18.
// Types that are not listed take any sizes but 0.
var demands = map[ebpf.MapType]demand{
	ebpf.Array:               {key: 4, prealloc: true},
	ebpf.PerCPUArray:         {key: 4, prealloc: true},
	ebpf.ProgramArray:        {key: 4, value: 4, prealloc: true},
	ebpf.PerfEventArray:      {key: 4, value: 4, prealloc: true},
	ebpf.StackTrace:          {key: 4, prealloc: true},
	ebpf.CGroupArray:         {key: 4, value: 4, prealloc: true},
	ebpf.ArrayOfMaps:         {key: 4, value: 4, prealloc: true},
	ebpf.HashOfMaps:          {value: 4, prealloc: true},
	ebpf.DevMap:              {key: 4, value: 4, prealloc: true},
	ebpf.DevMapHash:          {key: 4, value: 4, prealloc: true},
	ebpf.SockMap:             {key: 4, value: 4, prealloc: true},
	ebpf.SockHash:            {value: 4, prealloc: true},
	ebpf.CPUMap:              {key: 4, value: 4, prealloc: true},
	ebpf.XSKMap:              {key: 4, value: 4, prealloc: true},
	ebpf.ReusePortSockArray:  {key: 4, value: 8, prealloc: true},
	ebpf.Queue:               {noKey: true, prealloc: true},
	ebpf.Stack:               {noKey: true, prealloc: true},
	ebpf.BloomFilter:         {noKey: true, prealloc: true},
	ebpf.RingBuf:             {noKey: true, noValue: true, prealloc: true},
	ebpf.UserRingbuf:         {noKey: true, noValue: true, prealloc: true},
	ebpf.Arena:               {noKey: true, noValue: true, prealloc: true},
	ebpf.LPMTrie:             {},
	ebpf.SkStorage:           {key: 4, noEntries: true},
	ebpf.InodeStorage:        {key: 4, noEntries: true},
	ebpf.TaskStorage:         {key: 4, noEntries: true},
	ebpf.CgroupStorage:       {key: 4, noEntries: true},
	ebpf.CGroupStorage:       {key: cgroupStorageKey, noEntries: true, prealloc: true},
	ebpf.PerCPUCGroupStorage: {key: cgroupStorageKey, noEntries: true, prealloc: true},
}

// cgroupStorageKey is sizeof(struct bpf_cgroup_storage_key).
const cgroupStorageKey = 16

// mend fills in what the object leaves to its loader.
func (w *preparer) mend(g *group) {
	d, special := demands[g.spec.Type]
	w.mendSize(g, &g.plan.KeySize, g.spec.KeySize, d.key, d.noKey, "keySize")
	w.mendSize(g, &g.plan.ValueSize, g.spec.ValueSize, d.value, d.noValue, "valueSize")
	if special && !d.prealloc && g.spec.Flags&unix.BPF_F_NO_PREALLOC == 0 {
		g.plan.Flags = new(g.spec.Flags | unix.BPF_F_NO_PREALLOC)
	}
	w.mendEntries(g, d)
	w.mendInner(g)
}

// mendSize settles the size of keys or values, in bytes.
func (w *preparer) mendSize(g *group, said **uint32, size, fallback uint32, none bool, field string) {
	switch {
	case none && size != 0:
		*said = new(uint32(0))
	case none || size != 0:
	case fallback != 0:
		*said = &fallback
	default:
		w.fail(g.pos, "say it: "+g.field(field), "map %s of type %s has %s 0", g.plan.Name, g.spec.Type, field)
	}
}

func (w *preparer) mendEntries(g *group, d demand) {
	n := g.spec.MaxEntries
	switch t := g.spec.Type; {
	case d.noEntries:
		if n != 0 {
			g.plan.MaxEntries = new(uint32(0))
		}
	case t == ebpf.PerfEventArray || t == ebpf.CPUMap:
		// The library puts the number of CPUs for 0 and for what is above it.
	case n == 0:
		w.fail(g.pos, "say it: "+g.field("maxEntries"), "map %s leaves its size to the loader (max_entries 0)", g.plan.Name)
	case t == ebpf.RingBuf || t == ebpf.UserRingbuf:
		size := ringSize(n)
		switch {
		case size == n:
		case g.policy != nil && g.policy.MaxEntries != nil:
			w.fail(g.policy.Pos, "", "maxEntries of a ring buffer is its size in bytes, a power of two and at least a page: not %d but %d", n, size)
		default:
			g.plan.MaxEntries = &size
		}
	}
}

// ringSize rounds up to what the kernel takes for a ring buffer, as libbpf does
// (adjust_ringbuf_sz).
func ringSize(n uint32) uint32 {
	page := uint32(os.Getpagesize())
	if n <= page {
		return page
	}
	if n > 1<<31 {
		return 1 << 31
	}
	return 1 << bits.Len32(n-1)
}

func (w *preparer) mendInner(g *group) {
	of := g.spec.Type == ebpf.ArrayOfMaps || g.spec.Type == ebpf.HashOfMaps
	switch {
	case !of && g.plan.Inner != nil:
		w.fail(g.pos, "remove inner:", "map %s of type %s holds no maps", g.plan.Name, g.spec.Type)
	case of && g.spec.InnerMap == nil:
		w.fail(g.pos, "say it: "+g.field("inner"), "map %s holds maps, and its object does not say what they are like", g.plan.Name)
	case of && g.spec.InnerMap.Type == ebpf.LPMTrie && g.spec.InnerMap.Flags&unix.BPF_F_NO_PREALLOC == 0 && g.plan.Inner != nil:
		g.plan.Inner.Flags |= unix.BPF_F_NO_PREALLOC
	}
}
