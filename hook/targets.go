// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// ofSandbox are the kinds of targets that belong to a container's sandbox.
var ofSandbox = []specs.TargetKind{specs.TargetInterface, specs.TargetNetns, specs.TargetPodCgroup}

// findTargets opens what the chosen policies attach to and verifies it. The caller
// must closeTargets, also after an error.
func (c *creation) findTargets() error {
	start, err := target.StartTime(c.Roots, c.state.Pid)
	if err != nil {
		return err
	}
	c.subject = entry.Subject{Identity: c.id, Bundle: c.bundle, PID: c.state.Pid, Start: start, Recheck: c.recheck}
	c.subject.Identity.SandboxID = "" // not believed yet

	err = c.each(func(p applied.Summary) error { return entry.NeedsPods(c.Caller, p.Name) }, specs.TargetPodCgroup)
	if err != nil {
		return err
	}
	if c.subject.Cgroup, err = c.openCgroup(); err != nil {
		if err := c.fail(err, specs.TargetCgroup, specs.TargetPodCgroup, specs.TargetKernel); err != nil {
			return err
		}
	}
	if !c.needs(ofSandbox...) {
		return nil
	}
	if c.subject.Netns, err = c.openNetns(); err != nil {
		return c.fail(err, ofSandbox...)
	}
	return nil
}

// openCgroup opens the container's cgroup, also if no policy attaches to it: it
// tells when the container is over.
func (c *creation) openCgroup() (*target.Cgroup, error) {
	if err := c.refuseVM(); err != nil {
		return nil, err
	}
	return target.CgroupOfPID(c.Roots, c.state.Pid)
}

// openNetns opens the container's network namespace, which must not be the host's.
func (c *creation) openNetns() (*target.Netns, error) {
	ns, err := target.NetnsOfPID(c.Roots, c.state.Pid)
	if err != nil {
		return nil, err
	}
	host, err := ns.IsHost()
	if err == nil && host {
		err = fault.New("network namespace "+ns.Path, fmt.Errorf("it is the host's, which %w", target.ErrForbidden),
			"exclude containers on the host's network from the policy")
	}
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

func (c *creation) closeTargets() {
	if c.subject.Cgroup != nil {
		c.warn(c.subject.Cgroup.Close())
	}
	if c.subject.Netns != nil {
		c.warn(c.subject.Netns.Close())
	}
}

// recheck reports whether the pid is still the process that was found, in the same
// cgroup and network namespace: what was moved while its old place was attached to
// would start without protection.
func (c *creation) recheck() error {
	if c.subject.Cgroup != nil {
		now, err := target.CgroupOfPID(c.Roots, c.state.Pid)
		if err != nil {
			return err
		}
		if err := now.Close(); err != nil {
			return err
		}
		if now.ID != c.subject.Cgroup.ID {
			return c.moved("cgroup " + now.Path)
		}
	}
	if c.subject.Sandbox != "" {
		// The namespace is held open, so that its inode number is nobody else's.
		var now syscall.Stat_t
		path := c.proc("ns", "net")
		if err := syscall.Stat(path, &now); err != nil {
			return &os.PathError{Op: "stat", Path: path, Err: err}
		}
		if now.Ino != c.subject.Netns.Inode {
			return c.moved("another network namespace")
		}
	}
	start, err := target.StartTime(c.Roots, c.state.Pid)
	if err == nil && start != c.subject.Start {
		err = fault.New(fmt.Sprintf("pid %d", c.state.Pid), fmt.Errorf("the process ended and another one got its pid: %w", target.ErrGone), "")
	}
	return err
}

func (c *creation) moved(where string) error {
	return fault.New(fmt.Sprintf("pid %d", c.state.Pid), fmt.Errorf("it was moved to %s meanwhile: what was attached to %w", where, target.ErrMismatch),
		"the runtime must not move the process after createRuntime")
}

// proc returns the path of a file under the /proc directory of the container's process.
func (c *creation) proc(elem ...string) string {
	root := c.Roots.Proc
	if root == "" {
		root = "/proc"
	}
	return filepath.Join(append([]string{root, strconv.Itoa(c.state.Pid)}, elem...)...)
}

// vmPrograms are the programs behind the pid that runtimes with a kernel of their
// own report: Kata its shim or hypervisor, gVisor its sandbox.
var vmPrograms = []string{
	"containerd-shim-kata", "kata-", "qemu-", "cloud-hypervisor", "firecracker", "runsc",
}

// refuseVM fails if the container's pid is not a process of the container: what is
// attached to its cgroup would see the hypervisor's traffic and none of the
// container's own sockets.
func (c *creation) refuseVM() error {
	// Fails for a process that is going away; the checks after this one say so.
	exe, err := os.Readlink(c.proc("exe"))
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	for _, prefix := range vmPrograms {
		if strings.HasPrefix(filepath.Base(exe), prefix) {
			return fault.New(fmt.Sprintf("pid %d (%s)", c.state.Pid, filepath.Base(exe)), ErrVM,
				"linkpin can't see into it: exclude such containers from the policy")
		}
	}
	return nil
}
