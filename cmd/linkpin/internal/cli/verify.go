// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/specs/fault"
)

// verifyOutput is `linkpin verify -o json`.
type verifyOutput struct {
	Links    int             `json:"links"` // that were compared
	Findings []findingOutput `json:"findings"`
	NoRecord []string        `json:"noRecord"` // IDs that were named and have no record
}

type findingOutput struct {
	Path      string          `json:"path"`
	Container containerOutput `json:"container"`
	Policy    string          `json:"policy"`
	Program   string          `json:"program,omitempty"` // empty: the whole entry
	Problem   entry.Problem   `json:"problem"`
	Drift     bool            `json:"drift"` // false: the target has ended, or it could not be told
	Detail    string          `json:"detail"`
	Repaired  string          `json:"repaired,omitempty"` // what was done about it
	Error     string          `json:"error,omitempty"`    // why it could not be told or mended
}

func (a *app) verifyCommand() *cobra.Command {
	var repair bool
	cmd := &cobra.Command{
		Use:   "verify [ID...]",
		Short: "Compare what is recorded with what the kernel has",
		Long: `Compare every link with its record. Drift is a link that should be live and is
severed, missing, unpinned, or holds another program. With --repair, drift is mended:
what was unpinned is pinned again, and what was taken off is attached anew, with the
same program and maps where they still exist.

Exit code: 0 if everything is in order or was mended, 1 if drift is left, 3 if something
could not be told or an ID has no record (this wins over 1).`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "mend what is not as recorded")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, done, err := a.session()
		if err != nil {
			return err
		}
		defer done()
		out := verifyOutput{Findings: []findingOutput{}, NoRecord: []string{}}
		found, err := a.selected(s, args, &out)
		if err != nil {
			return err
		}
		if repair && s != nil {
			defer a.addPlans(s)()
		}
		for _, it := range found {
			findings := s.Verify(it)
			if repair && slices.ContainsFunc(findings, drifts) {
				findings = mend(cmd.Context(), s, it, findings)
			}
			if it.Record != nil && it.Retired == nil {
				out.Links += len(it.Record.Programs)
			}
			for _, f := range findings {
				out.Findings = append(out.Findings, describeFinding(it, f))
			}
		}
		if a.json {
			err = a.printJSON(out)
		} else {
			err = a.printVerified(out)
		}
		if code := verdict(out); code != fault.ExitOK && err == nil {
			err = exitError(code)
		}
		return err
	}
	return cmd
}

// selected returns the entries to verify: all, or those of the IDs.
func (a *app) selected(s *entry.Session, args []string, out *verifyOutput) ([]entry.Item, error) {
	all, err := items(s)
	if err != nil || len(args) == 0 {
		return all, err
	}
	var found []entry.Item
	for _, id := range args {
		entries, err := match(all, id)
		if errors.Is(err, errNoRecord) {
			out.NoRecord = append(out.NoRecord, id)
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, it := range entries {
			if !slices.ContainsFunc(found, func(f entry.Item) bool { return f.Place == it.Place }) {
				found = append(found, it)
			}
		}
	}
	return found, nil
}

func drifts(f entry.Finding) bool { return f.Problem.Drift() }

// mend repairs one entry and returns what is to be said afterwards.
func mend(ctx context.Context, s *entry.Session, it entry.Item, findings []entry.Finding) []entry.Finding {
	ctx, cancel := context.WithTimeout(ctx, entry.LoadTimeout+entry.AttachTimeout)
	defer cancel()
	repaired, err := s.Repair(ctx, it.Place)
	if err == nil {
		return repaired
	}
	for i := range findings {
		if findings[i].Err == nil {
			findings[i].Err = err
		}
	}
	return findings
}

func describeFinding(it entry.Item, f entry.Finding) findingOutput {
	e := describeEntry(it)
	out := findingOutput{
		Path: e.Path, Container: e.Container, Policy: e.Policy, Program: f.Program,
		Problem: f.Problem, Drift: f.Problem.Drift(), Detail: f.Detail,
	}
	if f.Err != nil {
		out.Error = fault.OneLine(f.Err.Error())
	} else {
		out.Repaired = f.Repaired
	}
	return out
}

// verdict is the exit code. What could not be told wins over drift: "1" must mean
// that all the rest is known to be in order.
func verdict(out verifyOutput) int {
	code := fault.ExitOK
	if len(out.NoRecord) > 0 {
		return fault.ExitUnsure
	}
	for _, f := range out.Findings {
		switch {
		case f.Problem == entry.ProblemUnknown:
			return fault.ExitUnsure
		case f.Drift && f.Repaired == "":
			code = fault.ExitFailed
		}
	}
	return code
}

func (a *app) printVerified(out verifyOutput) error {
	for _, id := range out.NoRecord {
		a.warn(noRecord(id))
	}
	drift, repaired := 0, 0
	if len(out.Findings) > 0 {
		t := a.table("CONTAINER", "POLICY", "PROGRAM", "PROBLEM", "DETAIL")
		for _, f := range out.Findings {
			detail := f.Detail
			switch {
			case f.Error != "":
				detail += "; " + f.Error
			case f.Repaired != "":
				detail += "; mended: " + f.Repaired
				repaired++
			}
			if f.Drift {
				drift++
			}
			t.row(findingLabel(f), f.Policy, f.Program, string(f.Problem), detail)
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	a.printf("%s compared, %s of drift", count(out.Links, "link", "links"), count(drift, "case", "cases"))
	if repaired > 0 {
		a.printf(", %d mended", repaired)
	}
	if drift > repaired {
		a.printf("; `linkpin verify --repair` mends what can be")
	}
	a.printf("\n")
	return nil
}

func findingLabel(f findingOutput) string {
	return label(f.Container.identity())
}
