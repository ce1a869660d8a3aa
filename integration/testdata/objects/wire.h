// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/*
 * Two versions of one object, for updates: each counts under its number the UDP packets
 * to port 9 that come out of a container, once in XDP and once in tc.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} at_xdp SEC(".maps"), at_tc SEC(".maps");

static __always_inline int ours(void *data, void *end)
{
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);

	return (void *)(udp + 1) <= end && eth->h_proto == bpf_htons(ETH_P_IP) &&
	       ip->protocol == IPPROTO_UDP && udp->dest == bpf_htons(9);
}

static __always_inline void count(void *map)
{
	__u32 version = VERSION;
	__u64 *n = bpf_map_lookup_elem(map, &version);

	if (n)
		__sync_fetch_and_add(n, 1);
}

SEC("xdp")
int wire_xdp(struct xdp_md *ctx)
{
	if (ours((void *)(long)ctx->data, (void *)(long)ctx->data_end))
		count(&at_xdp);
	return XDP_PASS;
}

SEC("tcx/ingress")
int wire_tc(struct __sk_buff *skb)
{
	if (ours((void *)(long)skb->data, (void *)(long)skb->data_end))
		count(&at_tc);
	return -1; /* TCX_NEXT */
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
