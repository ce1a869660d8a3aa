// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// Programs that are loaded only on request, and maps whose sizes are wrong.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

// The kernel wants no size: it grows with the sockets.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(max_entries, 8);
	__type(key, int);
	__type(value, __u64);
} storage SEC(".maps");

// The kernel wants no keys.
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 8);
	__uint(key_size, 4);
	__uint(value_size, 4);
} queue SEC(".maps");

// Has no size of values, and nobody can guess one.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__uint(key_size, 4);
} valueless SEC(".maps");

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

SEC("?tc")
int nested(struct __sk_buff *skb)
{
	__u32 key = 0;
	void *m = bpf_map_lookup_elem(&outer, &key);
	__u32 *v;

	if (!m)
		return 1;
	v = bpf_map_lookup_elem(m, &key);
	return v ? *v : 2;
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	__u32 item = 1;

	bpf_map_push_elem(&queue, &item, 0);
	if (sk && (sk = bpf_sk_fullsock(sk)))
		bpf_sk_storage_get(&storage, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	return 1;
}

SEC("?cgroup_skb/ingress")
int on_request(struct __sk_buff *skb)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&valueless, &key) != 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
