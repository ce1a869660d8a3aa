// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/specs"
)

// Sections with what cilium/ebpf makes of them (elf_sections.go), and the hook.
func TestFromSection(t *testing.T) {
	for _, h := range specs.Hooks() {
		pt, at, err := Types(h)
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range []string{string(h), "?" + string(h), string(h) + "_mine"} {
			if got, err := FromSection(section, pt, at); got != h {
				t.Errorf("%q: %s, %v, want %s", section, got, err, h)
			}
		}
	}
	for _, c := range []struct {
		section string
		t       ebpf.ProgramType
		a       ebpf.AttachType
		want    specs.Hook
	}{
		{"tc/ingress", ebpf.SchedCLS, ebpf.AttachTCXIngress, "tcx/ingress"},
		{"tc/egress", ebpf.SchedCLS, ebpf.AttachTCXEgress, "tcx/egress"},
		{"xdp.frags", ebpf.XDP, ebpf.AttachXDP, "xdp"},
		{"xdp_drop", ebpf.XDP, ebpf.AttachXDP, "xdp"},
		{"cgroup/sock", ebpf.CGroupSock, ebpf.AttachCGroupInetSockCreate, "cgroup/sock_create"},
		{"lsm_cgroup/socket_bind", ebpf.LSM, ebpf.AttachLSMCgroup, "lsm_cgroup"},
		{"lsm/bpf", ebpf.LSM, ebpf.AttachLSMMac, specs.HookLSM},
		{"lsm.s/bpf", ebpf.LSM, ebpf.AttachLSMMac, specs.HookLSM},
		{"fentry/x", ebpf.Tracing, ebpf.AttachTraceFEntry, specs.HookFentry},
		{"fexit.s/x", ebpf.Tracing, ebpf.AttachTraceFExit, specs.HookFexit},
		{"tp_btf/sys_enter", ebpf.Tracing, ebpf.AttachTraceRawTp, specs.HookTPBTF},
		{"sk_lookup/echo", ebpf.SkLookup, ebpf.AttachSkLookup, "sk_lookup"},
	} {
		if got, err := FromSection(c.section, c.t, c.a); got != c.want {
			t.Errorf("%q: %s, %v, want %s", c.section, got, err, c.want)
		}
	}
}

func TestSectionsThatDoNotSay(t *testing.T) {
	all := slices.DeleteFunc(specs.Hooks(), specs.Hook.InSection)
	if slices.Contains(all, specs.HookLSMCgroup) || slices.Contains(all, specs.HookFentry) || !slices.Contains(all, "sockops") {
		t.Errorf("hooks that are in no section: %v", all)
	}
	skb := []specs.Hook{"cgroup_skb/ingress", "cgroup_skb/egress"}
	tcx := []specs.Hook{"tcx/ingress", "tcx/egress"}
	for _, c := range []struct {
		section string
		t       ebpf.ProgramType
		a       ebpf.AttachType
		could   []specs.Hook
		text    string
	}{
		{"cgroup/skb", ebpf.CGroupSKB, 0, skb, "it could be cgroup_skb/ingress or cgroup_skb/egress"},
		{"?cgroup/skb", ebpf.CGroupSKB, 0, skb, "direction"},
		{"tc", ebpf.SchedCLS, 0, tcx, "it could be tcx/ingress or tcx/egress"},
		{"classifier", ebpf.SchedCLS, 0, tcx, "direction"},
		{"classifier/ingress", ebpf.SchedCLS, 0, tcx, "direction"},
		{"tc_egress", ebpf.SchedCLS, 0, tcx, "direction"},
		{"action", ebpf.SchedACT, 0, tcx, "direction"},
		{"xdp/devmap", ebpf.XDP, ebpf.AttachXDPDevMap, nil, "run from a map"},
		{"xdp.frags/cpumap", ebpf.XDP, ebpf.AttachXDPCPUMap, nil, "run from a map"},
		{"netkit/primary", ebpf.SchedCLS, ebpf.AttachNetkitPrimary, nil, "no container"},
		{"kprobe/x", ebpf.Kprobe, 0, nil, "type Kprobe"},
		{"fmod_ret/x", ebpf.Tracing, ebpf.AttachModifyReturn, nil, "type Tracing"},
		{"iter/task", ebpf.Tracing, ebpf.AttachTraceIter, nil, "type Tracing"},
		{"raw_tp/sys_enter", ebpf.RawTracepoint, 0, nil, "type RawTracepoint"},
		{"socket", ebpf.SocketFilter, 0, nil, "type SocketFilter"},
		{"sk_msg", ebpf.SkMsg, ebpf.AttachSkMsgVerdict, nil, "type SkMsg"},
		{"cgroup/connect", 0, 0, []specs.Hook{"cgroup/connect4", "cgroup/connect6", "cgroup/connect_unix"}, "cgroup/connect4, cgroup/connect6 or cgroup/connect_unix"},
		{"cgroup/getsock", 0, 0, nil, "cgroup/getsockname4"},
		{"prog", 0, 0, all, "cgroup_skb/ingress"},
		{"custom", 0, 0, all, "not one that linkpin knows"},
		{"", 0, 0, all, "not one that linkpin knows"},
	} {
		h, err := FromSection(c.section, c.t, c.a)
		var s *SectionError
		if h != "" || !errors.As(err, &s) {
			t.Errorf("%q: %q, %v, want a SectionError", c.section, h, err)
			continue
		}
		if c.could != nil && !slices.Equal(s.Could, c.could) {
			t.Errorf("%q could be %v, want %v", c.section, s.Could, c.could)
		}
		if !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), `"`+c.section+`"`) {
			t.Errorf("%q: %v, want %q in it", c.section, err, c.text)
		}
	}
}
