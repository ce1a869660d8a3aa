// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/bpf/entry"
)

// lsOutput is `linkpin ls -o json`, and `linkpin inspect ID -o json`.
type lsOutput struct {
	Entries []entryOutput `json:"entries"`
}

func (a *app) lsCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List what is attached, to whom, and whether it is live",
		Long: `List what is attached, one row for each program. A link is live, severed (its target
is gone, or somebody took it off by force), or missing (somebody removed its pin);
"unknown" is what the kernel says of netfilter links. "outdated" stands behind what was
attached by another version of its policy than is applied (linkpin update), "withdrawn"
where the policy is not applied any more. "(unowned)" stands behind tc
filters that a policy allows in the place of TCX links.`,
	}
	cmd.Flags().BoolVar(&all, "all", false, "also what drains after its container has ended, with age and reason, and notes of what pods ask for")
	cmd.RunE = func(*cobra.Command, []string) error {
		s, done, err := a.session()
		if err != nil {
			return err
		}
		defer done()
		found, err := items(s)
		if err != nil {
			return err
		}
		out := lsOutput{Entries: []entryOutput{}}
		var shown []entry.Item
		for _, it := range found {
			if (it.Retired == nil && it.Place.Policy() != entry.Note) || all {
				out.Entries = append(out.Entries, describeEntry(it))
				shown = append(shown, it)
			}
		}
		marked := make([]*entryOutput, len(out.Entries))
		for i := range out.Entries {
			marked[i] = &out.Entries[i]
		}
		a.standings(s, shown, marked)
		if a.json {
			return a.printJSON(out)
		}
		return a.printList(shown, out)
	}
	return cmd
}

func (a *app) printList(found []entry.Item, out lsOutput) error {
	t := a.table("CONTAINER", "POLICY", "PROGRAM", "HOOK", "TARGET", "STATE", "AGE")
	for i, e := range out.Entries {
		if e.Error != "" {
			t.row(itemLabel(found[i]), e.Policy, "", "", "", "unreadable: "+e.Error, "")
			continue
		}
		for _, p := range e.Programs {
			t.row(itemLabel(found[i]), e.Policy, p.Name, hookText(p), targetText(e, p), a.stateText(e, p), age(a.Now().Sub(e.Created)))
		}
	}
	return t.flush()
}

func (a *app) stateText(e entryOutput, p linkOutput) string {
	if e.Retired == nil {
		return p.stateText() + standingText(e)
	}
	return fmt.Sprintf("%s, retired %s ago: %s", p.stateText(), age(a.Now().Sub(e.Retired.Time)), e.Retired.Reason)
}
