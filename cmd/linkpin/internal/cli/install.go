// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// installTimeout is how long an installer waits for another one.
const installTimeout = 10 * time.Second

// installOutput is `linkpin install` and `linkpin uninstall` with -o json.
type installOutput struct {
	Target  string          `json:"target"`
	Root    string          `json:"root,omitempty"` // given with --root
	DryRun  bool            `json:"dryRun,omitempty"`
	Changes []installChange `json:"changes"`
	Notes   []string        `json:"notes"` // what is left to do by hand
}

type installChange struct {
	Path   string      `json:"path"`
	Change change.Kind `json:"change"`
}

// installOptions are the flags of one `install` or `uninstall` command.
type installOptions struct {
	root   string
	dryRun bool
	hook   string // path of linkpin-hook on the host; "" means: decide
	when   string
	target targetOptions
}

// installCommand returns `linkpin install` or `linkpin uninstall`.
func (a *app) installCommand(verb action) *cobra.Command {
	cmd := &cobra.Command{
		Use:   string(verb) + " TARGET",
		Short: verb.short(),
		Long:  verb.long(),
	}
	for _, kind := range targetKinds {
		cmd.AddCommand(a.installTargetCommand(verb, kind))
	}
	return cmd
}

func (a *app) installTargetCommand(verb action, kind targetKind) *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{Use: kind.name, Short: kind.short(verb), Long: kind.long}
	flags := cmd.Flags()
	flags.BoolVar(&o.dryRun, "dry-run", false, "show what would change, as a diff, and change nothing")
	flags.StringVar(&o.root, "root", "", "root directory of the host to change: an image or a chroot (default: this host)")
	kind.flags(flags, &o)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if cmd.Flags().Changed("root") {
			if o.root == "" {
				return fault.Newf("--root", "is empty", "name the root directory of an image, or leave --root out for this host").WithExit(fault.ExitUsage)
			}
			if o.root, err = filepath.Abs(o.root); err != nil {
				return fault.New("--root", err, "give an absolute path")
			}
		}
		return a.install(cmd.Context(), verb, kind, o)
	}
	return cmd
}

// install plans under the host's lock, and shows or makes the plan.
func (a *app) install(ctx context.Context, verb action, kind targetKind, o installOptions) error {
	h := change.Host{Dir: o.root}
	if !o.dryRun {
		wait, cancel := context.WithTimeout(ctx, installTimeout)
		defer cancel()
		unlock, err := h.Lock(wait)
		if err != nil {
			return err
		}
		defer unlock()
	}
	// Without policies an installer writes less: not knowing them, it may not.
	policies, err := a.policiesOf(h)
	if err != nil && (verb == installing || !errors.Is(err, applied.ErrDamaged)) {
		return err
	}
	target, err := a.targetFor(h, kind, o, policies)
	if err != nil {
		return err
	}
	if !o.dryRun {
		for _, b := range target.Binaries() {
			if err := h.Sweep(b.Path); err != nil {
				return err
			}
		}
	}
	plan, err := a.plan(h, verb, target)
	if err != nil {
		return err
	}
	if !o.dryRun {
		if verb == installing {
			if err := a.emptySet(h); err != nil {
				return err
			}
		}
		if err := plan.Apply(h); err != nil {
			return err
		}
	}
	return a.printInstalled(verb, kind, o, plan)
}

// plan puts the binary and the configuration in the right order: no configuration
// ever names a binary that is not there.
func (a *app) plan(h change.Host, verb action, t change.Target) (*change.Plan, error) {
	if verb == installing {
		config, err := t.Install(h)
		if err != nil {
			return nil, err
		}
		plan, err := a.placeBinaries(h, t, config)
		if err != nil {
			return nil, err
		}
		plan.Append(config)
		return plan, nil
	}
	plan, err := t.Uninstall(h)
	if err != nil {
		return nil, err
	}
	return plan, a.removeBinaries(h, plan, t)
}

// emptySet puts an empty set of policies into effect where none has ever been
// applied: without one, every container would be refused.
func (a *app) emptySet(h change.Host) error {
	o, err := a.appliedOf(h)
	if err != nil {
		return err
	}
	set, err := applied.Open(o)
	if err == nil {
		return set.Close()
	}
	if !errors.Is(err, applied.ErrMissing) {
		return err
	}
	_, err = applied.Write(o, applied.NewSet{})
	return err
}

func (a *app) printInstalled(verb action, kind targetKind, o installOptions, plan *change.Plan) error {
	out := installOutput{Target: kind.name, Root: o.root, DryRun: o.dryRun, Changes: []installChange{}, Notes: plan.Notes}
	if out.Notes == nil {
		out.Notes = []string{}
	}
	for _, c := range plan.Changes {
		out.Changes = append(out.Changes, installChange{Path: c.Path, Change: c.Kind()})
	}
	switch {
	case a.json:
		return a.printJSON(out)
	case o.dryRun:
		a.printf("%s", plan.Diff())
	}
	if plan.Empty() {
		a.printf("%s %s: nothing to change\n", verb, kind.name)
		return nil
	}
	if o.dryRun {
		return nil
	}
	for _, c := range out.Changes {
		a.printf("%s %s\n", c.Change, fault.OneLine(c.Path))
	}
	for _, n := range plan.Notes {
		a.printf("note: %s\n", fault.OneLine(n))
	}
	return nil
}

// action is what is done to a target.
type action string

const (
	installing   action = "install"
	uninstalling action = "uninstall"
)

func (v action) short() string {
	if v == installing {
		return "Make a runtime call linkpin"
	}
	return "Undo what install has done to a runtime"
}

func (v action) long() string {
	if v == uninstalling {
		return `Take out of a runtime's configuration what ` + "`linkpin install`" + ` has put there. Everything
else stays as it is, byte by byte. Containers that run keep their programs.`
	}
	return `Write the configuration that makes a runtime call linkpin, for this host or, with --root,
for an image. Files of others are changed only where linkpin is named; comments and
formatting stay. A file that can't be understood is not changed. Running it again changes
nothing, or brings an older entry up to date.

If no policies have ever been applied, an empty set is put into effect: containers start,
and get no programs. ` + fmt.Sprintf("Other installers are waited for, up to %s.", installTimeout)
}
