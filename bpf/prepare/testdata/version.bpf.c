// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// A section whose name loaders take for something else.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	return 1;
}

SEC("version_2")
int lost(struct __sk_buff *skb)
{
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
