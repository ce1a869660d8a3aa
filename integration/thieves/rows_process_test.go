// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// moveFirst moves the container's first process to a cgroup.
func moveFirst(s *scene, dir string) error {
	pid := "1"
	if s.actor == hostRoot {
		pid = fmt.Sprint(s.pid)
	}
	return s.thief("move", dir, pid)
}

// sibling is a cgroup beside the container's.
func sibling(s *scene) string {
	dir := s.cgroup("..", "sibling")
	_ = s.thief("mkdir", dir) // shows in what follows
	return dir
}

// from sends by a command of the thief in a cgroup.
func from(dir func(s *scene) string, join string) []sender {
	return []sender{func(s *scene, port, token string) error { return s.thief(join, dir(s), "tcp", port, token) }}
}

func lookPath(s *scene, name string) string {
	path, err := exec.LookPath(name)
	s.check(err)
	return path
}

const leaves = "Programs are those of the cgroup that a socket was created in. Give no container a writable cgroup file system together with the host's cgroup namespace."

var (
	tcpPorts    = []string{"1001"}
	packetPorts = []string{"1002", "1003", "2001", "2003", "3001"}
)

var processRows = []row{
	{
		name: "leave", what: "moving the container's first process to another cgroup", host: seen, caps: seen,
		note: leaves + " `verify` says where it is; linkpin does not move it back.",
		do:   func(s *scene) error { return moveFirst(s, sibling(s)) }, used: true,
	},
	{
		name: "leave-other", what: "moving another process of it, or starting one there (`CLONE_INTO_CGROUP`)", caps: outside,
		note: leaves,
		by:   from(sibling, "join"), ports: tcpPorts,
	},
	{
		name: "leave-cgroupns", what: "the same in a cgroup namespace of its own", caps: refused, own: refused,
		note: "Its cgroup file system ends at its own cgroup.",
		opts: options{cgroupns: true}, by: from(sibling, "join"), ports: tcpPorts,
	},
	{
		name: "child-cgroup", what: "moving into a child cgroup", host: holds, caps: holds, own: refused,
		note: "Programs apply to all descendants.",
		do:   func(s *scene) error { return moveFirst(s, child(s)) }, used: true,
	},
	{
		name: "child-delegated", what: "the same, where the cgroup belongs to the container", own: refused,
		opts: options{delegate: true}, by: from(child, "join"), ports: tcpPorts, used: true,
	},
	{
		name: "threaded", what: "a threaded child cgroup, with one thread in it", caps: holds, own: refused,
		do: func(s *scene) error { return s.thief("write", filepath.Join(child(s), "cgroup.type"), "threaded") },
		by: from(func(s *scene) string { return s.cgroup("child") }, "join-thread"), ports: tcpPorts, used: true,
	},
	{
		name: "cgroupns", what: "a new cgroup namespace", caps: refused, own: refused,
		note: "Namespaces change what is seen, not where a process is.",
		by:   []sender{thief("with", "cgroup", "tcp")}, ports: tcpPorts,
	},
	{
		name: "netns", what: "a new network namespace", caps: refused, own: refused,
		note: "It has no interface, hence no way out; the cgroup is the same.",
		by:   []sender{thief("with", "net", "udp")}, ports: packetPorts,
	},
	{
		name: "userns", what: "new user, mount and cgroup namespaces", caps: holds, own: holds,
		by: []sender{thief("with", "user,mnt,cgroup", "udp")}, ports: packetPorts,
	},
	{
		name: "setns", what: "`setns` to the host's network namespace, where the process namespace is the host's", caps: refused, own: refused,
		opts: options{hostPID: true},
		note: "It takes all capabilities that the other process has, or `CAP_SYS_PTRACE`.",
		by:   []sender{thief("in-netns", "/proc/1/ns/net", "udp")}, ports: devicePorts,
	},
	{
		name: "setns-ptrace", what: "the same with `CAP_SYS_PTRACE` as well, against interface programs", caps: outside, own: refused,
		opts: options{hostPID: true, ptrace: true},
		note: "With these and the host's processes in sight it is the host. Programs on the cgroup hold.",
		by:   []sender{thief("in-netns", "/proc/1/ns/net", "udp")}, ports: devicePorts,
	},
	{
		name: "setns-cgroup", what: "the same, against programs on the cgroup", caps: refused, own: refused,
		opts: options{hostPID: true, ptrace: true},
		by:   []sender{thief("in-netns", "/proc/1/ns/net", "tcp")}, ports: tcpPorts,
	},
	{
		name: "exec", what: "a process by `runc exec`", host: refused,
		note: "It joins the cgroup and the namespaces of the container.",
		by: []sender{func(s *scene, port, token string) error {
			if out, code := s.run(lookPath(s, "runc"), "exec", id, "/bin/thief", "tcp", port, token); code != 0 {
				return fmt.Errorf("runc exec: %s", out)
			}
			return nil
		}},
		ports: tcpPorts,
	},
	{
		name: "nsenter", what: "a process of the host in the container's network namespace, against programs on the cgroup", host: outside,
		note: "It is in another cgroup. Programs on the interface hold.",
		by:   []sender{thief("in-netns", netnsPath, "udp")}, ports: []string{"1002", "1003"},
	},
	{
		name: "nsenter-device", what: "the same, against interface programs", host: holds,
		by: []sender{thief("in-netns", netnsPath, "udp")}, ports: devicePorts,
	},
}
