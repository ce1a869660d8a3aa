// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// applyOutput is `linkpin policy apply -o json`.
type applyOutput struct {
	Directory  string          `json:"directory"`
	Changed    bool            `json:"changed"` // with --dry-run: would be
	DryRun     bool            `json:"dryRun,omitempty"`
	Generation string          `json:"generation,omitempty"` // of the set that is in effect now
	Policies   []appliedPolicy `json:"policies"`
	Warnings   []string        `json:"warnings"`
}

type appliedPolicy struct {
	Name   string       `json:"name"`
	Change policyChange `json:"change"`
	Digest string       `json:"digest,omitempty"`
	File   string       `json:"file,omitempty"`
	SHA256 string       `json:"sha256,omitempty"` // of the file
}

// policyChange says what an apply does to a policy.
type policyChange string

const (
	added     policyChange = "added"
	changed   policyChange = "changed"
	removed   policyChange = "removed"
	unchanged policyChange = "unchanged"
)

type applyOptions struct {
	checkOptions
	dir    string
	empty  bool // take the last policy out of effect
	dryRun bool
}

func (a *app) applyCommand() *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Put the policies of a directory into effect, all or none",
		Long: `Check every policy of a directory, prepare them, and put them into effect by one
rename: containers that start afterwards get the new policies, those that run keep
theirs. With an error in any file nothing changes.

The directory and all files must be root's and writable by nobody else. Files that end
in .yaml or .yml are policies; directories, *.o, *.md and names that begin with a dot
are left alone; any other name is an error.`,
	}
	cmd.Flags().StringVar(&o.dir, "dir", DefaultPolicies, "directory of the policies")
	o.addFlags(cmd)
	cmd.Flags().BoolVar(&o.empty, "empty", false, "allow a directory without policies to take all policies out of effect")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only say what would change")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		out, err := a.apply(cmd.Context(), o)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(out)
		}
		a.printApplied(out)
		return nil
	}
	return cmd
}

func (a *app) apply(ctx context.Context, o applyOptions) (applyOutput, error) {
	out := applyOutput{Directory: o.dir, DryRun: o.dryRun, Policies: []appliedPolicy{}, Warnings: []string{}}
	files, err := readDirectory(o.dir)
	if err != nil {
		return out, err
	}
	ready, err := prepareAll(files)
	if err != nil {
		return out, err
	}
	var problems []error
	set := applied.NewSet{Objects: map[string][]byte{}}
	for _, p := range ready {
		out.Warnings = append(out.Warnings, p.Warnings...)
		if !o.noLoad {
			unchecked, err := p.check(ctx)
			out.Warnings = append(out.Warnings, unchecked...)
			problems = append(problems, err)
		}
		set.Policies = append(set.Policies, applied.NewPolicy{Plan: p.Plan, Select: p.policy.Select})
		maps.Copy(set.Objects, p.Objects)
	}
	if err := errors.Join(problems...); err != nil {
		return out, err
	}
	before, err := a.inEffect()
	if err != nil {
		out.Warnings = append(out.Warnings, fault.OneLine(err.Error()))
	}
	if len(ready) == 0 && !o.empty && (len(before) > 0 || err != nil) {
		return out, fault.Newf(o.dir, "holds no policy: all that are in effect would be taken out of it", "give --empty if that is meant").WithExit(fault.ExitInput)
	}
	out.Policies = compare(before, ready)
	if o.dryRun {
		out.Changed = err != nil || slices.ContainsFunc(out.Policies, func(p appliedPolicy) bool { return p.Change != unchanged })
		return out, nil
	}
	to := a.roots.applied()
	to.Keep = a.inUse()
	if out.Changed, err = applied.Write(to, set); err != nil {
		return out, err
	}
	now, err := applied.Open(a.roots.applied())
	if err != nil {
		return out, err
	}
	defer now.Close()
	out.Generation = now.Generation()
	out.Warnings = append(out.Warnings, a.outdated(change.Host{})...)
	return out, nil
}

// inEffect returns the policies that are in effect: none, if none were ever
// applied. The error says that what is there is damaged.
func (a *app) inEffect() ([]applied.Summary, error) {
	set, err := applied.Open(a.roots.applied())
	if errors.Is(err, applied.ErrMissing) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer set.Close()
	return set.Policies(), nil
}

// compare says what becomes of each policy, by name.
func compare(before []applied.Summary, ready []prepared) []appliedPolicy {
	old := map[string]applied.Summary{}
	for _, p := range before {
		old[p.Name] = p
	}
	out := []appliedPolicy{}
	for _, p := range ready {
		row := appliedPolicy{Name: p.Plan.Name, Change: added, Digest: p.digest, File: p.file.path, SHA256: p.file.sha256}
		if was, ok := old[p.Plan.Name]; ok {
			row.Change = changed
			if was.Digest == p.digest && sameSelect(was.Select, p.policy.Select) {
				row.Change = unchanged
			}
			delete(old, p.Plan.Name)
		}
		out = append(out, row)
	}
	for name := range old {
		out = append(out, appliedPolicy{Name: name, Change: removed})
	}
	slices.SortFunc(out, func(a, b appliedPolicy) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// sameSelect compares selectors as they are stored.
func sameSelect(a, b specs.Select) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func (a *app) printApplied(out applyOutput) {
	a.warnings(out.Warnings)
	total := 0
	for _, p := range out.Policies {
		if p.Change != unchanged {
			a.printf("%s %s\n", p.Name, p.Change)
		}
		if p.Change != removed {
			total++
		}
	}
	verb, from := "applied", fault.OneLine(out.Directory)
	if out.DryRun {
		verb = "would apply"
	}
	switch {
	case total == 0:
		a.printf("%s an empty set from %s: no container gets a program\n", verb, from)
	case !out.Changed:
		a.printf("%s from %s: in effect already, nothing changed\n", count(total, "policy", "policies"), from)
	default:
		a.printf("%s %s from %s\n", verb, count(total, "policy", "policies"), from)
	}
}
