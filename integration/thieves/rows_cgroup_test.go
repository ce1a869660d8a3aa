// SPDX-License-Identifier: Apache-2.0

package thieves

// attachRow attaches what allows everything to every hook of a cgroup.
func attachRow(mode string, dir func(s *scene) string) func(s *scene) error {
	return func(s *scene) error {
		at := dir(s)
		return each(cgroupPrograms, func(hook string) error {
			args := []string{"prog-attach", at, hook, mode}
			if mode == "replace" {
				args = append(args, s.program(hook))
			}
			return s.thief(args...)
		})
	}
}

func own(s *scene) string    { return s.cgroup() }
func parent(s *scene) string { return s.cgroup("..") }

// child makes a child cgroup.
func child(s *scene) string {
	dir := s.cgroup("child")
	_ = s.thief("mkdir", dir) // shows in what follows
	return dir
}

const modesNote = "A legacy attachment can't share a hook with a link unless it says `ALLOW_MULTI`, and then it comes beside it."

var cgroupRows = []row{
	{
		name: "detach", what: "`BPF_PROG_DETACH` with the program's descriptor", host: refused, caps: refused, own: refused,
		note: "Only the holder of a link can end it this way.",
		do: func(s *scene) error {
			dir := s.cgroup()
			return each(cgroupPrograms, func(hook string) error { return s.thief("prog-detach", dir, hook, s.program(hook)) })
		},
	},
	{
		name: "detach-any", what: "`BPF_PROG_DETACH` without a descriptor", host: refused, caps: refused, own: refused,
		do: func(s *scene) error {
			dir := s.cgroup()
			return each(cgroupPrograms, func(hook string) error { return s.thief("prog-detach", dir, hook, "0") })
		},
	},
	{
		name: "attach-none", what: "`BPF_PROG_ATTACH` without flags", host: refused, caps: refused, own: refused, note: modesNote,
		do: attachRow("none", own),
	},
	{
		name: "attach-override", what: "`BPF_PROG_ATTACH` with `ALLOW_OVERRIDE`", host: refused, caps: refused, own: refused,
		do: attachRow("override", own),
	},
	{
		name: "attach-replace", what: "`BPF_PROG_ATTACH` with `ALLOW_MULTI` and `REPLACE` of our program", host: refused, caps: refused, own: refused,
		do: attachRow("replace", own),
	},
	{
		name: "attach-multi", what: "`BPF_PROG_ATTACH` with `ALLOW_MULTI`", host: holds, caps: holds, own: refused,
		note: "All programs of a cgroup run and all must allow: a neighbour can only forbid more.",
		do:   attachRow("multi", own), used: true,
	},
	{
		name: "attach-first", needs: 615, what: "the same, to run first (`BPF_F_PREORDER`)", host: holds, caps: holds, own: refused,
		do: attachRow("first", own), used: true,
	},
	{
		name: "attach-parent", what: "`BPF_PROG_ATTACH` to the parent cgroup in each mode", host: holds, caps: holds,
		note: "What the container's own cgroup has stays. Who has a user namespace of its own does not see the parent.",
		do: func(s *scene) error {
			return each([]string{"none", "override", "multi", "first"}, func(mode string) error {
				return each(cgroupPrograms, func(hook string) error {
					err := s.thief("prog-attach", parent(s), hook, mode)
					return err
				})
			})
		},
		used: true,
	},
	{
		name: "attach-child", what: "a child cgroup, `BPF_PROG_ATTACH` to it in each mode, and a connection from there", host: holds, caps: holds, own: refused,
		note: "Programs of an ancestor that allows neighbours, as a link does, run for all descendants.",
		do: func(s *scene) error {
			dir := child(s)
			return each([]string{"none", "override", "multi"}, func(mode string) error {
				return each(cgroupPrograms, func(hook string) error { return s.thief("prog-attach", dir, hook, mode) })
			})
		},
		by: []sender{func(s *scene, port, token string) error {
			if s.actor == hostRoot { // the thief itself, in the container's child cgroup and namespace
				return s.thief("join", child(s), "in-netns", netnsPath, "tcp", port, token)
			}
			return s.thief("join", child(s), "tcp", port, token)
		}},
		ports: []string{"1001"},
		used:  true,
	},
	{
		name: "rewrite", what: "a program behind ours on `connect4` that sends a permitted connection on to a forbidden port", host: warned, caps: warned, own: refused,
		note: "Programs may rewrite addresses, and each sees what the one before it left. `verify` warns about who stands behind, at every hook that can rewrite. Decide about packets as well (`cgroup_skb`, or the interface): they show where they go.",
		do:   func(s *scene) error { return s.thief("rewrite", s.cgroup(), "1000", "1001") },
		by:   []sender{inside("tcp")}, ports: []string{"1000"}, at: 1001, used: true,
	},
	{
		name: "rewrite-parent", what: "the same on the parent cgroup", host: warned, caps: warned,
		note: "As above: ancestors' programs run after the container's own.",
		do:   func(s *scene) error { return s.thief("rewrite", parent(s), "1000", "1001") },
		by:   []sender{inside("tcp")}, ports: []string{"1000"}, at: 1001, used: true,
	},
	{
		name: "exclusive-parent", what: "`BPF_PROG_ATTACH` without flags to the parent cgroup, then `BPF_LINK_DETACH`", host: seen, caps: seen,
		note: "Below an exclusive attachment the kernel lets nobody attach. The repair says whose it is: take it off and repair again.",
		do: func(s *scene) error {
			if err := s.thief("prog-attach", parent(s), "connect4", "none"); err != nil {
				return err
			}
			return s.thief(append([]string{"link-detach"}, s.links("connect4")...)...)
		},
		used: true,
	},
}
