// SPDX-License-Identifier: Apache-2.0

package install

import (
	"path"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
)

// CRIO makes CRI-O call the hook, by files in a directory of its hooks_dir, as Podman
// does for podman.
type CRIO struct {
	Hook string // path of linkpin-hook on the host, absolute
	// When is the user's choice. Empty: what is installed stays if it is enough for the
	// policies; what is new is what they need, or Always.
	When When
	// Need is Always if a policy in effect selects containers by itself, OptIn if none
	// of them does, and empty if there are no policies.
	Need When
}

var _ change.Target = CRIO{}

const (
	crioConf   = "/etc/crio/crio.conf"
	crioDropIn = "/etc/crio/crio.conf.d"
)

func crioRuntime() hooksdRuntime {
	return hooksdRuntime{
		name: "CRI-O", caller: specs.CallerCRIO, command: "crio",
		table:    []string{"crio", "runtime"},
		defaults: []string{hooksdDefault},
		configs:  crioConfigs,
		dropIn:   crioDropIn + "/99-linkpin.conf",
		private:  "/etc/linkpin/crio-hooks.d",
		// It watches the directories, but reads hooks_dir once.
		restart:   "restart CRI-O: systemctl restart crio",
		malformed: "CRI-O does not start",
		other:     podmanRuntime,
	}
}

// crioConfigs lists CRI-O's configuration in the order in which it is read: the
// drop-in directory with everything below it, whatever it is called (UpdateFromPath
// of CRI-O 1.34).
func crioConfigs(h change.Host) ([]string, error) {
	files := []string{crioConf}
	var walk func(dir string) error
	walk = func(dir string) error {
		names, err := h.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, n := range names {
			p := path.Join(dir, n)
			if isDir(h, p) {
				if err := walk(p); err != nil {
					return err
				}
				continue
			}
			files = append(files, p)
		}
		return nil
	}
	return files, walk(crioDropIn)
}

// Name returns "crio".
func (CRIO) Name() string { return "crio" }

// Binaries returns the hook.
func (c CRIO) Binaries() []change.Binary { return []change.Binary{{Name: hookName, Path: c.Hook}} }

func (c CRIO) hooksd() hooksd {
	return hooksd{hooksdRuntime: crioRuntime(), hook: c.Hook, when: c.When, need: c.Need}
}

// Install plans the hook files, and a drop-in of CRI-O's configuration if none of
// its directories will do.
func (c CRIO) Install(h change.Host) (*change.Plan, error) {
	plan, err := c.hooksd().install(h)
	if err != nil {
		return nil, err
	}
	if !plan.Empty() {
		plan.Note("CRI-O calls the hook for containers that it starts from now on, and never for a pod's infra container:" +
			" policies on interfaces of the pod need linkpin install cni")
	}
	return plan, nil
}

// Uninstall plans the removal of what Install wrote.
func (c CRIO) Uninstall(h change.Host) (*change.Plan, error) { return c.hooksd().uninstall(h) }

// Uses reports whether a hook file of CRI-O names the program at path.
func (c CRIO) Uses(h change.Host, path string) bool { return c.hooksd().uses(h, path) }

// Check looks for what keeps CRI-O from calling the hook.
func (c CRIO) Check(h change.Host) []change.Finding { return c.hooksd().installed(h).check(h) }
