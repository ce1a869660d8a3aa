// SPDX-License-Identifier: Apache-2.0

package cost

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// bound is by how many system calls an invocation may be dearer on a full node than on
// an empty one. It sweeps two (bpf/entry, sweepSize) of each of five kinds, which are not
// there on an empty node: opening one, reading its record and asking the kernel about it
// and about its target takes ten calls at most. What is opened and locked once for each of
// a kind costs more, and so does what is read for each of a quarter of them.
const bound = 2 * 5 * 10

// Hook and plugin cost what they cost on an empty node, however many containers,
// sandboxes, draining entries and staging directories there are.
func TestCostDoesNotGrow(t *testing.T) {
	const rounds = 4 // where sweeps begin is left to chance
	most := func(t *testing.T, fill bool) (calls map[call]int, names map[call][]string) {
		n := newNode(t)
		if fill {
			newFiller(t).fill()
		}
		calls, names = map[call]int{}, map[call][]string{}
		for range rounds {
			c, pod := n.container(t), n.container(t)
			for _, step := range []struct {
				of   *container
				what call
			}{{c, createRuntime}, {c, poststop}, {pod, add}, {pod, del}} {
				if step.what == poststop {
					c.kill(t)
				}
				if got, all := step.of.run(t, step.what); got > calls[step.what] {
					calls[step.what], names[step.what] = got, all
				}
			}
		}
		return calls, names
	}
	var empty, full map[call]int
	var emptyNames, fullNames map[call][]string
	t.Run("empty", func(t *testing.T) { empty, emptyNames = most(t, false) })
	t.Run("full", func(t *testing.T) { full, fullNames = most(t, true) })
	for what, calls := range full {
		t.Logf("%s: %d calls on an empty node, %d on a full one", what, empty[what], calls)
		if calls-empty[what] > bound {
			t.Errorf("%s: %d calls more than on an empty node, at most %d\n%s", what, calls-empty[what], bound, growth(emptyNames[what], fullNames[what]))
		}
	}
}

// growth says which calls are made more often.
func growth(before, after []string) string {
	kind := func(name string) string { // without what is different in every name
		call, path, _ := strings.Cut(name, " ")
		parts := strings.Split(strings.TrimPrefix(path, "/sys/fs/bpf/linkpin/v1/"), "/")
		return call + " " + strings.Join(parts[:min(1, len(parts))], "/")
	}
	counts := map[string]int{}
	for _, n := range after {
		counts[kind(n)]++
	}
	for _, n := range before {
		counts[kind(n)]--
	}
	var lines []string
	for name, n := range counts {
		if n > 0 {
			lines = append(lines, fmt.Sprintf("%5d %s", n, name))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
