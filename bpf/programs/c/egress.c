// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The built-in policy `egress`: where a container may send to.
 *
 * The same rules hold in three places. The system calls connect and sendmsg give
 * a clear EPERM. The packets of the cgroup's sockets are where it is enforced, for
 * raw sockets too. The interface sees what no cgroup program does: packet sockets,
 * tunnels, sockets that were made outside and inherited.
 *
 * What is on loopback or keeps the link up passes; then the deny list, default_deny,
 * the allow list and answers to what came from outside decide, in this order.
 * docs/policies.md is the reference.
 */
#include "denied.h"
#include "packet.h"
#include "replies.h"
#include "rules.h"

#define LOOPBACK_IFINDEX 1 /* of lo, in every network namespace */

/* TCX_NEXT and TCX_DROP; also TC_ACT_UNSPEC and TC_ACT_SHOT. The programs of others have a say too. */
#define NEXT (-1)
#define DROP 2

/* The network namespace of a socket that was bound. Accepted sockets inherit it. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, __u64); /* its cookie */
} socket_netns SEC(".maps");

/*
 * Programs that see packets can't ask for the namespace on most kernels. bind comes
 * early enough, and for the sockets within MPTCP sockets too, which
 * cgroup/sock_create does not see.
 */
static __always_inline int note_netns(struct bpf_sock *sk)
{
	__u64 *netns = bpf_sk_storage_get(&socket_netns, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (netns)
		*netns = bpf_get_netns_cookie(sk);
	return 1;
}

SEC("cgroup/post_bind4")
int post_bind4(struct bpf_sock *sk)
{
	return note_netns(sk);
}

SEC("cgroup/post_bind6")
int post_bind6(struct bpf_sock *sk)
{
	return note_netns(sk);
}

/*
 * A process may make a namespace of its own and let any packet arrive there. What
 * is learned in one namespace therefore counts in that one only.
 */
static __always_inline __u64 netns_of(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	__u64 *netns;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (!sk)
		return NO_NETNS;
	netns = bpf_sk_storage_get(&socket_netns, sk, NULL, 0);
	return netns ? *netns : NO_NETNS;
}

/* An ICMP error passes where a packet to the sender of the one that it quotes would. */
static __always_inline bool is_answer_by_error(struct __sk_buff *skb, const struct packet *error, __u64 netns)
{
	struct packet quoted = {.ethertype = error->ethertype};
	enum reason reason;

	if (!is_icmp_error(error) || !read_ip(skb, error->transport + 8, &quoted))
		return false;
	reverse(&quoted);
	if (!same_addr(quoted.dst, error->dst))
		return false;
	reason = judge(&quoted);
	return reason == passed || (reason == no_allow_rule && has_flow(&quoted, netns));
}

/* What becomes of a packet that goes out. */
__noinline enum reason filter(struct __sk_buff *skb, const struct packet *p, __u64 netns)
{
	enum reason reason;

	if (!p)
		return unreadable;
	if (is_link_upkeep(p, netns))
		return passed;
	reason = judge(p);
	if (reason == no_allow_rule && (is_reply(p, netns) || is_answer_by_error(skb, p, netns)))
		return passed;
	return reason;
}

/* 127.0.0.0/8 and ::1, and the unspecified addresses, by which the kernel means the same. */
static __always_inline bool is_loopback(const __u32 addr[4])
{
	if (is_ipv4(addr))
		return addr[3] == 0 || bpf_ntohl(addr[3]) >> 24 == 127;
	return !addr[0] && !addr[1] && !addr[2] && (addr[3] == 0 || addr[3] == bpf_htonl(1));
}

/* Decides on a call whose destination is in p: 1 lets it go on, 0 is EPERM. */
static __noinline int decide_call(struct bpf_sock_addr *ctx, struct packet *p)
{
	enum reason reason;

	if (is_loopback(p->dst))
		return 1;
	p->ethertype = is_ipv4(p->dst) ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6;
	p->proto = ctx->protocol;
	p->sport = ctx->sk->src_port;
	p->dport = bpf_ntohs(ctx->user_port);
	p->depth = whole;
	p->type = TCP_SYN;
	reason = judge(p);
	if (reason == passed)
		return 1;
	/* A server's datagram socket may name, or connect to, whom it answers. */
	if (reason == no_allow_rule && p->proto == udp && has_flow(p, bpf_get_netns_cookie(ctx)))
		return 1;
	refuse(p, at_call, reason, 0);
	return 0;
}

static __always_inline int decide_call4(struct bpf_sock_addr *ctx)
{
	struct packet p = {};

	set_ipv4(p.dst, ctx->user_ip4);
	return decide_call(ctx, &p);
}

static __always_inline int decide_call6(struct bpf_sock_addr *ctx)
{
	struct packet p = {};

	p.dst[0] = ctx->user_ip6[0];
	p.dst[1] = ctx->user_ip6[1];
	p.dst[2] = ctx->user_ip6[2];
	p.dst[3] = ctx->user_ip6[3];
	return decide_call(ctx, &p);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return decide_call4(ctx);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return decide_call6(ctx);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return decide_call4(ctx);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return decide_call6(ctx);
}

SEC("cgroup_skb/egress")
int skb_egress(struct __sk_buff *skb)
{
	struct packet p = {.ethertype = bpf_ntohs(skb->protocol)};
	enum reason reason = unreadable;

	/* By device, not by address: a raw socket can send to 127.0.0.1 through eth0. */
	if (skb->ifindex == LOOPBACK_IFINDEX)
		return 1;
	if (read_ip(skb, 0, &p))
		reason = filter(skb, &p, netns_of(skb));
	if (reason == passed)
		return 1;
	refuse(&p, at_socket, reason, skb->len);
	return 0;
}

SEC("cgroup_skb/ingress")
int skb_ingress(struct __sk_buff *skb)
{
	struct packet p = {.ethertype = bpf_ntohs(skb->protocol)};
	__u64 netns;

	/* What arrives on lo was sent from inside. */
	if (!default_deny || skb->ifindex <= LOOPBACK_IFINDEX)
		return 1;
	netns = netns_of(skb);
	if (netns != NO_NETNS && read_ip(skb, 0, &p))
		learn(&p, netns);
	return 1;
}

/*
 * What the container sends. The sections of this program and the next are those of
 * the container's own end of an interface. linkpin takes the direction from them and
 * prefers the host's end, where they are swapped (docs/policies.md).
 */
SEC("tcx/egress")
int from_container(struct __sk_buff *skb)
{
	struct packet p = {};
	enum reason reason = unreadable;
	int off = read_ethernet(skb, &p);

	if (off >= 0 && p.ethertype != ETHERTYPE_IPV4 && p.ethertype != ETHERTYPE_IPV6)
		reason = default_deny && p.ethertype != ETHERTYPE_ARP ? not_ip : passed;
	else if (off >= 0 && read_ip(skb, off, &p))
		reason = filter(skb, &p, 0);
	if (reason == passed)
		return NEXT;
	refuse(&p, at_interface, reason, skb->len);
	return DROP;
}

/* What the container receives; only to learn what it may answer. */
SEC("tcx/ingress")
int to_container(struct __sk_buff *skb)
{
	struct packet p = {};
	int off;

	if (!default_deny)
		return NEXT;
	off = read_ethernet(skb, &p);
	if (off >= 0 && read_ip(skb, off, &p))
		learn(&p, 0);
	return NEXT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
