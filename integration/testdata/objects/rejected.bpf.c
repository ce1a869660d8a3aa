// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* The verifier rejects this: the result of a lookup is used without a look at it. (A hash:
 * of an array, newer kernels know that its only element is there.) */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} calls SEC(".maps");

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&calls, &zero);

	return *n == 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
