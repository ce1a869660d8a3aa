// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/*
 * One program for each kind of target. Each counts what it judges, so that a test
 * sees that every stage judges once: connections to port 9 and UDP to ports 10 and
 * 11 are refused, packets over IPv4 are counted on their way out.
 *
 * The object is compiled three times: as it is, as the SECOND version, and WITH_TRACING.
 * zzzzzz stands for a name that tells the objects of one test from all others.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define TCX_NEXT (-1)
#define TCX_DROP 2
#define NF_ACCEPT 1

enum { CONNECT, TCX, XDP, NETFILTER, TRACING, STAGES };

/* The second version counts behind the first one's counters, in a map that is larger. */
#ifdef SECOND
#define VERSIONS 2
#else
#define VERSIONS 1
#endif

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, VERSIONS * STAGES);
	__type(key, __u32);
	__type(value, __u64);
} zzzzzz_calls SEC(".maps");

static __always_inline void count(__u32 stage)
{
	__u64 *n;

	stage += (VERSIONS - 1) * STAGES;
	n = bpf_map_lookup_elem(&zzzzzz_calls, &stage);
	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline int is_udp(void *data, void *end, __u16 port)
{
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);

	return (void *)(udp + 1) <= end && eth->h_proto == bpf_htons(ETH_P_IP) && ip->ihl == 5 &&
	       ip->protocol == IPPROTO_UDP && udp->dest == bpf_htons(port);
}

SEC("cgroup/connect4")
int zzzzzz_connect(struct bpf_sock_addr *ctx)
{
	if (ctx->user_port != bpf_htons(9))
		return 1;
	count(CONNECT);
	return 0;
}

SEC("tcx/ingress")
int zzzzzz_tcx(struct __sk_buff *skb)
{
	if (!is_udp((void *)(long)skb->data, (void *)(long)skb->data_end, 10))
		return TCX_NEXT;
	count(TCX);
	return TCX_DROP;
}

SEC("xdp")
int zzzzzz_xdp(struct xdp_md *ctx)
{
	if (!is_udp((void *)(long)ctx->data, (void *)(long)ctx->data_end, 11))
		return XDP_PASS;
	count(XDP);
	return XDP_DROP;
}

SEC("netfilter")
int zzzzzz_nf(void *ctx)
{
	count(NETFILTER);
	return NF_ACCEPT;
}

#ifdef WITH_TRACING
const volatile __u64 container; /* cgroup id */

SEC("tp_btf/task_rename")
int zzzzzz_trace(__u64 *ctx)
{
	if (bpf_get_current_cgroup_id() == container)
		count(TRACING);
	return 0;
}
#endif

char LICENSE[] SEC("license") = "Dual BSD/GPL";
