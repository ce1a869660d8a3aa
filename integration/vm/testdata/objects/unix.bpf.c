// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* A cgroup hook that came with kernel 6.7, beside one that is old. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("cgroup/connect4")
int old(struct bpf_sock_addr *ctx)
{
	return 1;
}

SEC("cgroup/connect_unix")
int young(struct bpf_sock_addr *ctx)
{
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
