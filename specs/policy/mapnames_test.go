// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/policy"
)

func TestMapType(t *testing.T) {
	for name, want := range map[string]ebpf.MapType{
		"hash": ebpf.Hash, "array": ebpf.Array, "prog_array": ebpf.ProgramArray, "perf_event_array": ebpf.PerfEventArray,
		"percpu_hash": ebpf.PerCPUHash, "percpu_array": ebpf.PerCPUArray, "stack_trace": ebpf.StackTrace,
		"cgroup_array": ebpf.CGroupArray, "lru_hash": ebpf.LRUHash, "lru_percpu_hash": ebpf.LRUCPUHash,
		"lpm_trie": ebpf.LPMTrie, "array_of_maps": ebpf.ArrayOfMaps, "hash_of_maps": ebpf.HashOfMaps,
		"devmap": ebpf.DevMap, "sockmap": ebpf.SockMap, "cpumap": ebpf.CPUMap, "xskmap": ebpf.XSKMap,
		"sockhash": ebpf.SockHash, "cgroup_storage": ebpf.CGroupStorage, "reuseport_sockarray": ebpf.ReusePortSockArray,
		"percpu_cgroup_storage": ebpf.PerCPUCGroupStorage, "queue": ebpf.Queue, "stack": ebpf.Stack,
		"sk_storage": ebpf.SkStorage, "devmap_hash": ebpf.DevMapHash, "ringbuf": ebpf.RingBuf,
		"inode_storage": ebpf.InodeStorage, "task_storage": ebpf.TaskStorage, "bloom_filter": ebpf.BloomFilter,
		"user_ringbuf": ebpf.UserRingbuf, "cgrp_storage": ebpf.CgroupStorage, "arena": ebpf.Arena,
	} {
		if got, ok := policy.MapType(name); !ok || got != uint32(want) {
			t.Errorf("%s is %d, want %d", name, got, uint32(want))
		}
	}
	for _, name := range []string{"", "HASH", "struct_ops", "unspec", "lpm-trie"} {
		if _, ok := policy.MapType(name); ok {
			t.Errorf("%q is a map type", name)
		}
	}
}

func TestMapFlag(t *testing.T) {
	for name, want := range map[string]uint32{
		"no_prealloc": unix.BPF_F_NO_PREALLOC, "no_common_lru": unix.BPF_F_NO_COMMON_LRU, "rdonly": unix.BPF_F_RDONLY,
		"wronly": unix.BPF_F_WRONLY, "stack_build_id": unix.BPF_F_STACK_BUILD_ID, "zero_seed": unix.BPF_F_ZERO_SEED,
		"rdonly_prog": unix.BPF_F_RDONLY_PROG, "wronly_prog": unix.BPF_F_WRONLY_PROG, "clone": unix.BPF_F_CLONE,
		"mmapable": unix.BPF_F_MMAPABLE, "preserve_elems": unix.BPF_F_PRESERVE_ELEMS, "inner_map": unix.BPF_F_INNER_MAP,
		"segv_on_fault": 1 << 17, "no_user_conv": 1 << 18,
	} {
		if got, ok := policy.MapFlag(name); !ok || got != want {
			t.Errorf("%s is %#x, want %#x", name, got, want)
		}
	}
	for _, name := range []string{"", "numa_node", "token_fd", "NO_PREALLOC"} {
		if _, ok := policy.MapFlag(name); ok {
			t.Errorf("%q is a flag", name)
		}
	}
}
