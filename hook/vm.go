// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/linkpin/linkpin/specs/fault"
)

// vmPrograms are the programs behind the pid that runtimes with a kernel of their
// own report: Kata its shim or hypervisor, gVisor its sandbox.
var vmPrograms = []string{
	"containerd-shim-kata", "kata-", "qemu-", "cloud-hypervisor", "firecracker", "runsc",
}

// refuseVM fails if the container's pid is not a process of the container: what is
// attached to its cgroup would see the hypervisor's traffic and none of the
// container's own sockets.
func (c *creation) refuseVM() error {
	proc := c.Roots.Proc
	if proc == "" {
		proc = "/proc"
	}
	// Fails for a process that is going away; the checks after this one say so.
	exe, err := os.Readlink(filepath.Join(proc, strconv.Itoa(c.state.Pid), "exe"))
	if err != nil {
		return nil
	}
	for _, prefix := range vmPrograms {
		if strings.HasPrefix(filepath.Base(exe), prefix) {
			return fault.New(fmt.Sprintf("pid %d (%s)", c.state.Pid, filepath.Base(exe)), ErrVM,
				"linkpin can't see into it: exclude such containers from the policy")
		}
	}
	return nil
}
