// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// A program that the verifier refuses and one that it takes, which can call it. A
// map that is not pinned, with the name of one that is.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} shared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} calls SEC(".maps");

SEC("cgroup_skb/egress")
int wild(struct __sk_buff *skb)
{
	__u32 key = 7;
	__u32 *v = bpf_map_lookup_elem(&shared, &key);

	return *v;
}

SEC("cgroup_skb/ingress")
int tame(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &calls, 0);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
