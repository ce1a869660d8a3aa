// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// A second object: tail-call targets, and maps and variables of names that
// tail.bpf.c has too.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} shared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} private SEC(".maps");

volatile const __u32 limit = 1;

SEC("tc")
int far(struct __sk_buff *skb)
{
	__u32 key = 0;

	bpf_map_update_elem(&private, &key, &key, BPF_ANY);
	bpf_map_update_elem(&shared, &key, &key, BPF_ANY);
	return limit;
}

SEC("tc")
int step(struct __sk_buff *skb)
{
	return 8;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
