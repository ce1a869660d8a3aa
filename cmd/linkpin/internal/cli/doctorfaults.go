// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/linkpin/linkpin/specs/change"
)

// release is the first three numbers of a version.
type release [3]int

var releaseText = regexp.MustCompile(`\b[vV]?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?`)

// parseRelease finds a version in a line of text. What follows the numbers ("-rc.1",
// "+dfsg1") does not count.
func parseRelease(line string) (release, bool) {
	m := releaseText.FindStringSubmatch(line)
	if m == nil {
		return release{}, false
	}
	var r release
	for i := range r {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.Atoi(m[i+1])
		if err != nil {
			return release{}, false
		}
		r[i] = n
	}
	return r, true
}

func (r release) String() string { return fmt.Sprintf("%d.%d.%d", r[0], r[1], r[2]) }

func (r release) less(s release) bool { return slices.Compare(r[:], s[:]) < 0 }

// runtimeFault is something that a program of the container world does wrong, or
// otherwise than one would think, and that matters to linkpin.
type runtimeFault struct {
	program string
	// from is the first release that has it, below the first that has not; zero means
	// that none is known.
	from, below release
	// seen is the release with which it was seen; zero if it is true of all.
	seen   release
	kernel release // it needs this kernel or a newer one
	with   string  // it needs this program, too
	level  change.Level
	what   string
	remedy string // none if level is OK: there is nothing to do but to know it
}

// runtimeFaults are what was seen with real runtimes (docs/runtimes.md and
// integration/README.md), not what is said of them. What containerd's releases lack is
// judged together with its configuration.
var runtimeFaults = []runtimeFault{
	{
		program: "runc", seen: release{1, 1, 5}, level: change.OK,
		what: "the first poststop hook that fails keeps it from calling those behind it; what is left of a container then, the next invocation or linkpin gc takes away",
	},
	{
		program: "crun", below: release{1, 9, 0}, seen: release{1, 8, 1}, level: change.Warn,
		what:   "hangs with a hook that is stopped (SIGSTOP), past the hook's timeout: the container never starts",
		remedy: "use a newer crun, or runc; kill the stopped linkpin-hook to end it",
	},
	{
		program: "crun", seen: release{1, 8, 1}, with: "criu", level: change.Warn,
		what:   "calls no hooks at restore: a container that is restored from a checkpoint runs without programs",
		remedy: "restore containers with runc",
	},
	{
		program: "crun", seen: release{1, 8, 1}, level: change.OK,
		what: "drops what a hook says: the reason of a refused container is in the system log only, unless the container has the annotation run.oci.hooks.stderr=FILE",
	},
	{
		program: "crun", seen: release{1, 8, 1}, level: change.OK,
		what: "calls no poststop after a container that was refused, not even at delete: the next invocation or linkpin gc takes away what is left",
	},
	{
		program: "podman", from: release{4, 3, 0}, below: release{4, 4, 0}, seen: release{4, 3, 1}, level: change.OK,
		what: `splits --annotation at commas: several policies need quotes of their own, --annotation '"linkpin.io/policies=a,b"'`,
	},
	{
		program: "containerd", below: release{1, 7, 1}, level: change.Warn,
		what:   "does not pass a pod's cgroup to CNI: policies with cgroup: pod can't be attached",
		remedy: "update it to 1.7.1 or newer if a policy says cgroup: pod",
	},
	{
		program: "crio", below: release{1, 28, 0}, level: change.Warn,
		what:   "does not pass a pod's cgroup to CNI: policies with cgroup: pod can't be attached",
		remedy: "update it to 1.28 or newer if a policy says cgroup: pod",
	},
	{
		program: "dockerd", level: change.OK,
		what: "makes a container's network after createRuntime: policies for interfaces are refused there, or left out with onError: allow",
	},
	{
		program: "criu", below: release{3, 18, 0}, seen: release{3, 17, 1}, kernel: release{6, 13, 0}, level: change.Warn,
		what:   "does not work on kernels from 6.13 (checkpoint-restore/criu#2532): containers can be neither checkpointed nor restored",
		remedy: "use a newer criu, or do without checkpoints",
	},
}

// faultsOf returns what is known of a release of a program on a kernel. has reports
// whether the host has another program. Zero of the release stands for one that is not
// known: it has what has no end.
func faultsOf(program string, v, kernel release, has func(program string) bool) []runtimeFault {
	var found []runtimeFault
	for _, f := range runtimeFaults {
		known := v != release{}
		switch {
		case f.program != program, kernel.less(f.kernel), f.with != "" && !has(f.with):
		case known && v.less(f.from):
		case f.below != release{} && (!known || !v.less(f.below)):
		default:
			found = append(found, f)
		}
	}
	return found
}

// detail says the fault of a release.
func (f runtimeFault) detail(v release) string {
	if f.seen == (release{}) || f.seen == v {
		return f.what
	}
	return fmt.Sprintf("%s (seen with %s %s)", f.what, f.program, f.seen)
}
