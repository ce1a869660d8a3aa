// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Two programs for a network namespace. The netfilter one drops what leaves with a
 * length of its own: no helper reads packets there, but the length is at hand. */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NF_DROP 0
#define NF_ACCEPT 1

struct sk_buff {
	unsigned int len;
} __attribute__((preserve_access_index));

struct bpf_nf_ctx {
	const void *state;
	struct sk_buff *skb;
} __attribute__((preserve_access_index));

SEC("netfilter")
int drop_output(struct bpf_nf_ctx *ctx)
{
	/* IPv4 and UDP headers, and 401 bytes. */
	return ctx->skb->len == 28 + 401 ? NF_DROP : NF_ACCEPT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
