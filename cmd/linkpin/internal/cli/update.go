// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// updateOutput is `linkpin update -o json`.
type updateOutput struct {
	DryRun  bool         `json:"dryRun"`
	Updates []unitOutput `json:"updates"`
}

// unitOutput is what became of the entries of one policy at a container, or at all
// containers that share a sandbox.
type unitOutput struct {
	Policy     string        `json:"policy"`
	Containers []string      `json:"containers"` // IDs; empty where only an interface or a pod's cgroup has the policy
	Sandbox    string        `json:"sandbox,omitempty"`
	Outcome    entry.Outcome `json:"outcome"` // updated, would-update, current, refused, unfinished, unselected or ended
	From       string        `json:"from"`    // digest of what is attached
	To         string        `json:"to"`      // digest of what is applied
	Swapped    int           `json:"swapped"` // links that got another program
	Added      int           `json:"added"`
	Removed    int           `json:"removed"`
	Migrated   []string      `json:"migrated"` // maps that were made anew and took over what the old ones held
	Dropped    []string      `json:"dropped"`  // maps that the new version does not have: what they held is gone
	Error      string        `json:"error,omitempty"`
}

func (a *app) updateCommand() *cobra.Command {
	var all, dryRun bool
	var containers []string
	cmd := &cobra.Command{
		Use:   "update POLICY... | --all",
		Short: "Bring what is attached to the applied version, without a gap",
		Long: `Bring the containers that have an older version of a policy to the one that is applied:
each link gets its new program in one step, so that every packet and every call is seen by
the old program or by the new one. A container and the sandbox that it shares with others
are updated together or not at all; what can't be updated stays as it is and is named.

Maps whose layout is the same are kept with all that they hold. A map whose size, flags or
fields have changed, or whose entries the policy has changed, is made anew and takes over what the
programs have written, entry by entry; what they write to such a map in the
moment of the change is lost. Where that can't be done, the container has to be restarted,
and so it has for another program in a netfilter or tracing link. Variables are carried over
by name; one that still has the value that it was loaded with gets that of the new version.
A map that the new version does not have is dropped, with what it holds.

After an upgrade of linkpin run ` + "`linkpin policy apply`" + ` first: what is applied holds the
built-in programs that were current when it was applied.

Which containers a policy chooses is not considered anew: nobody gets or loses a policy. A
container that the applied version would not choose stays as it is.

An update that could not be brought to its end is "unfinished": ` + "`linkpin gc`" + `, or any other
command that comes across it, finishes it.

Exit code: 0 if nothing was refused or left unfinished, 1 if something was.`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().BoolVar(&all, "all", false, "all policies")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "load the new programs and say what would be done, without doing it")
	cmd.Flags().StringArrayVar(&containers, "container", nil, "only the container or sandbox `ID`, with what shares its sandbox; may be given several times")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all == (len(args) > 0) {
			return usage(cmd, errors.New("name policies, or give --all"))
		}
		set, err := applied.Open(a.roots.applied())
		if err != nil {
			return err
		}
		defer func() { a.warn(set.Close()) }()
		names, err := policiesToUpdate(set, args)
		if err != nil {
			return err
		}
		a.warnBuiltins(set, names)
		s, done, err := a.session()
		if err != nil {
			return err
		}
		defer done()
		out := updateOutput{DryRun: dryRun, Updates: []unitOutput{}}
		if s == nil { // nothing was ever attached
			if len(containers) > 0 {
				return noRecord(containers[0])
			}
			return a.printUpdates(out, nil)
		}
		s.Plans = set
		o := entry.UpdateOptions{Policies: names, Selects: selects(set)}
		if dryRun {
			o.Mode = entry.UpdateDryRun
		}
		if len(containers) > 0 {
			if o.Only, err = only(s, containers); err != nil {
				return err
			}
		}
		units, err := s.Update(cmd.Context(), o)
		for i := range units {
			out.Updates = append(out.Updates, describeUnit(&units[i]))
		}
		return errors.Join(a.printUpdates(out, units), err)
	}
	return cmd
}

// policiesToUpdate returns the policies that were named, each once, or all applied ones.
func policiesToUpdate(set *applied.Set, args []string) ([]string, error) {
	var names []string
	for _, p := range set.Policies() {
		if len(args) == 0 || slices.Contains(args, p.Name) {
			names = append(names, p.Name)
		}
	}
	for _, name := range args {
		if !slices.Contains(names, name) {
			return nil, fault.New("policy "+name, applied.ErrUnknown, "`linkpin policy list` shows those that are")
		}
	}
	return names, nil
}

// selects asks the selector of an applied policy about a recorded identity. Records
// keep only those annotations that mattered when they were made: about another one
// nothing can be told, and it counts as matching.
func selects(set *applied.Set) func(string, specs.Identity) bool {
	return func(policy string, id specs.Identity) bool {
		p, ok := set.Policy(policy)
		if !ok {
			return false
		}
		sel := p.Select
		known := map[string]string{}
		for key, glob := range sel.Annotations {
			if _, ok := id.Annotations[key]; ok {
				known[key] = glob
			}
		}
		if len(known) < len(sel.Annotations) && len(known) == 0 {
			sel.All = true // an empty selector would match nobody
		}
		sel.Annotations = known
		if sel.OptIn && id.Network != "" && id.Container == "" {
			sel.Containers = nil // as for CNI: the containers of a pod are not known yet
		}
		return sel.Match(id)
	}
}

// only picks the entries of containers and sandboxes.
func only(s *entry.Session, names []string) (func(entry.Item) bool, error) {
	all, err := items(s)
	if err != nil {
		return nil, err
	}
	places := map[pin.Place]bool{}
	for _, name := range names {
		found, err := match(all, name)
		if err != nil {
			return nil, err
		}
		for _, it := range found {
			places[it.Place] = true
		}
	}
	return func(it entry.Item) bool { return places[it.Place] }, nil
}

func describeUnit(u *entry.UnitUpdate) unitOutput {
	out := unitOutput{
		Policy: u.Policy, Containers: []string{}, Outcome: u.Outcome, From: u.From, To: u.To,
		Swapped: u.Swapped, Added: u.Added, Removed: u.Removed, Migrated: append([]string{}, u.Migrated...), Dropped: append([]string{}, u.Dropped...),
	}
	for _, it := range u.Items {
		owner, ok := it.Place.Owner()
		switch id := ids(it)[0]; {
		case !ok:
		case owner.IsSandbox():
			out.Sandbox = string(owner.Key())
		case !slices.Contains(out.Containers, id):
			out.Containers = append(out.Containers, id)
		}
	}
	if u.Err != nil {
		out.Error = fault.OneLine(u.Err.Error())
	}
	return out
}

func (a *app) printUpdates(out updateOutput, units []entry.UnitUpdate) error {
	refused := slices.ContainsFunc(out.Updates, func(u unitOutput) bool {
		return u.Outcome == entry.OutcomeRefused || u.Outcome == entry.OutcomeUnfinished
	})
	var err error
	if a.json {
		err = a.printJSON(out)
	} else {
		err = a.printUpdateTable(out, units)
	}
	if err == nil && refused {
		err = exitError(fault.ExitFailed)
	}
	return err
}

func (a *app) printUpdateTable(out updateOutput, units []entry.UnitUpdate) error {
	t := a.table("CONTAINER", "POLICY", "OUTCOME", "LINKS", "DETAIL")
	for i, u := range out.Updates {
		detail := u.Error
		if detail == "" {
			detail = mapsText(u)
		}
		links := ""
		if u.Outcome == entry.OutcomeUpdated || u.Outcome == entry.OutcomeWouldUpdate {
			links = linksText(u)
		}
		t.row(unitLabel(&units[i]), u.Policy, string(u.Outcome), links, detail)
	}
	return t.flush()
}

// linksText says how many links were changed, and how.
func linksText(u unitOutput) string {
	text := fmt.Sprintf("%d exchanged", u.Swapped)
	if u.Added > 0 {
		text += fmt.Sprintf(", %d new", u.Added)
	}
	if u.Removed > 0 {
		text += fmt.Sprintf(", %d gone", u.Removed)
	}
	return text
}

// mapsText says which maps were not kept.
func mapsText(u unitOutput) string {
	var parts []string
	if len(u.Migrated) > 0 {
		parts = append(parts, "carried over: "+strings.Join(u.Migrated, ", "))
	}
	if len(u.Dropped) > 0 {
		parts = append(parts, "dropped: "+strings.Join(u.Dropped, ", "))
	}
	return strings.Join(parts, "; ")
}

// unitLabel names a unit for people: its containers, or else its sandbox.
func unitLabel(u *entry.UnitUpdate) string {
	var names []string
	for _, it := range u.Items {
		if it.Place.Kind() == pin.ContainerPlace && !slices.Contains(names, itemLabel(it)) {
			names = append(names, itemLabel(it))
		}
	}
	if len(names) == 0 && len(u.Items) > 0 {
		return itemLabel(u.Items[0])
	}
	return strings.Join(names, ",")
}
