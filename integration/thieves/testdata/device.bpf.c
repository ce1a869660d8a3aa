// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Six programs for the two ends of a veth pair. Each drops UDP to (or, on the way
 * into the container, from) a port of its own; see ports.go. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NEXT (-1)
#define DROP 2

/* Reads the ports of UDP over IPv4; 0 for everything else. */
static __always_inline __u32 ports(void *data, void *end)
{
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 || ip->protocol != IPPROTO_UDP)
		return 0;
	return (__u32)bpf_ntohs(udp->source) << 16 | bpf_ntohs(udp->dest);
}

#define SENT(ctx) (ports((void *)(long)(ctx)->data, (void *)(long)(ctx)->data_end) & 0xffff)
#define RECEIVED(ctx) (ports((void *)(long)(ctx)->data, (void *)(long)(ctx)->data_end) >> 16)

SEC("tcx/ingress")
int host_sent(struct __sk_buff *skb)
{
	return SENT(skb) == 2001 ? DROP : NEXT;
}

SEC("tcx/egress")
int host_received(struct __sk_buff *skb)
{
	return RECEIVED(skb) == 2002 ? DROP : NEXT;
}

SEC("xdp")
int host_xdp(struct xdp_md *ctx)
{
	return SENT(ctx) == 2003 ? XDP_DROP : XDP_PASS;
}

SEC("tcx/egress")
int ctr_sent(struct __sk_buff *skb)
{
	return SENT(skb) == 3001 ? DROP : NEXT;
}

SEC("tcx/ingress")
int ctr_received(struct __sk_buff *skb)
{
	return RECEIVED(skb) == 3002 ? DROP : NEXT;
}

SEC("xdp")
int ctr_xdp(struct xdp_md *ctx)
{
	return RECEIVED(ctx) == 3003 ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
