// SPDX-License-Identifier: Apache-2.0

package thieves

// side are the programs on the actor's end of the veth pair.
func (s *scene) side() (in, out, xdp string) {
	if s.actor == hostRoot {
		return "host_sent", "host_received", "host_xdp"
	}
	return "ctr_received", "ctr_sent", "ctr_xdp"
}

// bothWays does something with both TCX hooks of the actor's end.
func (s *scene) bothWays(f func(direction, program string) error) error {
	in, out, _ := s.side()
	return each([][2]string{{"in", in}, {"out", out}}, func(a [2]string) error { return f(a[0], s.program(a[1])) })
}

// onDevice is a command of the thief with its end of the veth pair, tried with each
// of the arguments.
func onDevice(command string, args ...string) func(s *scene) error {
	return func(s *scene) error {
		if len(args) == 0 {
			return s.thief(command, s.device())
		}
		return each(args, func(arg string) error { return s.thief(command, s.device(), arg) })
	}
}

const tcxFirst = "TCX stops at the first verdict that is not `NEXT`. `verify` warns about who stands in front; XDP and what is on the " +
	"other end of the pair, out of a container's reach, still decide."

var deviceRows = []row{
	{
		name: "xdp-off", what: "netlink: XDP off (no flags, generic, native, hardware mode)", host: holds, caps: holds, own: holds,
		note: "Netlink changes nothing that a link holds; in a mode that is not in use there is nothing, and taking that off works.",
		do:   onDevice("xdp-off", "none", "skb", "drv", "hw"),
	},
	{
		name: "xdp-set", what: "netlink: another XDP program (no flags, generic, native, `UPDATE_IF_NOEXIST`)", host: refused, caps: refused, own: refused,
		do: onDevice("xdp-set", "none", "skb", "drv", "noexist", "noexist,drv", "noexist,skb"),
	},
	{
		name: "xdp-replace", what: "netlink: `XDP_FLAGS_REPLACE` with our program as the expected one", host: refused, caps: refused, own: refused,
		do: func(s *scene) error {
			_, _, xdp := s.side()
			return each([]string{"replace", "replace,drv"}, func(flags string) error {
				return s.thief("xdp-set", s.device(), flags, s.program(xdp))
			})
		},
	},
	{
		name: "tcx-detach", needs: needsTCX, what: "`BPF_PROG_DETACH` from TCX with the program's descriptor", host: refused, caps: refused, own: refused,
		do: func(s *scene) error {
			return s.bothWays(func(direction, program string) error { return s.thief("tcx-detach", s.device(), direction, program) })
		},
	},
	{
		name: "tcx-detach-any", needs: needsTCX, what: "the same without one, the first or the last of the hook", host: refused, caps: refused, own: refused,
		do: func(s *scene) error {
			return each([]string{"first", "last"}, func(which string) error {
				return s.bothWays(func(direction, _ string) error { return s.thief("tcx-detach", s.device(), direction, "0", which) })
			})
		},
	},
	{
		name: "tcx-replace", needs: needsTCX, what: "`BPF_PROG_ATTACH` to TCX with `REPLACE` of our program", host: refused, caps: refused, own: refused,
		do: func(s *scene) error {
			return s.bothWays(func(direction, program string) error {
				return s.thief("tcx-attach", s.device(), direction, "replace", "0", program)
			})
		},
	},
	{
		name: "tcx-before", needs: needsTCX, what: "a TCX program before ours that says `PASS`", host: warned, caps: warned, own: refused, note: tcxFirst,
		do: func(s *scene) error {
			return s.bothWays(func(direction, _ string) error { return s.thief("tcx-attach", s.device(), direction, "first", "0") })
		},
		used: true,
	},
	{
		name: "tcx-before-next", needs: needsTCX, what: "a TCX program before ours that says `NEXT`", host: holds, caps: holds, own: refused,
		do: func(s *scene) error {
			return s.bothWays(func(direction, _ string) error { return s.thief("tcx-attach", s.device(), direction, "first", "-1") })
		},
		used: true,
	},
	{
		name: "clsact", old: [3]class{refused, refused, refused}, what: "a clsact qdisc, filters that accept everything, flushing them, deleting the qdisc", host: holds, caps: holds, own: holds,
		note: "TCX runs before the filters of tc, and has nothing to do with its qdiscs.",
		do: func(s *scene) error {
			for _, command := range []string{"clsact", "flush", "clsact-del"} {
				if err := s.thief(command, s.device()); err != nil {
					return err
				}
			}
			return nil
		},
	},
	{
		name: "clsact-stays", what: "the same filters, left there", host: holds, caps: holds, own: holds,
		do: onDevice("clsact"), undo: func(s *scene) { _ = s.thief("clsact-del", s.device()) }, // the next row looks
	},
	{
		name: "clsact-del", old: [3]class{mended, mended, mended}, what: "deleting a clsact qdisc that nobody added", host: refused, caps: refused, own: refused,
		do: onDevice("clsact-del"),
	},
	{
		name: "ingress", old: [3]class{refused, refused, refused}, what: "an ingress qdisc, added and deleted", host: holds, caps: holds, own: holds, do: onDevice("ingress"),
	},
	{
		name: "root-qdisc", what: "another root qdisc, and deleting it", host: holds, caps: holds, own: holds, do: onDevice("root-qdisc"),
	},
}
