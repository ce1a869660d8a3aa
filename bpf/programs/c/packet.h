/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the rules need to know of a packet, read with bounded work. Whatever can't
 * be read is left unknown, and the rules count that against the packet.
 *
 * Functions that are not static are verified once each, and not again for every
 * call (kernel 5.12 for those with pointers). Without that a program would take the
 * verifier a second. The verifier wants their pointers checked for NULL.
 */
#ifndef LINKPIN_PACKET_H
#define LINKPIN_PACKET_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_QINQ 0x88a8

#define ETH_HEADER 14
#define MAX_VLAN_TAGS 2
#define MAX_IPV4_OPTIONS 8
#define MAX_EXTENSION_HEADERS 8

/* IPv6 extension headers, RFC 8200, section 4 */
#define HOP_BY_HOP 0
#define ROUTING 43
#define FRAGMENT 44
#define DESTINATION_OPTIONS 60

#define TCP_SYN 0x02
#define TCP_ACK 0x10

/* IANA protocol numbers, in lower case because policies and listings use these names. */
enum ip_proto {
	any = 0, /* in a rule: every protocol; in a listing: unknown, or not IP */
	icmp = 1,
	igmp = 2,
	ipip = 4,
	tcp = 6,
	udp = 17,
	dccp = 33,
	gre = 47,
	esp = 50,
	ah = 51,
	icmpv6 = 58,
	sctp = 132,
	udplite = 136,
};

/* How much of the transport header is known. */
enum depth {
	nothing,       /* not even its protocol: chain of IPv6 headers too long, cut off or in another fragment */
	protocol_only, /* fragments after the first, packets cut off */
	whole,         /* all that is read of it */
};

/* The packet, or the one that a system call asks for. */
struct packet {
	__u32 src[4], dst[4];	/* network order; IPv4 as ::ffff:a.b.c.d */
	__u32 transport;	/* offset of the transport header */
	__u16 sport, dport;	/* host order; for ICMP echo both are its identifier */
	__u16 ethertype;	/* host order */
	__u8 proto;
	__u8 depth;		/* enum depth */
	__u8 hops;		/* TTL or hop limit */
	__u8 type;		/* TCP: flags; ICMP: type; 0 if not read */
	__u16 reserved;		/* no padding: older verifiers want every byte written */
};

static __always_inline bool is_ipv4(const __u32 addr[4])
{
	return !addr[0] && !addr[1] && addr[2] == bpf_htonl(0xffff);
}

static __always_inline void set_ipv4(__u32 addr[4], __u32 ipv4)
{
	addr[0] = 0;
	addr[1] = 0;
	addr[2] = bpf_htonl(0xffff);
	addr[3] = ipv4;
}

static __always_inline bool same_addr(const __u32 a[4], const __u32 b[4])
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

static __always_inline bool has_ports(__u8 proto)
{
	return proto == tcp || proto == udp || proto == sctp || proto == dccp || proto == udplite;
}

/* Turns a packet that arrived into the one that would answer it. */
static __always_inline void reverse(struct packet *p)
{
	__u16 port = p->sport;
	__u32 addr;

	p->sport = p->dport;
	p->dport = port;
	for (int i = 0; i < 4; i++) {
		addr = p->src[i];
		p->src[i] = p->dst[i];
		p->dst[i] = addr;
	}
}

/* Reads the header of p->proto at p->transport. */
__noinline int read_transport(struct __sk_buff *skb, struct packet *p)
{
	struct {
		__be16 sport, dport;
		__be32 seq, ack;
		__u8 offset, flags;
	} t;
	struct {
		__u8 type, code;
		__be16 checksum, id, sequence;
	} i;

	if (!p)
		return 0;
	p->depth = protocol_only;
	if (p->proto == tcp) {
		if (bpf_skb_load_bytes(skb, p->transport, &t, 14))
			return 0;
		p->type = t.flags;
	} else if (has_ports(p->proto)) {
		if (bpf_skb_load_bytes(skb, p->transport, &t, 4))
			return 0;
	} else if (p->proto == icmp || p->proto == icmpv6) {
		if (bpf_skb_load_bytes(skb, p->transport, &i, 8))
			return 0;
		p->type = i.type;
		t.sport = t.dport = i.id;
	} else {
		t.sport = t.dport = 0;
	}
	p->sport = bpf_ntohs(t.sport);
	p->dport = bpf_ntohs(t.dport);
	p->depth = whole;
	return 0;
}

#define BAD (-1)

/*
 * Returns the length of the IPv4 option at off, 0 if the list ends there, or BAD.
 * With a source route, LSRR (131) or SSRR (137), the address in the header is not
 * where the packet ends (RFC 791, 3.1).
 */
__noinline int option_length(struct __sk_buff *skb, __u32 off)
{
	__u8 option[2];

	if (bpf_skb_load_bytes(skb, off, option, sizeof(option)))
		return BAD;
	if (option[0] <= 1) /* end of list, no operation: they have no length */
		return option[0];
	return option[1] < 2 || option[0] == 131 || option[0] == 137 ? BAD : option[1];
}

static __always_inline bool is_source_routed(struct __sk_buff *skb, __u32 off, __u32 end)
{
	for (int i = 0; i < MAX_IPV4_OPTIONS && off < end; i++) {
		int length = option_length(skb, off);

		if (length <= 0)
			return length == BAD;
		off += length;
	}
	return off < end;
}

static __always_inline bool read_ipv4(struct __sk_buff *skb, __u32 off, struct packet *p)
{
	struct {
		__u8 version_length, tos;
		__be16 total, id, fragment;
		__u8 ttl, proto;
		__be16 checksum;
		__be32 src, dst;
	} h;
	__u32 length;

	if (bpf_skb_load_bytes(skb, off, &h, sizeof(h)))
		return false;
	length = (h.version_length & 0x0f) * 4;
	if (h.version_length >> 4 != 4 || length < sizeof(h))
		return false;
	set_ipv4(p->src, h.src);
	set_ipv4(p->dst, h.dst);
	p->hops = h.ttl;
	p->proto = h.proto;
	p->transport = off + length;
	if (length > sizeof(h) && is_source_routed(skb, off + sizeof(h), p->transport))
		return false;
	if (h.fragment & bpf_htons(0x1fff))
		p->depth = protocol_only;
	else
		read_transport(skb, p);
	return true;
}

static __always_inline bool is_extension(__u8 next)
{
	return next == HOP_BY_HOP || next == ROUTING || next == FRAGMENT || next == DESTINATION_OPTIONS;
}

/*
 * Steps over the extension header at p->transport; p->proto is its kind before and
 * that of the next header after. Returns 1, or 0 if nothing after it can be read,
 * or BAD if the packet goes on to another address (segments left, RFC 8200, 4.4).
 */
__noinline int skip_extension(struct __sk_buff *skb, struct packet *p)
{
	struct {
		__u8 next, length;
		union {
			struct {
				__u8 type, left;
			} routing;
			__be16 fragment; /* offset in units of 8 bytes, and 3 other bits */
		};
	} h;

	if (!p || bpf_skb_load_bytes(skb, p->transport, &h, sizeof(h)))
		return 0;
	if (p->proto == ROUTING && h.routing.left)
		return BAD;
	if (p->proto == FRAGMENT) {
		h.length = 0;
		if (h.fragment & bpf_htons(0xfff8)) {
			p->proto = h.next;
			p->depth = is_extension(h.next) ? nothing : protocol_only;
			return 0;
		}
	}
	p->proto = h.next;
	p->transport += (h.length + 1) * 8;
	return 1;
}

static __always_inline bool read_ipv6(struct __sk_buff *skb, __u32 off, struct packet *p)
{
	struct {
		__be32 version_flow;
		__be16 length;
		__u8 next, hops;
		__u32 src[4], dst[4];
	} h;

	if (bpf_skb_load_bytes(skb, off, &h, sizeof(h)))
		return false;
	if ((bpf_ntohl(h.version_flow) >> 28) != 6)
		return false;
	__builtin_memcpy(p->src, h.src, sizeof(p->src));
	__builtin_memcpy(p->dst, h.dst, sizeof(p->dst));
	p->hops = h.hops;
	p->proto = h.next;
	p->transport = off + sizeof(h);
	for (int i = 0; i < MAX_EXTENSION_HEADERS && is_extension(p->proto); i++) {
		int step = skip_extension(skb, p);

		if (step != 1)
			return step != BAD;
	}
	if (!is_extension(p->proto))
		read_transport(skb, p);
	return true;
}

/*
 * Reads the IP packet at off. False means that where it goes can't be told: cut
 * off, another version than the ethertype says, or routed by its source.
 */
__noinline bool read_ip(struct __sk_buff *skb, __u32 off, struct packet *p)
{
	if (!p)
		return false;
	if (p->ethertype == ETHERTYPE_IPV4)
		return read_ipv4(skb, off, p);
	return p->ethertype == ETHERTYPE_IPV6 && read_ipv6(skb, off, p);
}

/*
 * Reads the frame's ethertype, behind VLAN tags, and returns the offset of what
 * follows, or -1. The kernel's own idea of the protocol must agree: where it does
 * not, the device has no Ethernet header or the sender of a packet socket lies.
 */
static __always_inline int read_ethernet(struct __sk_buff *skb, struct packet *p)
{
	__be16 type[2]; /* of a tag: identifier, ethertype */
	int off = ETH_HEADER;

	if (bpf_skb_load_bytes(skb, ETH_HEADER - 2, &type[1], 2))
		return -1;
	p->ethertype = bpf_ntohs(type[1]);
	/* Below 0x600 it is a length (IEEE 802.3), and the kernel has a number of its own. */
	if (p->ethertype >= 0x600 && type[1] != (__be16)skb->protocol)
		return -1;
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		if (p->ethertype != ETHERTYPE_VLAN && p->ethertype != ETHERTYPE_QINQ)
			return off;
		if (bpf_skb_load_bytes(skb, off, type, 4))
			return -1;
		p->ethertype = bpf_ntohs(type[1]);
		off += 4;
	}
	return p->ethertype == ETHERTYPE_VLAN || p->ethertype == ETHERTYPE_QINQ ? -1 : off;
}

#endif
