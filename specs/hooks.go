// SPDX-License-Identifier: Apache-2.0

package specs

import "slices"

// Hook is an attach point, written as libbpf writes ELF section names:
// "cgroup/connect4", "tcx/ingress", "xdp".
type Hook string

// TargetKind is the kind of kernel object that a hook belongs to.
type TargetKind string

// The kinds of targets. No hook belongs to TargetPodCgroup by itself: the policy
// asks for it (Plan.Target).
const (
	TargetCgroup    TargetKind = "cgroup"
	TargetPodCgroup TargetKind = "pod-cgroup"
	TargetInterface TargetKind = "interface"
	TargetNetns     TargetKind = "netns"
	// TargetKernel is everything that happens on the machine, whoever does it. Such a
	// program has to look by itself whether its container is concerned; the link lives
	// as long as the container.
	TargetKernel TargetKind = "kernel"
)

// The hooks of interfaces and network namespaces.
const (
	HookTCXIngress    Hook = "tcx/ingress"    // kernel 6.6
	HookTCXEgress     Hook = "tcx/egress"     // kernel 6.6
	HookXDP           Hook = "xdp"            // link: kernel 5.9
	HookNetfilter     Hook = "netfilter"      // kernel 6.4
	HookSKLookup      Hook = "sk_lookup"      // kernel 5.9
	HookFlowDissector Hook = "flow_dissector" // link: kernel 5.8
)

// The hooks that are about a function or a tracepoint of the kernel, which the
// program's section names after a slash ("fentry/do_exit"): it is fixed at load. Those
// of TargetKernel a policy must ask for by name.
const (
	HookLSMCgroup Hook = "lsm_cgroup" // kernel 6.0; of the cgroup
	HookLSM       Hook = "lsm"        // kernel 5.7
	HookFentry    Hook = "fentry"     // kernel 5.7, as a link that can be pinned
	HookFexit     Hook = "fexit"      // kernel 5.7
	HookTPBTF     Hook = "tp_btf"     // kernel 5.7
)

// cgroupHooks are all cgroup attach points with a link, kernel 5.7 if not said otherwise.
var cgroupHooks = []Hook{
	"cgroup_skb/ingress", "cgroup_skb/egress",
	"cgroup/sock_create", "cgroup/sock_release",
	"cgroup/bind4", "cgroup/bind6", "cgroup/post_bind4", "cgroup/post_bind6",
	"cgroup/connect4", "cgroup/connect6", "cgroup/connect_unix",
	"cgroup/sendmsg4", "cgroup/sendmsg6", "cgroup/sendmsg_unix",
	"cgroup/recvmsg4", "cgroup/recvmsg6", "cgroup/recvmsg_unix",
	"cgroup/getpeername4", "cgroup/getpeername6", "cgroup/getpeername_unix",
	"cgroup/getsockname4", "cgroup/getsockname6", "cgroup/getsockname_unix",
	"cgroup/getsockopt", "cgroup/setsockopt",
	"cgroup/dev", "cgroup/sysctl", "sockops", HookLSMCgroup,
}

// Hooks lists every hook that linkpin attaches to.
func Hooks() []Hook {
	return append(append([]Hook(nil), cgroupHooks...),
		HookTCXIngress, HookTCXEgress, HookXDP, HookNetfilter, HookSKLookup, HookFlowDissector,
		HookTPBTF, HookFentry, HookFexit, HookLSM)
}

// InSection reports whether the object's section says what of the kernel h is about.
func (h Hook) InSection() bool {
	return h == HookLSMCgroup || h.Target() == TargetKernel
}

// Target returns the kind of target that h is attached to, or "" if h is not a hook.
func (h Hook) Target() TargetKind {
	switch h {
	case HookTCXIngress, HookTCXEgress, HookXDP:
		return TargetInterface
	case HookNetfilter, HookSKLookup, HookFlowDissector:
		return TargetNetns
	case HookTPBTF, HookFentry, HookFexit, HookLSM:
		return TargetKernel
	}
	if slices.Contains(cgroupHooks, h) {
		return TargetCgroup
	}
	return ""
}

// OnError says what happens to a container whose policy can't be attached.
type OnError string

// Deny keeps the container from starting; Allow lets it start and logs the error.
const (
	Deny  OnError = "deny"
	Allow OnError = "allow"
)

// CgroupOf says whose cgroup the cgroup programs of a policy are attached to.
type CgroupOf string

// The cgroups. That of the pod holds all of its containers, the pause container
// included, and needs a caller that has pods.
const (
	CgroupContainer CgroupOf = "container"
	CgroupPod       CgroupOf = "pod"
)

// Scope says who shares the maps and programs of a policy.
type Scope string

// The scopes. Only ScopeContainer is supported yet.
const (
	ScopeContainer Scope = "container"
	ScopePod       Scope = "pod"
	ScopeNode      Scope = "node"
)

// Teardown says what becomes of links that are still live when their container ends.
type Teardown string

// Drain leaves them to the kernel; Detach takes them off at once.
const (
	Drain  Teardown = "drain"
	Detach Teardown = "detach"
)

// TCFallback says what stands in for TCX links on a kernel that has none.
type TCFallback string

// FallbackClsact is a cls_bpf filter under a clsact qdisc. It has no owner: whoever
// may configure the device may take it off. No fallback, the default, refuses.
const FallbackClsact TCFallback = "clsact"

// Side is the end of an interface that a program is attached to.
type Side string

// The sides. SideAuto is what is stored for an attachment that gives only a
// direction: the host-side peer where there is one and it sees that direction,
// else the container's own interface.
const (
	SideAuto      Side = ""
	SideHost      Side = "host"
	SideContainer Side = "container"
)

// Direction is that of packets, seen from the container.
type Direction string

// The directions.
const (
	ToContainer   Direction = "to-container"
	FromContainer Direction = "from-container"
)

// XDPMode is where an XDP program runs.
type XDPMode string

// The modes. XDPAuto tries the driver first and falls back to generic mode; the
// record shows which it was.
const (
	XDPAuto    XDPMode = "auto"
	XDPNative  XDPMode = "native"
	XDPGeneric XDPMode = "generic"
)
