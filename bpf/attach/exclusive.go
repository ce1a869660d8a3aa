// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/specs"
)

// Exclusive is a program that was attached without a link and without flags to a
// cgroup that has cgroups below it: none of these can get a link at its hook (EPERM).
type Exclusive struct {
	Cgroup  string // path of the directory
	Hook    specs.Hook
	Program string // as messages name it
}

// The bounds of the walk: cgroups of pods are not deep, but there may be many.
const (
	maxExclusiveDepth = 5
	maxExclusiveDirs  = 4096
)

// FindExclusive looks for such programs on the cgroups under which containers are
// made: those at most five levels below the mount point cgroup2, and at most 4,096
// of them. complete is false if there were more.
func FindExclusive(cgroup2 string) (found []Exclusive, complete bool, err error) {
	complete = true
	dirs := 0
	var walk func(dir string, depth int) error
	walk = func(dir string, depth int) error {
		children, err := childCgroups(dir)
		if err != nil || len(children) == 0 {
			return err
		}
		for _, hook := range specs.Hooks() {
			if hook.Target() != specs.TargetCgroup {
				continue
			}
			if p, ok := exclusive(dir, hook); ok {
				found = append(found, Exclusive{Cgroup: dir, Hook: hook, Program: p})
			}
		}
		for _, child := range children {
			if dirs++; dirs > maxExclusiveDirs || depth == maxExclusiveDepth {
				complete = false
				return nil
			}
			if err := walk(filepath.Join(dir, child), depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return found, complete, walk(cgroup2, 0)
}

// childCgroups returns the names of the cgroups below one; a cgroup that has just
// gone has none.
func childCgroups(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !e.IsDir() })
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// exclusive returns the program that excludes others from a hook below a cgroup.
func exclusive(dir string, hook specs.Hook) (string, bool) {
	_, at, err := hooks.Types(hook)
	// Of lsm_cgroup programs the kernel says flags 0, however they were attached.
	if err != nil || hook == specs.HookLSMCgroup {
		return "", false
	}
	flags, ids, ok := attached(dir, at)
	if !ok || flags != 0 || len(ids) == 0 {
		return "", false
	}
	p, err := programByID(ids[0])
	if err != nil {
		return fmt.Sprintf("program id %d", ids[0]), true
	}
	return p.String(), true
}
