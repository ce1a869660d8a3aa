// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"slices"
)

// mapTypes are the names of enum bpf_map_type (include/uapi/linux/bpf.h, 6.18) in
// lower case; the index is the number. Those that a policy can't name are empty.
var mapTypes = []string{
	1: "hash", 2: "array", 3: "prog_array", 4: "perf_event_array", 5: "percpu_hash", 6: "percpu_array",
	7: "stack_trace", 8: "cgroup_array", 9: "lru_hash", 10: "lru_percpu_hash", 11: "lpm_trie",
	12: "array_of_maps", 13: "hash_of_maps", 14: "devmap", 15: "sockmap", 16: "cpumap", 17: "xskmap",
	18: "sockhash", 19: "cgroup_storage", 20: "reuseport_sockarray", 21: "percpu_cgroup_storage",
	22: "queue", 23: "stack", 24: "sk_storage", 25: "devmap_hash", 27: "ringbuf", 28: "inode_storage",
	29: "task_storage", 30: "bloom_filter", 31: "user_ringbuf", 32: "cgrp_storage", 33: "arena",
}

// mapFlags are the BPF_F_* of map creation (the same file) in lower case without
// the prefix. Those that need a descriptor or a NUMA node beside them are missing.
var mapFlags = map[string]uint32{
	"no_prealloc":    1 << 0,
	"no_common_lru":  1 << 1,
	"rdonly":         1 << 3,
	"wronly":         1 << 4,
	"stack_build_id": 1 << 5,
	"zero_seed":      1 << 6,
	"rdonly_prog":    1 << 7,
	"wronly_prog":    1 << 8,
	"clone":          1 << 9,
	"mmapable":       1 << 10,
	"preserve_elems": 1 << 11,
	"inner_map":      1 << 12,
	"segv_on_fault":  1 << 17,
	"no_user_conv":   1 << 18,
}

// MapType returns the BPF_MAP_TYPE_* that a policy calls name ("lpm_trie").
func MapType(name string) (number uint32, ok bool) {
	i := slices.Index(mapTypes, name)
	if name == "" || i < 0 {
		return 0, false
	}
	return uint32(i), true
}

// MapFlag returns the BPF_F_* that a policy calls name ("no_prealloc").
func MapFlag(name string) (bit uint32, ok bool) {
	bit, ok = mapFlags[name]
	return bit, ok
}

// mapTypeNames are the names that MapType knows.
func mapTypeNames() []string {
	return slices.DeleteFunc(slices.Clone(mapTypes), func(s string) bool { return s == "" })
}

// mapFlagNames are the names that MapFlag knows.
func mapFlagNames() []string {
	return slices.Sorted(maps.Keys(mapFlags))
}
