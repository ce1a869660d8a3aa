// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// Podman makes the podman of root call the hook, by files in a directory that it
// reads: the last one of hooks_dir in containers.conf that is fit for it, since a
// file of the same name in a later directory masks one in an earlier.
type Podman struct {
	Hook string // path of linkpin-hook on the host, absolute
	// When is the user's choice. Empty: what is installed stays if it is enough for the
	// policies; what is new is what they need, or Always.
	When When
	// Need is Always if a policy in effect selects containers by itself, OptIn if none
	// of them does, and empty if there are no policies.
	Need When
}

var _ change.Target = Podman{}

const (
	podmanShared = "/usr/share/containers/containers.conf"
	podmanConf   = "/etc/containers/containers.conf"
	podmanDropIn = podmanConf + ".d"
)

func podmanRuntime() hooksdRuntime {
	return hooksdRuntime{
		name: "podman", caller: specs.CallerPodman, command: "podman",
		table: []string{"engine"},
		// So in containers/common 0.50 (podman 4.3) and 0.63. /etc/containers/oci/hooks.d,
		// which the man pages name, is not read unless it is configured.
		defaults:  []string{hooksdDefault},
		configs:   podmanConfigs,
		dropIn:    podmanDropIn + "/99-linkpin.conf",
		private:   "/etc/linkpin/podman-hooks.d",
		malformed: "podman starts no container",
		other:     crioRuntime,
	}
}

// hooksdDefault is the directory that podman and CRI-O read by default.
const hooksdDefault = "/usr/share/containers/oci/hooks.d"

// podmanConfigs lists the configuration of root's podman in the order in which it is
// read (containers.conf(5); systemConfigs of containers/common 0.50).
func podmanConfigs(h change.Host) ([]string, error) {
	files := []string{podmanShared, podmanConf}
	names, err := h.ReadDir(podmanDropIn)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		p := path.Join(podmanDropIn, n)
		if strings.HasSuffix(n, ".conf") && !isDir(h, p) {
			files = append(files, p)
		}
	}
	return files, nil
}

// isDir reports whether a directory, and no link to one, is at p.
func isDir(h change.Host, p string) bool {
	parent, err := h.Resolve(path.Dir(p))
	if err != nil {
		return false
	}
	st, err := os.Lstat(path.Join(parent, path.Base(p)))
	return err == nil && st.IsDir()
}

// hostDir reports whether a directory, or a link to one, is at p.
func hostDir(h change.Host, p string) bool {
	place, err := h.Resolve(p)
	if err != nil {
		return false
	}
	st, err := os.Stat(place)
	return err == nil && st.IsDir()
}

// Rootless explains why linkpin is not installed for the podman of a user other than
// root. It is never nil.
func Rootless() error {
	return fault.Newf("rootless podman",
		"its hooks run with the user's rights, and attaching needs CAP_BPF and CAP_NET_ADMIN in the initial user namespace,"+
			" or a BPF token from a bpffs that was delegated to the user's namespace, so a hook in the user's configuration could only refuse",
		"run the containers with root's podman, and linkpin install as root")
}

// Name returns "podman".
func (Podman) Name() string { return "podman" }

// Binaries returns the hook.
func (p Podman) Binaries() []change.Binary { return []change.Binary{{Name: hookName, Path: p.Hook}} }

func (p Podman) hooksd() hooksd {
	return hooksd{hooksdRuntime: podmanRuntime(), hook: p.Hook, when: p.When, need: p.Need}
}

// Install plans the hook files. On this machine it must be run by root: see Rootless.
func (p Podman) Install(h change.Host) (*change.Plan, error) {
	return p.install(h, os.Geteuid())
}

func (p Podman) install(h change.Host, euid int) (*change.Plan, error) {
	if h.Local() && euid != 0 {
		return nil, Rootless()
	}
	plan, err := p.hooksd().install(h)
	if err != nil {
		return nil, err
	}
	if !plan.Empty() {
		plan.Note("podman calls the hook for containers that it starts from now on; those that run keep going without")
		plan.Note("with crun podman shows of a refused container the exit code only: the reason is in the system log, or in FILE with --annotation run.oci.hooks.stderr=FILE")
		plan.Note("rootless podman reads the same directory: the hook lets containers of users start, without policies, and refuses those that ask for one")
	}
	return plan, nil
}

// Uninstall plans the removal of what Install wrote.
func (p Podman) Uninstall(h change.Host) (*change.Plan, error) { return p.hooksd().uninstall(h) }

// Uses reports whether a hook file of podman names the program at path.
func (p Podman) Uses(h change.Host, path string) bool { return p.hooksd().uses(h, path) }

// Check looks for what keeps podman from calling the hook.
func (p Podman) Check(h change.Host) []change.Finding { return p.hooksd().installed(h).check(h) }

// containsDir reports whether a list has a directory.
func containsDir(h change.Host, dirs []string, dir string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return sameDir(h, d, dir) })
}
