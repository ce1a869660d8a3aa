// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

/* Tracing programs run for the whole machine and are told which cgroup is theirs:
 * they count what its processes execute and which ports these ask for, and refuse
 * two of the ports. */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>

struct sockaddr {
	unsigned short sa_family;
	char sa_data[14];
} __attribute__((preserve_access_index));

struct counts {
	__u64 execs;
	__u64 exits;
	__u64 binds;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counts SEC(".maps");

volatile const __u64 container;

static __always_inline struct counts *ours(void)
{
	__u32 zero = 0;

	if (bpf_get_current_cgroup_id() != container)
		return 0;
	return bpf_map_lookup_elem(&counts, &zero);
}

static __always_inline int asks_for(struct sockaddr *address, __u16 port)
{
	unsigned char p[2] = {};

	if (bpf_probe_read_kernel(p, sizeof(p), address->sa_data))
		return 0;
	return p[0] == port >> 8 && p[1] == (port & 0xff);
}

SEC("tp_btf/sched_process_exec")
int execs(__u64 *ctx)
{
	struct counts *n = ours();

	if (n)
		__sync_fetch_and_add(&n->execs, 1);
	return 0;
}

SEC("fentry/do_exit")
int exits(__u64 *ctx)
{
	struct counts *n = ours();

	if (n)
		__sync_fetch_and_add(&n->exits, 1);
	return 0;
}

/* Returns 0 to allow. */
SEC("lsm/socket_bind")
int binds(__u64 *ctx)
{
	struct counts *n = ours();

	if (!n)
		return 0;
	__sync_fetch_and_add(&n->binds, 1);
	return asks_for((void *)ctx[1], 81) ? -EPERM : 0;
}

/* Returns 1 to allow. */
SEC("lsm_cgroup/socket_bind")
int guard(__u64 *ctx)
{
	return !asks_for((void *)ctx[1], 82);
}

char LICENSE[] SEC("license") = "GPL";
