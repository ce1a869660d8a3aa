/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What was refused: counted by destination, and told one by one. */
#ifndef LINKPIN_DENIED_H
#define LINKPIN_DENIED_H

#include "packet.h"
#include "rules.h"

/* Where it was refused. */
enum place {
	at_call,	/* connect(2) or sendmsg(2) and their like: EPERM */
	at_socket,	/* a packet of a socket of the cgroup */
	at_interface,	/* a packet on the interface */
};

struct destination {
	__u8 addr[16];		/* IPv4 as ::ffff:a.b.c.d; all zero: unknown or not IP */
	enum ip_proto proto;
	__u16 port;		/* host order; 0: unknown, or a protocol without ports */
	__u16 ethertype;	/* host order; 0: unknown */
};

struct refusals {
	__u64 attempts;		/* calls and packets */
	__u64 bytes;		/* of the packets; calls have none */
	__u64 last_ns;		/* CLOCK_MONOTONIC, nanoseconds */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct destination);
	__type(value, struct refusals);
	__uint(max_entries, 1024);
} denied SEC(".maps");

/* One record of the ring buffer, 48 bytes. */
struct event {
	__u64 time_ns;		/* CLOCK_MONOTONIC, nanoseconds */
	struct destination to;
	__u16 source_port;	/* host order; 0: unknown, or none yet */
	__u16 reserved;		/* 0 */
	__u32 bytes;		/* of the packet, as its hook sees it; 0 for a call */
	enum place place;
	enum reason reason;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16); /* one page where pages are largest */
} events SEC(".maps");

/* Totals. They stay when the LRU map forgets a destination. */
enum stat {
	denied_calls,
	denied_packets,
	denied_bytes,
	events_lost,	/* the ring buffer was full */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, enum stat);
	__type(value, __u64);
	__uint(max_entries, events_lost + 1);
} stats SEC(".maps");

static __always_inline void count(__u32 stat, __u64 n)
{
	__u64 *total = bpf_map_lookup_elem(&stats, &stat);

	if (total)
		*total += n;
}

static __always_inline struct refusals *refusals_of(const struct destination *to)
{
	struct refusals none = {};
	struct refusals *r = bpf_map_lookup_elem(&denied, to);

	if (r)
		return r;
	bpf_map_update_elem(&denied, to, &none, BPF_NOEXIST); /* fails if another CPU was faster */
	return bpf_map_lookup_elem(&denied, to);
}

__noinline int tell(const struct event *e)
{
	if (e && bpf_ringbuf_output(&events, (void *)e, sizeof(*e), 0))
		count(events_lost, 1);
	return 0;
}

__noinline int refuse(const struct packet *p, enum place place, enum reason reason, __u32 bytes)
{
	struct refusals *r;
	struct event e = {};

	if (!p)
		return 0;
	e.time_ns = bpf_ktime_get_ns();
	e.to.proto = p->depth == nothing ? any : p->proto;
	e.to.ethertype = p->ethertype;
	e.bytes = bytes;
	e.place = place;
	e.reason = reason;
	__builtin_memcpy(e.to.addr, p->dst, sizeof(e.to.addr));
	if (p->depth == whole && has_ports(p->proto)) {
		e.to.port = p->dport;
		e.source_port = p->sport;
	}
	r = refusals_of(&e.to);
	if (r) {
		__sync_fetch_and_add(&r->attempts, 1);
		__sync_fetch_and_add(&r->bytes, bytes);
		r->last_ns = e.time_ns;
	}
	if (place == at_call) {
		count(denied_calls, 1);
	} else {
		count(denied_packets, 1);
		count(denied_bytes, bytes);
	}
	return tell(&e);
}

#endif
