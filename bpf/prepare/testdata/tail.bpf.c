// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// Tail calls: a program array that its object fills, and one that it leaves empty.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

int filled_target(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__array(values, int(void *));
} filled SEC(".maps") = {.values = {[1] = (void *)&filled_target}};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
} empty SEC(".maps");

// Pinned by name: one map for all objects of a policy.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} shared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} private SEC(".maps");

SEC("xdp")
int entry(struct xdp_md *ctx)
{
	__u32 key = 0;

	bpf_map_update_elem(&private, &key, &key, BPF_ANY);
	bpf_map_update_elem(&shared, &key, &key, BPF_ANY);
	bpf_tail_call(ctx, &filled, 1);
	return XDP_PASS;
}

SEC("xdp.frags")
int filled_target(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("tcx/egress")
int caller(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &empty, 0);
	return -1;
}

SEC("cgroup/connect4")
int sock_caller(struct bpf_sock_addr *ctx)
{
	bpf_tail_call(ctx, &empty, 0);
	return 1;
}

SEC("steps")
int step(struct __sk_buff *skb)
{
	return 7;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
