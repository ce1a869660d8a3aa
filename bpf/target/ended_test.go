// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"testing"
)

func TestCgroupRemoved(t *testing.T) {
	proc := newFakeProc(t)
	for name, c := range map[string]struct {
		line string
		want bool
	}{
		"lives":             {"0::/pods/web\n", false},
		"removed":           {"0::/pods/web (deleted)\n", true},
		"another's":         {"0::/pods/db (deleted)\n", false},
		"only named so":     {"0::/pods/web (deleted)/inner\n", false},
		"above it is gone":  {"1:cpu:/pods/web (deleted)\n0::/pods/web\n", false},
		"no cgroup2 at all": {"1:cpu:/pods/web (deleted)\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			proc.t = t
			proc.write("77/cgroup", c.line)
			if got, err := CgroupRemoved(proc.roots(), 77, "/sys/fs/cgroup/pods/web"); err != nil || got != c.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	if _, err := CgroupRemoved(proc.roots(), 78, "/sys/fs/cgroup/pods/web"); !errors.Is(err, ErrGone) {
		t.Errorf("no such process: %v", err)
	}
}
