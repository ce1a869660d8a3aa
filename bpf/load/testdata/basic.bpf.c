// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// Programs for the tests of bpf/load. The tc programs return what they read, so
// that BPF_PROG_TEST_RUN shows what was loaded.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

// One value on every CPU.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

// Pinned by name in the object, and with no size: the plan says it.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 0);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} verdicts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__uint(value_size, 4);
} slots SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} inner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = {.values = {&inner}};

// No template for its inner maps.
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} bare_outer SEC(".maps");

volatile const __u32 limit = 1;
static volatile const __u32 hidden = 2;
volatile const __u32 ifindex;
volatile const __u64 cgroup_id;
__u32 seed = 3;

SEC("tc")
int read_limit(struct __sk_buff *skb)
{
	return limit;
}

SEC("tc")
int read_hidden(struct __sk_buff *skb)
{
	return hidden;
}

SEC("tc")
int read_seed(struct __sk_buff *skb)
{
	return seed;
}

SEC("tcx/ingress")
int read_ifindex(struct __sk_buff *skb)
{
	return ifindex;
}

SEC("cgroup/skb")
int read_cgroup(struct __sk_buff *skb)
{
	return cgroup_id == 77;
}

SEC("tc")
int read_verdict(struct __sk_buff *skb)
{
	__u32 key = 7;
	__u32 *v = bpf_map_lookup_elem(&verdicts, &key);

	return v ? *v : 1000;
}

// The sum over the first two CPUs shows that each has the value.
SEC("tc")
int read_counter(struct __sk_buff *skb)
{
	__u32 key = 1;
	__u64 *v = bpf_map_lookup_elem(&counters, &key);

	return v ? *v : 1000;
}

SEC("tcx/ingress")
int jump(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &slots, 0);
	return 1001;
}

SEC("tcx/egress")
int landing(struct __sk_buff *skb)
{
	return 42;
}

SEC("tc")
int read_inner(struct __sk_buff *skb)
{
	__u32 key = 0;
	void *m = bpf_map_lookup_elem(&outer, &key);
	__u32 *v;

	if (!m)
		return 1002;
	v = bpf_map_lookup_elem(m, &key);
	return v ? *v : 1003;
}

SEC("tc")
int read_bare(struct __sk_buff *skb)
{
	__u32 key = 0;
	void *m = bpf_map_lookup_elem(&bare_outer, &key);

	return m ? 1 : 0;
}

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return 1;
}

// Reads what it may not: the verifier refuses it.
SEC("tc")
int wild(struct __sk_buff *skb)
{
	__u32 key = 7;
	__u32 *v = bpf_map_lookup_elem(&verdicts, &key);

	return *v;
}

SEC("fentry/do_exit")
int trace(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
