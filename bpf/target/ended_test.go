// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

func TestCgroupRemoved(t *testing.T) {
	const gone = 1 << 60 // no kernel counts that far
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
			if got, err := CgroupRemoved(proc.roots(), 77, "/sys/fs/cgroup/pods/web", gone); err != nil || got != c.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	// Whoever may make cgroups may give them such a name.
	dir := bpftest.Cgroup(t)
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	proc.write("77/cgroup", "0::/pods/web (deleted)\n")
	if got, err := CgroupRemoved(proc.roots(), 77, "/sys/fs/cgroup/pods/web", st.Ino); err != nil || got {
		t.Errorf("a cgroup that is there, elsewhere: %v, %v", got, err)
	}
	if _, err := CgroupRemoved(proc.roots(), 78, "/sys/fs/cgroup/pods/web", gone); !errors.Is(err, ErrGone) {
		t.Errorf("no such process: %v", err)
	}
}
