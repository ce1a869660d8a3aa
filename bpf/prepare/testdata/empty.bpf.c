// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// No program.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

volatile const __u32 limit = 1;

char LICENSE[] SEC("license") = "Dual BSD/GPL";
