// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// An object whose programs all say where they go, with maps that leave things to
// their loader and variables of every kind of type.
#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

struct prefix {
	__u32 prefixlen;
	__u8 addr[4];
};

struct amount {
	__u64 packets;
	__u32 bytes;
};

// No BPF_F_NO_PREALLOC, which the kernel demands.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 2);
	__type(key, struct prefix);
	__type(value, __u32);
} prefixes SEC(".maps");

// No size.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 0);
	__type(key, __u32);
	__type(value, struct amount);
} sized SEC(".maps");

// Not a power of two.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 5000);
} ring SEC(".maps");

// As large as there are CPUs.
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct amount);
} totals SEC(".maps");

// No size of keys.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(value_size, 8);
} keyless SEC(".maps");

// Pinned as another loader wants it (iproute2's PIN_GLOBAL_NS and beyond).
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, 16);
} vendor SEC(".maps");

// Holds maps, but does not say which.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} outer SEC(".maps");

struct settings {
	__u16 port;
	bool strict;
	__u32 limits[3];
};

volatile const __u32 limit = 1;
volatile const bool enabled;
volatile const char label[16];
volatile const struct settings settings;
volatile const __u16 ports[4];
volatile const __u8 address[16];
volatile const __u64 cgroup_id;
volatile const __u32 ifindex;
volatile const __u32 unused = 1;
static volatile const __u32 hidden = 2;
extern int LINUX_KERNEL_VERSION __kconfig;

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct prefix key = {.prefixlen = 32};
	__u32 zero = 0;

	__builtin_memcpy(key.addr, (__u32[]){ctx->user_ip4}, 4);
	if (bpf_map_lookup_elem(&prefixes, &key))
		return 1;
	bpf_ringbuf_output(&ring, &zero, sizeof(zero), 0);
	bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &zero, sizeof(zero));
	return enabled && limit && settings.strict && label[0] && ports[0] && address[0] && cgroup_id && hidden;
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct amount *a = bpf_map_lookup_elem(&totals, &key);

	if (a)
		a->packets++;
	return bpf_map_lookup_elem(&sized, &key) || bpf_map_lookup_elem(&keyless, &key) || bpf_map_lookup_elem(&vendor, &key);
}

SEC("cgroup_skb/ingress")
int ingress(struct __sk_buff *skb)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&outer, &key) || LINUX_KERNEL_VERSION > 0;
}

SEC("tcx/ingress")
int from_wire(struct __sk_buff *skb)
{
	return ifindex;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
