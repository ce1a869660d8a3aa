/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Answers to what came from outside pass although no rule allows them. Packets
 * that arrive leave a flow behind; what goes out is an answer if its flow is there.
 */
#ifndef LINKPIN_REPLIES_H
#define LINKPIN_REPLIES_H

#include "packet.h"
#include "rules.h"

/* Let the container answer. Neighbour discovery is answered in any case. */
const volatile bool allow_replies = true;

/* UDP and ICMP: seconds after the last packet that arrived. */
const volatile __u32 reply_seconds = 180;

#define NO_NETNS (~0ULL)	/* nothing is ever learned there */
#define SECOND 1000000000ULL	/* in nanoseconds */

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

#define ICMPV6_PARAMETER_PROBLEM 4 /* 1 to 4 are errors */
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129
#define MLD_REPORT 131
#define MLD_DONE 132
#define ND_ROUTER_SOLICIT 133
#define ND_NEIGHBOUR_SOLICIT 135
#define ND_NEIGHBOUR_ADVERT 136
#define MLD2_REPORT 143

/* Seen from the container. Ports in host order. */
struct flow {
	__u8 remote[16];
	__u16 remote_port;	/* ICMP echo: the identifier */
	__u16 local_port;	/* ICMP echo: the same */
	enum ip_proto proto;	/* icmpv6 with ports 0 and ND_NEIGHBOUR_SOLICIT: a neighbour on the link */
	__u64 netns;		/* cookie, where a socket saw it; 0: an interface program did */
};

/* What a stranger can fill with UDP must not displace TCP connections. */
struct flows {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow);
	__type(value, __u64); /* time of the last packet that arrived, CLOCK_MONOTONIC, nanoseconds */
	__uint(max_entries, 4096);
};

struct flows flows_tcp SEC(".maps");
struct flows flows_other SEC(".maps");

/* p goes out, or would. */
static __always_inline void flow_of(struct flow *f, const struct packet *p, __u64 netns)
{
	__builtin_memcpy(f->remote, p->dst, sizeof(f->remote));
	f->remote_port = p->dport;
	f->local_port = p->sport;
	f->proto = p->proto;
	f->netns = netns;
}

/* The flow that stands for: p's remote side is a neighbour on the link. */
static __always_inline void neighbour_of(struct flow *f, const struct packet *p, __u64 netns)
{
	flow_of(f, p, netns);
	f->remote_port = 0;
	f->local_port = ND_NEIGHBOUR_SOLICIT;
}

static __always_inline bool is_recent(const struct flow *f)
{
	__u64 *last = bpf_map_lookup_elem(&flows_other, f);

	/* Signed: another CPU may have written a time that is later than ours. */
	return last && (__s64)(bpf_ktime_get_ns() - *last) <= (__s64)(reply_seconds * SECOND);
}

/* Whether something arrived that p, which goes out, may belong to. */
__noinline bool has_flow(const struct packet *p, __u64 netns)
{
	struct flow f;

	if (!p || !allow_replies || p->depth != whole)
		return false;
	flow_of(&f, p, netns);
	return p->proto == tcp ? bpf_map_lookup_elem(&flows_tcp, &f) != NULL : is_recent(&f);
}

/*
 * Whether p answers a packet that arrived. An opening segment of TCP never does:
 * who was called can't call back.
 */
static __always_inline bool is_reply(const struct packet *p, __u64 netns)
{
	if (p->proto == tcp && (p->type & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return false;
	if (p->proto == icmp && p->type != ICMP_ECHO_REPLY)
		return false;
	if (p->proto == icmpv6 && p->type != ICMPV6_ECHO_REPLY)
		return false;
	return has_flow(p, netns);
}

/*
 * Neighbour discovery and multicast listener reports, without which there is no
 * IPv6: to the link, or to an address that has proved to be a neighbour's. A raw
 * socket can write what it likes into them, so none may be routed further.
 */
static __always_inline bool is_link_upkeep(const struct packet *p, __u64 netns)
{
	__u32 prefix = bpf_ntohl(p->dst[0]);
	struct flow f;

	if (p->ethertype != ETHERTYPE_IPV6 || p->proto != icmpv6)
		return false;
	switch (p->type) {
	case MLD_REPORT:
	case MLD_DONE:
	case MLD2_REPORT:
		return prefix >> 24 == 0xff && p->hops == 1;
	case ND_ROUTER_SOLICIT:
	case ND_NEIGHBOUR_SOLICIT:
	case ND_NEIGHBOUR_ADVERT:
		if (prefix >> 16 == 0xff02 || prefix >> 22 == 0xfe80 >> 6)
			return true;
		neighbour_of(&f, p, netns);
		return bpf_map_lookup_elem(&flows_other, &f) != NULL; /* neighbours stay neighbours */
	}
	return false;
}

static __always_inline bool is_icmp_error(const struct packet *p)
{
	if (p->ethertype == ETHERTYPE_IPV4)
		return p->proto == icmp && (p->type == ICMP_UNREACHABLE || p->type == ICMP_TIME_EXCEEDED ||
					    p->type == ICMP_PARAMETER_PROBLEM);
	return p->proto == icmpv6 && p->type >= 1 && p->type <= ICMPV6_PARAMETER_PROBLEM;
}

/* Remembers p, which arrived from outside. It is p reversed after this. */
__noinline int learn(struct packet *p, __u64 netns)
{
	__u64 now = bpf_ktime_get_ns();
	struct flow f;
	__u8 type;

	if (!p || p->depth != whole)
		return 0;
	type = p->type;
	reverse(p);
	if (p->proto == icmpv6 && (type == ND_NEIGHBOUR_SOLICIT || type == ND_NEIGHBOUR_ADVERT)) {
		/* A router would have counted down: the sender is on the link (RFC 4861, 3.1). */
		if (p->hops == 255) {
			neighbour_of(&f, p, netns);
			bpf_map_update_elem(&flows_other, &f, &now, BPF_ANY);
		}
		return 0;
	}
	if (!allow_replies)
		return 0;
	if (p->proto == tcp) {
		if ((type & (TCP_SYN | TCP_ACK)) != TCP_SYN)
			return 0;
	} else if (p->proto == icmp) {
		if (type != ICMP_ECHO_REQUEST)
			return 0;
	} else if (p->proto == icmpv6) {
		if (type != ICMPV6_ECHO_REQUEST)
			return 0;
	} else if (p->proto != udp) {
		return 0;
	}
	/* What passes by the lists, or never passes, needs no flow: answers of servers that
	 * the container asks must not fill the map. */
	if (judge(p) != no_allow_rule)
		return 0;
	flow_of(&f, p, netns);
	if (p->proto == tcp)
		bpf_map_update_elem(&flows_tcp, &f, &now, BPF_ANY);
	else
		bpf_map_update_elem(&flows_other, &f, &now, BPF_ANY);
	return 0;
}

#endif
