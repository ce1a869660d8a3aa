// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// Relocations against the kernel's types, of each kind that changes instructions.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct sk_buff {
	unsigned int len;
	unsigned int no_such_field;
} __attribute__((preserve_access_index));

struct no_such_type {
	int field;
} __attribute__((preserve_access_index));

enum bpf_prog_type___here {
	BPF_PROG_TYPE_SCHED_CLS___here = 1000,
};

// Not inlined, so that relocations stand in a subprogram too.
static __attribute__((noinline)) int offset(void)
{
	return __builtin_preserve_field_info(((struct sk_buff *)0)->len, BPF_FIELD_BYTE_OFFSET);
}

SEC("tc")
int len_offset(struct __sk_buff *skb)
{
	return offset();
}

SEC("tc")
int exists(struct __sk_buff *skb)
{
	int n = 0;

	if (bpf_core_field_exists(struct sk_buff, len))
		n |= 1;
	if (bpf_core_field_exists(struct sk_buff, no_such_field))
		n |= 2;
	if (bpf_core_type_exists(struct no_such_type))
		n |= 4;
	// Poisoned, and never run.
	if (bpf_core_field_exists(struct sk_buff, no_such_field))
		n += __builtin_preserve_field_info(((struct sk_buff *)0)->no_such_field, BPF_FIELD_BYTE_OFFSET);
	return n;
}

SEC("tc")
int enum_value(struct __sk_buff *skb)
{
	return bpf_core_enum_value(enum bpf_prog_type___here, BPF_PROG_TYPE_SCHED_CLS___here);
}

// Poisoned, and run.
SEC("tc")
int poisoned(struct __sk_buff *skb)
{
	return __builtin_preserve_field_info(((struct no_such_type *)0)->field, BPF_FIELD_BYTE_OFFSET);
}

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;

// Calls a function of the kernel by the number of its type.
SEC("tc")
int kfunc(struct __sk_buff *skb)
{
	return bpf_cast_to_kern_ctx(skb) ? 21 : 22;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
