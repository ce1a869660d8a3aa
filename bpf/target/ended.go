// SPDX-License-Identifier: Apache-2.0

package target

import (
	"path/filepath"
	"strconv"
	"strings"
)

// deletedSuffix is what the kernel adds to the path of a cgroup that was removed
// (proc_cgroup_show in kernel/cgroup/cgroup.c).
const deletedSuffix = " (deleted)"

// CgroupRemoved reports whether the cgroup that a process was recorded in has been
// removed. The process then has no instruction left to run: it leaves its cgroup in
// exit(2), a moment before it becomes a zombie, and a cgroup can be removed only when
// all have left. path is the recorded one. ErrGone if there is no such process.
func CgroupRemoved(r Roots, pid int, path string) (bool, error) {
	name, err := r.cgroupName(strconv.Itoa(pid))
	if err != nil {
		return false, err
	}
	return strings.HasSuffix(name, "/"+filepath.Base(path)+deletedSuffix), nil
}
