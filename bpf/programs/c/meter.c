// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The built-in policy `meter`: counts what the IP sockets of a container send and
 * receive, loopback included. docs/policies.md is the reference.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETHERTYPE_IPV6 0x86dd

/* Seen from the container. */
enum traffic {
	received_ipv4,
	received_ipv6,
	sent_ipv4,
	sent_ipv6,
};

struct amount {
	__u64 packets; /* a bundle that is still to be cut (GSO), or was put together (GRO), counts its parts */
	__u64 bytes;   /* IP headers included; those of a bundle once */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, enum traffic);
	__type(value, struct amount);
	__uint(max_entries, sent_ipv6 + 1);
} meter SEC(".maps");

static __always_inline int count(struct __sk_buff *skb, enum traffic ipv4, enum traffic ipv6)
{
	enum traffic key = skb->protocol == bpf_htons(ETHERTYPE_IPV6) ? ipv6 : ipv4;
	struct amount *sum = bpf_map_lookup_elem(&meter, &key);

	if (sum) {
		sum->packets += skb->gso_segs ?: 1;
		sum->bytes += skb->len;
	}
	return 1;
}

SEC("cgroup_skb/ingress")
int skb_ingress(struct __sk_buff *skb)
{
	return count(skb, received_ipv4, received_ipv6);
}

SEC("cgroup_skb/egress")
int skb_egress(struct __sk_buff *skb)
{
	return count(skb, sent_ipv4, sent_ipv6);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
