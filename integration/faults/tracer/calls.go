// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// syscallInfo is a system call that is counted.
type syscallInfo struct {
	number  uint64
	name    string
	path    int    // index of the argument that is a path, -1 for none
	domain  uint32 // only with this first argument; 0: with any
	netlink bool   // only if the first argument is a netlink socket
}

// bpfNames are the commands of bpf(2) that linkpin uses, for messages.
var bpfNames = map[uint64]string{
	unix.BPF_MAP_CREATE: "MAP_CREATE", unix.BPF_MAP_LOOKUP_ELEM: "MAP_LOOKUP_ELEM", unix.BPF_MAP_UPDATE_ELEM: "MAP_UPDATE_ELEM",
	unix.BPF_MAP_DELETE_ELEM: "MAP_DELETE_ELEM", unix.BPF_MAP_GET_NEXT_KEY: "MAP_GET_NEXT_KEY", unix.BPF_PROG_LOAD: "PROG_LOAD",
	unix.BPF_OBJ_PIN: "OBJ_PIN", unix.BPF_OBJ_GET: "OBJ_GET", unix.BPF_PROG_ATTACH: "PROG_ATTACH", unix.BPF_PROG_DETACH: "PROG_DETACH",
	unix.BPF_PROG_TEST_RUN: "PROG_TEST_RUN", unix.BPF_PROG_GET_NEXT_ID: "PROG_GET_NEXT_ID", unix.BPF_MAP_GET_NEXT_ID: "MAP_GET_NEXT_ID",
	unix.BPF_PROG_GET_FD_BY_ID: "PROG_GET_FD_BY_ID", unix.BPF_MAP_GET_FD_BY_ID: "MAP_GET_FD_BY_ID",
	unix.BPF_OBJ_GET_INFO_BY_FD: "OBJ_GET_INFO_BY_FD", unix.BPF_PROG_QUERY: "PROG_QUERY", unix.BPF_BTF_LOAD: "BTF_LOAD",
	unix.BPF_BTF_GET_FD_BY_ID: "BTF_GET_FD_BY_ID", unix.BPF_MAP_FREEZE: "MAP_FREEZE", unix.BPF_BTF_GET_NEXT_ID: "BTF_GET_NEXT_ID",
	unix.BPF_MAP_UPDATE_BATCH: "MAP_UPDATE_BATCH", unix.BPF_LINK_CREATE: "LINK_CREATE", unix.BPF_LINK_UPDATE: "LINK_UPDATE",
	unix.BPF_LINK_GET_FD_BY_ID: "LINK_GET_FD_BY_ID", unix.BPF_LINK_GET_NEXT_ID: "LINK_GET_NEXT_ID", unix.BPF_LINK_DETACH: "LINK_DETACH",
}

// makes says what a command of bpf(2) returns a new descriptor of.
var makes = map[uint64]ObjectKind{
	unix.BPF_MAP_CREATE:          Map,
	unix.BPF_PROG_LOAD:           Program,
	unix.BPF_LINK_CREATE:         Link,
	unix.BPF_RAW_TRACEPOINT_OPEN: Link,
}

// describe names a call for people.
func describe(tid int, info *syscallInfo, args [6]uint64) string {
	switch {
	case info.number == unix.SYS_BPF:
		if name, ok := bpfNames[args[0]]; ok {
			return "bpf " + name
		}
		return fmt.Sprintf("bpf %d", args[0])
	case info.path >= 0:
		return info.name + " " + readString(tid, uintptr(args[info.path]))
	}
	return info.name
}

// readString reads a path from the memory of a stopped thread.
func readString(tid int, addr uintptr) string {
	// Not beyond the page: what follows it may not be mapped.
	buf := make([]byte, min(256, 4096-int(addr%4096)))
	n, err := unix.PtracePeekData(tid, addr, buf)
	if err != nil {
		return "?"
	}
	return unix.ByteSliceToString(buf[:n])
}
