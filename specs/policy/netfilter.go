// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math"
	"strings"

	"github.com/linkpin/linkpin/specs"
)

// The priorities that the kernel takes from a BPF program (net/netfilter/nf_bpf_link.c,
// bpf_nf_check_pf_and_hooks): NF_IP_PRI_FIRST and _LAST are its own, and
// defragmentation happens at -400.
const (
	minPriority    = math.MinInt32 + 1
	maxPriority    = math.MaxInt32 - 1
	defragPriority = -400
)

// netfilterKeys reads what belongs to netfilter programs.
func (d *decoder) netfilterKeys(o *object, a *Attachment) {
	a.Family = optional(d, o, "family", "", []string{"ipv4", "ipv6"})
	a.Hook = optional(d, o, "hook", "", []string{"prerouting", "input", "forward", "output", "postrouting"})
	if f, ok := o.get("priority"); ok {
		if v, ok := d.integer(f, minPriority, maxPriority); ok {
			p := int32(v)
			a.Priority = &p
		}
	}
	if f, ok := o.get("defrag"); ok {
		a.Defrag, _ = d.boolean(f)
	}
	if a.Attach != specs.HookNetfilter && first(o, netfilterOnly) == "" {
		return
	}
	var missing []string
	for _, key := range []string{"family", "hook"} {
		if _, ok := o.get(key); !ok {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 && o.whole && (a.Attach == "" || a.Attach == specs.HookNetfilter) {
		d.fail(o.pos, "for example family: ipv4, hook: input", "a netfilter program needs %s too", strings.Join(missing, " and "))
	}
	if f, ok := o.get("priority"); ok && a.Defrag && a.Priority != nil && *a.Priority <= defragPriority {
		d.fail(f.pos, "write a higher one", "with defrag the priority must be above %d", defragPriority)
	}
}
