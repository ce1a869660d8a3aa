// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"strconv"
	"strings"
)

// Target is what the links of an entry are on. It ends the names of retired entries and
// of staging directories, so that who comes to a target finds what concerns it without
// opening all the others. At most one field is set; none if it is not known.
type Target struct {
	Cgroup uint64 // id of a cgroup
	Netns  uint64 // cookie of a network namespace, also if the device is the host's end
}

// Concerns reports whether links that are on t may be on other: what is not known may be
// anywhere.
func (t Target) Concerns(other Target) bool { return t == Target{} || t == other }

// suffix is the reverse of cutTarget.
func (t Target) suffix() string {
	switch {
	case t.Cgroup != 0:
		return "_" + strconv.FormatUint(t.Cgroup, 10)
	case t.Netns != 0:
		return "_n" + strconv.FormatUint(t.Netns, 10)
	}
	return ""
}

// cutTarget reads the target at the end of a name. The error is ErrName.
func cutTarget(name string) (t Target, err error) {
	_, text, ok := strings.Cut(name, "_")
	if !ok {
		return t, nil
	}
	into := &t.Cgroup
	if number, netns := strings.CutPrefix(text, "n"); netns {
		text, into = number, &t.Netns
	}
	if *into, err = strconv.ParseUint(text, 10, 64); err != nil {
		return Target{}, nameError(name)
	}
	return t, nil
}

// StagingTarget returns what the links in a staging directory are on. The zero Target
// stands for a name that does not say it.
func StagingTarget(name string) Target {
	t, err := cutTarget(name)
	if err != nil {
		return Target{}
	}
	return t
}
