// SPDX-License-Identifier: Apache-2.0

// Package hooks ties the names of specs.Hook to the kernel's program and attach
// types, and knows which kernel each hook needs. It makes no system calls.
package hooks

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/specs"
)

// row is what the kernel calls one hook. since is the first mainline release
// whose bpf(2) can make a link of this attach type that can be pinned.
type row struct {
	hook    specs.Hook
	program ebpf.ProgramType
	attach  ebpf.AttachType
	since   Version
}

// table follows include/uapi/linux/bpf.h (enum bpf_attach_type). The releases are
// those of the attach type or of its link type, whichever came later; links of
// tracing programs, older than bpf_link, can be pinned since 5.7 (commit 70ed506c3bbc).
var table = [...]row{
	{"cgroup_skb/ingress", ebpf.CGroupSKB, ebpf.AttachCGroupInetIngress, Version{5, 7}},
	{"cgroup_skb/egress", ebpf.CGroupSKB, ebpf.AttachCGroupInetEgress, Version{5, 7}},
	{"cgroup/sock_create", ebpf.CGroupSock, ebpf.AttachCGroupInetSockCreate, Version{5, 7}},
	{"cgroup/sock_release", ebpf.CGroupSock, ebpf.AttachCgroupInetSockRelease, Version{5, 9}},
	{"cgroup/bind4", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Bind, Version{5, 7}},
	{"cgroup/bind6", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Bind, Version{5, 7}},
	{"cgroup/post_bind4", ebpf.CGroupSock, ebpf.AttachCGroupInet4PostBind, Version{5, 7}},
	{"cgroup/post_bind6", ebpf.CGroupSock, ebpf.AttachCGroupInet6PostBind, Version{5, 7}},
	{"cgroup/connect4", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect, Version{5, 7}},
	{"cgroup/connect6", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Connect, Version{5, 7}},
	{"cgroup/connect_unix", ebpf.CGroupSockAddr, ebpf.AttachCgroupUnixConnect, Version{6, 7}},
	{"cgroup/sendmsg4", ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP4Sendmsg, Version{5, 7}},
	{"cgroup/sendmsg6", ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP6Sendmsg, Version{5, 7}},
	{"cgroup/sendmsg_unix", ebpf.CGroupSockAddr, ebpf.AttachCgroupUnixSendmsg, Version{6, 7}},
	{"cgroup/recvmsg4", ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP4Recvmsg, Version{5, 7}},
	{"cgroup/recvmsg6", ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP6Recvmsg, Version{5, 7}},
	{"cgroup/recvmsg_unix", ebpf.CGroupSockAddr, ebpf.AttachCgroupUnixRecvmsg, Version{6, 7}},
	{"cgroup/getpeername4", ebpf.CGroupSockAddr, ebpf.AttachCgroupInet4GetPeername, Version{5, 8}},
	{"cgroup/getpeername6", ebpf.CGroupSockAddr, ebpf.AttachCgroupInet6GetPeername, Version{5, 8}},
	{"cgroup/getpeername_unix", ebpf.CGroupSockAddr, ebpf.AttachCgroupUnixGetpeername, Version{6, 7}},
	{"cgroup/getsockname4", ebpf.CGroupSockAddr, ebpf.AttachCgroupInet4GetSockname, Version{5, 8}},
	{"cgroup/getsockname6", ebpf.CGroupSockAddr, ebpf.AttachCgroupInet6GetSockname, Version{5, 8}},
	{"cgroup/getsockname_unix", ebpf.CGroupSockAddr, ebpf.AttachCgroupUnixGetsockname, Version{6, 7}},
	{"cgroup/getsockopt", ebpf.CGroupSockopt, ebpf.AttachCGroupGetsockopt, Version{5, 7}},
	{"cgroup/setsockopt", ebpf.CGroupSockopt, ebpf.AttachCGroupSetsockopt, Version{5, 7}},
	{"cgroup/dev", ebpf.CGroupDevice, ebpf.AttachCGroupDevice, Version{5, 7}},
	{"cgroup/sysctl", ebpf.CGroupSysctl, ebpf.AttachCGroupSysctl, Version{5, 7}},
	{"sockops", ebpf.SockOps, ebpf.AttachCGroupSockOps, Version{5, 7}},
	{specs.HookLSMCgroup, ebpf.LSM, ebpf.AttachLSMCgroup, Version{6, 0}},
	{specs.HookTCXIngress, ebpf.SchedCLS, ebpf.AttachTCXIngress, Version{6, 6}},
	{specs.HookTCXEgress, ebpf.SchedCLS, ebpf.AttachTCXEgress, Version{6, 6}},
	{specs.HookXDP, ebpf.XDP, ebpf.AttachXDP, Version{5, 9}},
	{specs.HookNetfilter, ebpf.Netfilter, ebpf.AttachNetfilter, Version{6, 4}},
	{specs.HookSKLookup, ebpf.SkLookup, ebpf.AttachSkLookup, Version{5, 9}},
	{specs.HookFlowDissector, ebpf.FlowDissector, ebpf.AttachFlowDissector, Version{5, 8}},
	{specs.HookTPBTF, ebpf.Tracing, ebpf.AttachTraceRawTp, Version{5, 7}},
	{specs.HookFentry, ebpf.Tracing, ebpf.AttachTraceFEntry, Version{5, 7}},
	{specs.HookFexit, ebpf.Tracing, ebpf.AttachTraceFExit, Version{5, 7}},
	{specs.HookLSM, ebpf.LSM, ebpf.AttachLSMMac, Version{5, 7}},
}

// Version is a mainline kernel release.
type Version struct{ Major, Minor int }

// String returns "6.6".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Less reports whether v is older than o.
func (v Version) Less(o Version) bool {
	return v.Major < o.Major || v.Major == o.Major && v.Minor < o.Minor
}

func find(h specs.Hook) *row {
	for i := range table {
		if table[i].hook == h {
			return &table[i]
		}
	}
	return nil
}

// Types returns the program type and the expected attach type with which a
// program for h is loaded. The error says that h is not a hook.
func Types(h specs.Hook) (ebpf.ProgramType, ebpf.AttachType, error) {
	r := find(h)
	if r == nil {
		return ebpf.UnspecifiedProgram, ebpf.AttachNone, fmt.Errorf("%q is not a hook", string(h))
	}
	return r.program, r.attach, nil
}

// Since returns the first kernel release that has links for h, and the zero
// Version if h is not a hook.
func Since(h specs.Hook) Version {
	if r := find(h); r != nil {
		return r.since
	}
	return Version{}
}

// FromAttachType returns the hook that the kernel calls a. ok is false for what
// linkpin does not attach to.
func FromAttachType(a ebpf.AttachType) (h specs.Hook, ok bool) {
	for i := range table {
		if table[i].attach == a {
			return table[i].hook, true
		}
	}
	return "", false
}
