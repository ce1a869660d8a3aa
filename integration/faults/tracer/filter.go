// SPDX-License-Identifier: Apache-2.0

package tracer

import "golang.org/x/sys/unix"

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArg0   = 16 // the low half, on little-endian machines
)

// filter returns a program for seccomp(2) that traces the calls of the table and
// lets all others pass.
func filter(arch uint32, calls []syscallInfo) []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	equal := func(k uint32, jt, jf uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: jt, Jf: jf}
	}
	answer := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
	}
	prog := []unix.SockFilter{
		load(offsetArch),
		equal(arch, 1, 0),
		answer(unix.SECCOMP_RET_KILL_PROCESS), // another ABI would have other numbers
		load(offsetNumber),
	}
	for _, c := range calls {
		if c.domain == 0 {
			prog = append(prog, equal(uint32(c.number), 0, 1), answer(unix.SECCOMP_RET_TRACE))
			continue
		}
		prog = append(prog,
			equal(uint32(c.number), 0, 4),
			load(offsetArg0),
			equal(c.domain, 0, 1),
			answer(unix.SECCOMP_RET_TRACE),
			answer(unix.SECCOMP_RET_ALLOW))
	}
	return append(prog, answer(unix.SECCOMP_RET_ALLOW))
}
