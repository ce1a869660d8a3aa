// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/*
 * Two versions of one object, for updates: each counts under its number what it sees.
 * Connections are let to the ports that the policy names.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, NUMBER);
} connects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u16); /* in network order */
	__type(value, __u8);
} ports SEC(".maps");

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	__u32 version = VERSION;
	__u16 port = ctx->user_port;
	NUMBER one = 1, *n = bpf_map_lookup_elem(&connects, &version);

	if (!n && bpf_map_update_elem(&connects, &version, &one, BPF_NOEXIST))
		n = bpf_map_lookup_elem(&connects, &version);
	if (n)
		__sync_fetch_and_add(n, 1);
	return bpf_map_lookup_elem(&ports, &port) ? 1 : 0;
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	__u32 version = VERSION;
	__u64 *n = bpf_map_lookup_elem(&packets, &version);

	if (n)
		__sync_fetch_and_add(n, 1);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
