// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// versionOutput is `linkpin version -o json`.
type versionOutput struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Plan    int    `json:"plan"`   // version of prepared policies
	Record  int    `json:"record"` // version of records in bpffs
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of linkpin",
		RunE: func(*cobra.Command, []string) error {
			v := versionOutput{
				Version: a.Version,
				Commit:  commit(),
				Go:      runtime.Version(),
				OS:      runtime.GOOS,
				Arch:    runtime.GOARCH,
				Plan:    specs.PlanVersion,
				Record:  pin.RecordVersion,
			}
			if a.json {
				return a.printJSON(v)
			}
			a.printf("linkpin %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
			return nil
		},
	}
}

// commit returns the revision that linkpin was built from, if it is known.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
