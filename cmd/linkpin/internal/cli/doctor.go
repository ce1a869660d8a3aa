// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// doctorOutput is `linkpin doctor -o json`.
type doctorOutput struct {
	Findings []change.Finding `json:"findings"`
}

// doctor collects findings.
type doctor struct {
	*app
	policies string // directory of the policy files
	exempt   string
	host     change.Host // whose runtimes are looked at; this one outside of tests
	findings []change.Finding
}

func (d *doctor) ok(what, format string, args ...any) {
	d.findings = append(d.findings, change.Finding{Level: change.OK, What: what, Detail: fault.OneLine(fmt.Sprintf(format, args...))})
}

// bad notes a problem. remedy is for errors that have none of their own.
func (d *doctor) bad(l change.Level, what string, err error, remedy string) {
	d.findings = append(d.findings, change.FindingOf(l, what, err, remedy))
}

func (a *app) doctorCommand() *cobra.Command {
	d := &doctor{app: a}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check the machine: kernel, mounts, policies, and whether runtimes call linkpin",
		Long: `Check what linkpin needs of this machine. The kernel's features are not guessed from its
version: every kind of link is made once, in a new cgroup and a new network namespace
that are removed again. Of the runtimes and CNI networks that are there, doctor reads the
configuration as they do. It looks for

- missing mounts, several bpffs over each other, directories of somebody else;
- policies in effect that are missing, damaged, or not those of the directory;
- hooks that a runtime would drop in silence, call too seldom or kill too early;
- a containerd without linkpin's handler, allow-lists or NRI plugin;
- CNI networks without linkpin-cni, or with it in the wrong place; stale CDI devices;
- versions of runtimes with known faults, and runtimes with a kernel of their own;
- exclusive cgroup programs of others, below which nothing can be attached.

Each finding is one line: ok, warn (some policies may not work) or fail (containers can't
start under their policies). Exit code: 1 if there is a fail.`,
	}
	cmd.Flags().StringVar(&d.policies, "dir", DefaultPolicies, "directory of the policies")
	cmd.Flags().StringVar(&d.exempt, "exempt", applied.DefaultExempt, "file of the containers that may start without policies")
	cmd.RunE = func(*cobra.Command, []string) error {
		d.checkKernel()
		d.checkCapabilities()
		d.checkBPFFS()
		cgroup2 := d.checkCgroup2()
		missing := d.checkLinks(cgroup2)
		d.checkExclusive(cgroup2)
		d.checkApplied(missing)
		d.checkDirectory()
		d.checkExempt()
		d.checkRuntimes()
		d.checkTargets()
		d.checkBinaries()
		return d.print()
	}
	return cmd
}

func (d *doctor) print() error {
	failed := false
	for _, f := range d.findings {
		failed = failed || f.Level == change.Fail
		if d.json {
			continue
		}
		line := fmt.Sprintf("%-4s  %s: %s", f.Level, f.What, f.Detail)
		if f.Remedy != "" {
			line += "; " + f.Remedy
		}
		d.printf("%s\n", line)
	}
	if d.json {
		if err := d.printJSON(doctorOutput{d.findings}); err != nil {
			return err
		}
	}
	if failed {
		return exitError(fault.ExitFailed)
	}
	return nil
}
