// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* One program for each kind of cgroup hook. Each forbids ports of its own, so that
 * traffic tells which of them still run; see ports.go. */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SOCK_RAW 3

/* An ordinary map: whoever can open it by its id can change it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} forbidden SEC(".maps");

/* A constant: its map is frozen. */
const volatile __u32 frozen_port = 1008;

static __always_inline __u32 port_of(struct bpf_sock_addr *ctx)
{
	return bpf_ntohs((__u16)ctx->user_port);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	__u32 port = port_of(ctx);

	if (port == 1001 || port == 1007 || port == frozen_port)
		return 0;
	return !bpf_map_lookup_elem(&forbidden, &port);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return port_of(ctx) != 1001;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return port_of(ctx) != 1002;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return port_of(ctx) != 1002;
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	return port_of(ctx) != 10005;
}

SEC("cgroup/sock_create")
int sock_create(struct bpf_sock *ctx)
{
	return !(ctx->type == SOCK_RAW && ctx->protocol == 253);
}

/* Reads the ports of UDP over IPv4; 0 for everything else. */
static __always_inline __u32 ports(struct __sk_buff *skb)
{
	struct iphdr ip;
	__u32 both;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.version != 4 || ip.protocol != IPPROTO_UDP)
		return 0;
	if (bpf_skb_load_bytes(skb, ip.ihl * 4, &both, sizeof(both)))
		return 0;
	return bpf_ntohl(both);
}

SEC("cgroup_skb/egress")
int skb_egress(struct __sk_buff *skb)
{
	return (ports(skb) & 0xffff) != 1003;
}

SEC("cgroup_skb/ingress")
int skb_ingress(struct __sk_buff *skb)
{
	return ports(skb) >> 16 != 1004;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
