// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs/applied"
)

// DefaultPolicies is the directory of policy files.
const DefaultPolicies = "/etc/linkpin/policies.d"

// roots are the places that linkpin works on. Unlike the hook and the CNI plugin
// this tool lets its caller name them: he could as well edit the files.
type roots struct {
	bpffs string
	state string
	proc  string
}

func (r *roots) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&r.bpffs, "bpffs", pin.DefaultPath, "mount point of the bpf file system")
	flags.StringVar(&r.state, "state", applied.DefaultDir, "directory of the applied policies")
	flags.StringVar(&r.proc, "proc", "/proc", "mount point of procfs")
}

// absolute makes the paths independent of the current directory.
func (r *roots) absolute() error {
	for _, path := range []*string{&r.bpffs, &r.state, &r.proc} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	return nil
}

func (r *roots) applied() applied.Options { return applied.Options{Dir: r.state} }

func (r *roots) pins() pin.Options { return pin.Options{Path: r.bpffs, Proc: r.proc} }

func (r *roots) targets() target.Roots { return target.Roots{Proc: r.proc} }
