// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// A second object of one policy: a tail-call target, and a map that it shares
// with basic.bpf.c.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} verdicts SEC(".maps");

volatile const __u32 limit = 5;

SEC("tc")
int far_landing(struct __sk_buff *skb)
{
	return 43;
}

SEC("tc")
int write_verdict(struct __sk_buff *skb)
{
	__u32 key = 7, value = 99;

	bpf_map_update_elem(&verdicts, &key, &value, BPF_ANY);
	return limit;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
