// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// Programs that run for the whole machine, and one for a cgroup's LSM hook. They
// count the events of one cgroup in the slot of their own.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct task_struct {
	int tgid;
} __attribute__((preserve_access_index));

enum { EXECS, LISTED, EVERYBODY, EXITS, BINDS, GUARDED, SLOTS };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, __u32);
} containers SEC(".maps");

volatile const __u64 container;
volatile const __u64 unused;

static void count(__u32 slot)
{
	__u64 *n = bpf_map_lookup_elem(&counts, &slot);

	if (n)
		__sync_fetch_and_add(n, 1);
}

static int ours(void)
{
	return bpf_get_current_cgroup_id() == container;
}

// Reads a field of a kernel structure, so that it has a relocation.
SEC("tp_btf/sched_process_exec")
int execs(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];

	if (ours() && task->tgid > 0)
		count(EXECS);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int listed(__u64 *ctx)
{
	__u64 id = bpf_get_current_cgroup_id();

	if (bpf_map_lookup_elem(&containers, &id))
		count(LISTED);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int everybody(__u64 *ctx)
{
	count(EVERYBODY);
	return 0;
}

SEC("tp_btf/no_such_tracepoint")
int nowhere(__u64 *ctx)
{
	if (ours())
		count(EXECS);
	return 0;
}

SEC("fentry/do_exit")
int exits(__u64 *ctx)
{
	if (ours())
		count(EXITS);
	return 0;
}

SEC("lsm/socket_bind")
int binds(__u64 *ctx)
{
	if (ours())
		count(BINDS);
	return 0;
}

SEC("lsm_cgroup/socket_bind")
int guard(__u64 *ctx)
{
	count(GUARDED);
	return 1;
}

SEC("fmod_ret/security_socket_bind")
int changes(__u64 *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
