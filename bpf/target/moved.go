// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// PIDIn reports whether a process is in a cgroup or below it, and if it is not, where
// it is, as the kernel calls it. ErrGone if the process that started at start has ended.
func PIDIn(r Roots, c *Cgroup, pid int, start ProcessStart) (where string, inside bool, err error) {
	if err := stillThere(r, pid, start); err != nil {
		return "", false, err
	}
	// Nearly always it is right there.
	inside, err = c.lists("cgroup.procs", pid)
	if inside || err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return "", inside, goneIf(err)
	}
	if where, err = r.cgroupName(strconv.Itoa(pid)); err != nil {
		return "", false, fault.New(pidName(pid), err, "")
	}
	cg, err := cgroupOf(r, pid)
	switch {
	case errors.Is(err, ErrForbidden):
		err = nil // the root cgroup, or one of ours: that of no container
	case err == nil:
		inside, err = c.Contains(cg)
		err = errors.Join(err, cg.Close())
	}
	if gone := stillThere(r, pid, start); gone != nil {
		return "", false, gone
	}
	return where, inside, err
}
