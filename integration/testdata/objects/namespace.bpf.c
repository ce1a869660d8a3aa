// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/*
 * One program for each hook of a network namespace. The netfilter one drops every
 * packet; the others change nothing.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define NF_DROP 0
#define FLOW_DISSECTOR_CONTINUE 129 /* BPF_FLOW_DISSECTOR_CONTINUE: let the kernel's own do it */

SEC("netfilter")
int drop_output(void *ctx)
{
	return NF_DROP;
}

SEC("sk_lookup")
int lookup(struct bpf_sk_lookup *ctx)
{
	return SK_PASS;
}

SEC("flow_dissector")
int dissect(struct __sk_buff *skb)
{
	return FLOW_DISSECTOR_CONTINUE;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
