// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// The versions of one object, for tests of updates. Each program counts under its
// version, so that it shows which one has run, and how often.
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct count {
#ifdef WITH_BYTES
	__u64 bytes; // in front: what was there has moved
#endif
#ifdef NARROW
	__u32 packets;
#else
	__u64 packets;
#endif
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

// The ports that may be connected to, if any is named.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} per_cpu SEC(".maps");

#ifdef WITH_BYTES
__u64 first; // moves the other variable
#endif
__u64 seen;
__u32 level = 1;
volatile const __u32 limit = 1;

static __always_inline void count(void)
{
	struct count one = {.packets = 1}, *c;
	__u32 key = VERSION, zero = 0;
	__u64 *n;

	c = bpf_map_lookup_elem(&counts, &key);
	if (c)
		__sync_fetch_and_add(&c->packets, 1);
	else if (bpf_map_update_elem(&counts, &key, &one, BPF_NOEXIST)) {
		c = bpf_map_lookup_elem(&counts, &key); // somebody was faster
		if (c)
			__sync_fetch_and_add(&c->packets, 1);
	}
	n = bpf_map_lookup_elem(&per_cpu, &zero);
	if (n)
		*n += 1;
	__sync_fetch_and_add(&seen, 1);
#ifdef WITH_BYTES
	__sync_fetch_and_add(&first, 1);
#endif
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	__u32 port = bpf_ntohs(ctx->user_port);

	count();
	return level && limit && bpf_map_lookup_elem(&ports, &port) ? 1 : 0;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	count();
	return 1;
}

SEC("tcx/ingress")
int tc(struct __sk_buff *skb)
{
	count();
	return -1;
}

SEC("xdp")
int device(struct xdp_md *ctx)
{
	count();
	return XDP_PASS;
}

SEC("sk_lookup")
int lookup(struct bpf_sk_lookup *ctx)
{
	count();
	return SK_PASS;
}

SEC("netfilter")
int filter(void *ctx)
{
	count();
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
