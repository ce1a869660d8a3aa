// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// An XDP program as anybody might bring it: it drops one kind of IPv4 packet, and
// counts what it drops. It knows nothing of linkpin: the policy sets its constants.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

volatile const __u8 protocol; // IP protocol number
volatile const __u16 port;    // destination port; 0: any, and protocols without ports

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} dropped SEC(".maps");

SEC("xdp")
int guard(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	__u16 *ports = (void *)(ip + 1);
	__u32 key = 0;
	__u64 *count;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != protocol)
		return XDP_PASS;
	if (port && ((void *)(ports + 2) > end || ip->ihl != 5 || ports[1] != bpf_htons(port)))
		return XDP_PASS;
	count = bpf_map_lookup_elem(&dropped, &key);
	if (count)
		*count += 1;
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
