// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/target"
)

// maxDepth bounds the search for the program that keeps others off.
const maxDepth = 64

// attachCgroup makes a cgroup link. link.AttachCgroup would fall back to PROG_ATTACH.
func attachCgroup(prog *ebpf.Program, at ebpf.AttachType, c *target.Cgroup) (*Link, error) {
	lsm := at == ebpf.AttachLSMCgroup
	if lsm {
		if err := lsmRuns(); err != nil {
			return nil, err
		}
	}
	l, err := link.AttachRawLink(link.RawLinkOptions{
		Target:  int(c.Dir.Fd()),
		Program: prog,
		Attach:  at,
	})
	if err == nil {
		return wrapLink(l)
	}
	switch {
	case errors.Is(err, unix.EBADF):
		// cgroup_get_from_fd: the directory is not on cgroup2.
		return nil, remedy(fmt.Errorf("its directory is not on cgroup2, and cgroup v1 directories take no links (%w)", err),
			"mount cgroup2 (boot with systemd.unified_cgroup_hierarchy=1)")
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return nil, fmt.Errorf("the cgroup %w (%w)", target.ErrGone, err)
	case errors.Is(err, unix.E2BIG) && lsm:
		// CGROUP_LSM_NUM, include/linux/bpf-cgroup-defs.h
		return nil, remedy(fmt.Errorf("it has 64 programs of this type, or the kernel's ten places for LSM hooks are taken by others: the hook %w (%w)", ErrFull, err),
			"see them with: bpftool cgroup tree")
	case errors.Is(err, unix.E2BIG):
		// BPF_CGROUP_MAX_PROGS, include/linux/bpf-cgroup-defs.h
		return nil, remedy(fmt.Errorf("it has 64 programs of this type and %w (%w)", ErrFull, err),
			"see them with: bpftool cgroup show "+c.Path)
	case errors.Is(err, unix.EPERM) && !lsm: // their flags can't be told
		return nil, excluded(at, c, err)
	}
	return nil, err
}

// excluded explains EPERM: a program that was attached without BPF_F_ALLOW_MULTI to
// this cgroup, or without any flag to one above it (hierarchy_allows_attach in
// kernel/bpf/cgroup.c).
func excluded(at ebpf.AttachType, c *target.Cgroup, err error) error {
	const allowMulti = 1 << 1 // BPF_F_ALLOW_MULTI
	dir := c.Path
	for depth := range maxDepth {
		flags, ids, ok := attached(dir, at)
		if !ok || flags&allowMulti != 0 {
			break
		}
		if len(ids) > 0 && (depth == 0 || flags == 0) {
			p, e := programByID(ids[0])
			if e != nil {
				p = program{id: ids[0]}
			}
			return remedy(fmt.Errorf("%s was attached to cgroup %s so that no other may be added there or below: the hook %w (%w)", p, dir, ErrBusy, err),
				fmt.Sprintf("take it off (bpftool cgroup show %s), or attach it with the flag multi", dir))
		}
		if len(ids) > 0 {
			break
		}
		dir = filepath.Dir(dir)
	}
	return remedy(err, "linkpin needs CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN)")
}

// attached lists the programs of one cgroup; ok is false outside of cgroup2.
func attached(dir string, at ebpf.AttachType) (flags uint32, ids []uint32, ok bool) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, nil, false
	}
	defer f.Close()
	flags, ids, err = progQuery(int(f.Fd()), uint32(at), 0)
	return flags, ids, err == nil
}
