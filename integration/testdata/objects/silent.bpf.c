// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Drops every packet that a socket of the cgroup sends, loopback included. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("cgroup_skb/egress")
int drop(struct __sk_buff *skb)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
