// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// Maps as they were defined before BTF, with fields that only one loader knew.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct elf_map {
	__u32 type;
	__u32 size_key;
	__u32 size_value;
	__u32 max_elem;
	__u32 flags;
	__u32 id;
	__u32 pinning;
};

struct elf_map old SEC("maps") = {
	.type = BPF_MAP_TYPE_HASH,
	.size_key = 4,
	.size_value = 4,
	.max_elem = 4,
	.id = 5,
	.pinning = 2,
};

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	__u32 key = 1;
	__u32 *v = bpf_map_lookup_elem(&old, &key);

	return v ? *v & 1 : 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
