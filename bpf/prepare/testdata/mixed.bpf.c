// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// Sections as people write them: without a direction, of their own making, and of
// programs that have nothing to do with containers.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("classifier")
int cls(struct __sk_buff *skb)
{
	return -1;
}

SEC("tc")
int flow(struct __sk_buff *skb)
{
	return -1;
}

SEC("action")
int act(struct __sk_buff *skb)
{
	return -1;
}

SEC("cgroup/skb")
int skb(struct __sk_buff *skb)
{
	return 1;
}

SEC("custom")
int odd(struct __sk_buff *skb)
{
	return 1;
}

SEC("kprobe/do_exit")
int probe(void *ctx)
{
	return 0;
}

SEC("?cgroup/connect6")
int on_request(struct bpf_sock_addr *ctx)
{
	return 1;
}

SEC("xdp.frags")
int frags(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int plain_xdp(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("netfilter")
int filter(void *ctx)
{
	return 1;
}

SEC("sk_lookup")
int lookup(struct bpf_sk_lookup *ctx)
{
	return SK_PASS;
}

SEC("lsm_cgroup/socket_bind")
int lsm(void *ctx)
{
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
