// SPDX-License-Identifier: Apache-2.0

package target

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// deletedSuffix is what the kernel adds to the path of a cgroup that was removed
// (proc_cgroup_show in kernel/cgroup/cgroup.c).
const deletedSuffix = " (deleted)"

// CgroupRemoved reports whether the cgroup in which a process was recorded has been
// removed, and the process with it, although it does not look so yet: a process leaves
// its cgroup in exit(2), a moment before it becomes a zombie, and a cgroup can be removed
// when all have left. path and id are the recorded ones. ErrGone if there is no such process.
func CgroupRemoved(r Roots, pid int, path string, id uint64) (bool, error) {
	name, err := r.cgroupName(strconv.Itoa(pid))
	if err != nil {
		return false, err
	}
	// A cgroup may be called so by its owner: its id tells.
	if !strings.HasSuffix(name, "/"+filepath.Base(path)+deletedSuffix) {
		return false, nil
	}
	exists, err := r.cgroupExists(id)
	return !exists && err == nil, err
}

// fileidKernfs is FILEID_KERNFS in the kernel's list of file handles: the handle is the 64-bit id
// (kernel 5.5; kernfs_encode_fh in fs/kernfs/mount.c).
const fileidKernfs = 0xfe

// cgroupExists reports whether the kernel has a cgroup of that id, wherever it is. It
// needs CAP_DAC_READ_SEARCH.
func (r Roots) cgroupExists(id uint64) (exists bool, err error) {
	handle := unix.NewFileHandle(fileidKernfs, binary.NativeEndian.AppendUint64(nil, id))
	asked := false
	scan := r.cgroup2Mounts(func(m mount) bool {
		dir, e := unix.Open(m.point, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if e != nil {
			err = e
			return false
		}
		defer unix.Close(dir)
		fd, e := unix.OpenByHandleAt(dir, handle, unix.O_RDONLY|unix.O_CLOEXEC)
		switch {
		case e == nil:
			unix.Close(fd)
			exists, asked = true, true
		case errors.Is(e, unix.ESTALE), errors.Is(e, unix.ENOENT):
			asked = true
		default:
			err = e
		}
		return asked
	})
	switch {
	case scan != nil:
		return false, scan
	case asked:
		return exists, nil
	}
	return false, errors.Join(ErrNoCgroup2, err)
}
