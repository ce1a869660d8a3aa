/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The lists of a policy, and what they say about a destination. */
#ifndef LINKPIN_RULES_H
#define LINKPIN_RULES_H

#include "packet.h"

#define RULES 8 /* per prefix */

/* Refuse what no rule allows. */
const volatile bool default_deny = true;

/*
 * One protocol and one range of ports of the destination, in host order. All zero:
 * everything. Ports other than 0 are those of TCP, UDP, UDP-Lite, SCTP and DCCP.
 */
struct rule {
	enum ip_proto proto;
	__u16 port;	/* 0 with port_end 0: any */
	__u16 port_end;	/* 0: only port */
};

/* The same as the value of the maps, which is an array so that a policy may write one rule without a list. */
struct rules {
	struct rule rule[RULES];
};

/* IPv4 prefixes are IPv4-mapped: 10.0.0.0/8 is ::ffff:10.0.0.0/104. */
struct lpm_key {
	__u32 prefixlen;
	__u8 addr[16];
};

/* The longest prefix decides. */
struct list {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lpm_key);
	__type(value, struct rule[RULES]);
};

struct list deny SEC(".maps");
struct list allow SEC(".maps");

/* What became of a packet or call. */
enum reason {
	passed,
	deny_rule,	/* the deny list matches */
	no_allow_rule,	/* default_deny, and nothing allows it */
	unreadable,	/* damaged, or routed by its source: its destination can't be told */
	not_ip,		/* default_deny, and neither IP nor ARP */
};

static __always_inline const struct rules *find(void *trie, const __u32 addr[4])
{
	struct lpm_key key = {.prefixlen = 128};
	const struct rules *rules;

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	rules = bpf_map_lookup_elem(trie, &key);
	if (!rules || !is_ipv4(addr))
		return rules;
	/* ::/0 and the like are about IPv6, although IPv4-mapped addresses lie in them. */
	key.prefixlen = 95;
	return bpf_map_lookup_elem(trie, &key) == rules ? NULL : rules;
}

enum match {
	no,
	yes,
	everything, /* the rule is all zero */
};

/* Compares a rule with p. if_unknown is the answer where that depends on what could not be read. */
__noinline enum match compare(const struct rule *r, const struct packet *p, enum match if_unknown)
{
	if (!r || !p)
		return no;
	if (!r->proto && !r->port && !r->port_end)
		return everything;
	if (r->proto && p->depth == nothing)
		return if_unknown;
	if (r->proto && r->proto != p->proto)
		return no;
	if (!r->port && !r->port_end)
		return yes;
	if (p->depth == whole)
		return has_ports(p->proto) && r->port <= p->dport && p->dport <= (r->port_end ?: r->port);
	return p->depth == nothing || has_ports(p->proto) ? if_unknown : no;
}

/* The list ends at the first rule that is all zero; if it is the very first, it means everything. */
__noinline bool matches(const struct rules *list, const struct packet *p, enum match if_unknown)
{
	for (int i = 0; list && p && i < RULES; i++) {
		enum match m = compare(&list->rule[i], p, if_unknown);

		if (m != no)
			return m == yes || i == 0;
	}
	return false;
}

/* What the lists say about p's destination. The deny list beats the allow list. */
__noinline enum reason judge(const struct packet *p)
{
	const struct rules *rules;

	if (!p)
		return unreadable;
	rules = find(&deny, p->dst);
	if (rules && matches(rules, p, yes))
		return deny_rule;
	if (!default_deny)
		return passed;
	rules = find(&allow, p->dst);
	if (rules && matches(rules, p, no))
		return passed;
	return no_allow_rule;
}

#endif
