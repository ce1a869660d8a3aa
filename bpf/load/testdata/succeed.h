// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// Two versions of one object, for tests of what takes the place of a running one. Their
// programs have the same instructions, and so the same tags, but do not mean the same.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#ifdef NEW
#define FIRST b
#define SECOND a
#define VARIABLE y
#define FUNCTION "do_group_exit"
#define LSM "socket_connect"
#define SLEEPABLE ".s"
#define START 2
#else
#define FIRST a
#define SECOND b
#define VARIABLE x
#define FUNCTION "do_exit"
#define LSM "socket_bind"
#define SLEEPABLE ""
#define START 1
#endif

struct counts {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} a SEC(".maps"), b SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct counts);
} outer SEC(".maps") = {.values = {&FIRST, &SECOND}};

// Only one version says what is in it.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
#ifdef NEW
	__uint(key_size, 4);
	__uint(value_size, 8);
#else
	__type(key, __u32);
	__type(value, __u64);
#endif
} typed SEC(".maps");

// Neither does.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__uint(value_size, 8);
} untyped SEC(".maps");

__u64 x = 0, y = 0; // not tentative: they stay in this order
__u32 tuned = START;
__u32 touched = START;
__u32 steady = 5;
extern int LINUX_KERNEL_VERSION __kconfig;

static __noinline int look(void)
{
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&FIRST, &zero);

	return n ? *n & 1 : 0;
}

SEC("cgroup_skb/egress")
int maps(struct __sk_buff *skb)
{
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&FIRST, &zero), *m = bpf_map_lookup_elem(&SECOND, &zero);

	return n && m ? *n > *m : 0;
}

SEC("cgroup_skb/egress")
int below(struct __sk_buff *skb)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&SECOND, &zero) && look();
}

SEC("cgroup_skb/egress")
int variable(struct __sk_buff *skb)
{
	return VARIABLE & 1;
}

SEC("cgroup_skb/egress")
int kernel(struct __sk_buff *skb)
{
	return LINUX_KERNEL_VERSION & 1;
}

SEC("cgroup_skb/egress")
int nested(struct __sk_buff *skb)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&outer, &zero) ? 1 : 0;
}

SEC("cgroup_skb/egress")
int starts(struct __sk_buff *skb)
{
	return tuned == touched && steady;
}

SEC("cgroup_skb/egress")
int looks(struct __sk_buff *skb)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&typed, &zero) ? 1 : 0;
}

SEC("cgroup_skb/egress")
int looks_anyway(struct __sk_buff *skb)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&untyped, &zero) ? 1 : 0;
}

SEC("fentry/" FUNCTION)
int traced(__u64 *ctx)
{
	return 0;
}

SEC("lsm_cgroup/" LSM)
int guarded(__u64 *ctx)
{
	return 1;
}

SEC("lsm" SLEEPABLE "/file_open")
int opened(__u64 *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
