// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs"
)

// unowned are the section names of libbpf for filters under a clsact qdisc. They
// are no alias of tcx: a clsact filter has no owner, and who asks for one should
// learn that he gets something else.
var unowned = []string{"tc", "tc/ingress", "tc/egress", "classifier", "action", "tcx", "netkit"}

// hookHints are names that people write, or libbpf has as sections, and what to
// write instead.
var hookHints = map[string]string{
	"cgroup/skb":         "write cgroup_skb/ingress or cgroup_skb/egress",
	"cgroup_skb":         "write cgroup_skb/ingress or cgroup_skb/egress",
	"cgroup/skb/ingress": "write cgroup_skb/ingress",
	"cgroup/skb/egress":  "write cgroup_skb/egress",
	"cgroup/ingress":     "write cgroup_skb/ingress",
	"cgroup/egress":      "write cgroup_skb/egress",
	"cgroup/sock":        "write cgroup/sock_create, cgroup/sock_release, cgroup/post_bind4 or cgroup/post_bind6",
	"cgroup/connect":     "write cgroup/connect4 or cgroup/connect6",
	"cgroup/bind":        "write cgroup/bind4 or cgroup/bind6",
	"cgroup/post_bind":   "write cgroup/post_bind4 or cgroup/post_bind6",
	"cgroup/sendmsg":     "write cgroup/sendmsg4 or cgroup/sendmsg6",
	"cgroup/recvmsg":     "write cgroup/recvmsg4 or cgroup/recvmsg6",
	"cgroup/getpeername": "write cgroup/getpeername4 or cgroup/getpeername6",
	"cgroup/getsockname": "write cgroup/getsockname4 or cgroup/getsockname6",
	"cgroup/device":      "write cgroup/dev",
	"cgroup/sockops":     "write sockops",
	"cgroup/sock_ops":    "write sockops",
	"sock_ops":           "write sockops",
	"tracing":            "write tp_btf, fentry, fexit or lsm",
	"xdp.frags":          "write attach: xdp and frags: true",
	"xdp_frags":          "write attach: xdp and frags: true",
	"xdp/devmap":         "such a program runs from a map: write attach: none",
	"xdp/cpumap":         "such a program runs from a map: write attach: none",
	"cgroup_sock_addr":   "write the hook, such as cgroup/connect4",
	"ingress":            "write tcx/ingress or cgroup_skb/ingress",
	"egress":             "write tcx/egress or cgroup_skb/egress",
}

// elsewhere are the sections of programs that belong to no container.
var elsewhere = []string{
	"kprobe", "kretprobe", "uprobe", "uretprobe", "usdt", "tp", "tracepoint", "raw_tp", "raw_tracepoint",
	"fmod_ret", "freplace", "iter", "perf_event", "struct_ops", "syscall", "socket", "sk_skb",
	"sk_msg", "sk_reuseport", "lwt_in", "lwt_out", "lwt_xmit", "lirc_mode2", "ksyscall", "kretsyscall",
}

// whichText says what of the kernel a hook is about (specs.Hook.InSection).
var whichText = map[specs.Hook]string{
	specs.HookLSMCgroup: "which LSM hook",
	specs.HookLSM:       "which LSM hook",
	specs.HookFentry:    "which function",
	specs.HookFexit:     "which function",
	specs.HookTPBTF:     "which tracepoint",
}

// hook reads the name of a hook, or one of words.
func (d *decoder) hook(f field, words ...string) (specs.Hook, bool) {
	s, ok := d.word(f)
	if !ok {
		return "", false
	}
	if specs.Hook(s).Target() != "" || slices.Contains(words, s) {
		return specs.Hook(s), true
	}
	first, _, _ := strings.Cut(s, "/")
	remedy, cause := hookHints[s], "unknown hook %q"
	switch {
	case remedy != "":
	case slices.Contains(unowned, s), slices.Contains(unowned, first):
		remedy = "write tcx/ingress or tcx/egress, or give a direction"
		cause = "%q is not used: its filters have no owner"
		if first == "netkit" {
			cause = "%q is not supported yet"
		}
	case specs.Hook(first).InSection():
		remedy = "write " + first + "; " + whichText[specs.Hook(first)] + " it is stands in the object's section"
	case slices.Contains(elsewhere, first):
		remedy = "linkpin attaches to cgroups, interfaces and network namespaces, and of tracing programs those of tp_btf, fentry, fexit and lsm;" +
			" for a program that is only loaded write attach: none"
	default:
		remedy = hookList(s)
	}
	d.fail(f.pos, remedy, cause, shorten(s))
	return "", false
}

// hookList names the hook that is most like s, or all of them.
func hookList(s string) string {
	var names []string
	for _, h := range specs.Hooks() {
		names = append(names, string(h))
	}
	if near := nearest(s, names); near != "" {
		return "did you mean " + near + "?"
	}
	return "the hooks are " + strings.Join(names, ", ")
}
