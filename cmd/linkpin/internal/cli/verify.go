// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// verifyOutput is `linkpin verify -o json`.
type verifyOutput struct {
	Links    int             `json:"links"`   // that were compared
	Unowned  int             `json:"unowned"` // of them; tc filters that a policy allows in the place of links
	Findings []findingOutput `json:"findings"`
	NoRecord []string        `json:"noRecord"` // IDs that were named and have no record
}

type findingOutput struct {
	Path      string          `json:"path"`
	Container containerOutput `json:"container"`
	Policy    string          `json:"policy"`
	Program   string          `json:"program,omitempty"` // empty: the whole entry
	Problem   entry.Problem   `json:"problem"`
	Level     entry.Level     `json:"level"` // drift, unknown (could not tell), warning or note
	Drift     bool            `json:"drift"`
	Detail    string          `json:"detail"`
	Remedy    string          `json:"remedy,omitempty"`   // what to do where --repair can't
	Repaired  string          `json:"repaired,omitempty"` // what was done about it
	Error     string          `json:"error,omitempty"`    // why it could not be told or mended
}

func (a *app) verifyCommand() *cobra.Command {
	var repair bool
	var known string
	cmd := &cobra.Command{
		Use:   "verify [ID...]",
		Short: "Compare what is recorded with what the kernel has",
		Long: `Compare every link with its record, and what is around it: the process, the interface,
who runs before our programs, or behind them where that could change what they have
allowed, owners and permissions in bpffs. Drift is a promise that is
broken: a link that should be live is severed, missing, unpinned, or holds another program,
or others could not find it. What only asks to be looked at is a warning. With --repair,
drift is mended: what was unpinned is pinned again, and what was taken off is attached
anew, with the same program and maps where they still exist. What is not linkpin's is never
touched.

With --known, the set of entries is compared with that of the run before, which FILE holds:
an entry of which nothing is left, though its container lives, is drift too. FILE is then
replaced. That of another boot is not believed.

Of the state as a whole, whatever the flags:
  another bpffs lies over it   hidden: exit code 3. With --known, what lies below is named.
                               Unmount what was mounted last
  bpffs is read-only           links are found by their ids: a warning, and nothing can be
                               mended until it is remounted
  linkpin's own directory could be written to by others: what is in it proves nothing.
                               Exit code 69 and one line that says what to do; --repair
                               takes back only permissions that let nobody write
  bpffs or cgroup2 is missing  exit code 69

Netfilter links don't tell whether they are attached. The kernel does if it has
CONFIG_NETFILTER_NETLINK_HOOK; without that they could not be told (3), and --repair finds
out by trying: what was detached is attached again, what has its place taken gets a
warning (unconfirmed).

Exit code: 0 if everything is in order or was mended, 1 if drift is left, 3 if something
could not be told or an ID has no record (this wins over 1). Warnings change nothing. A
systemd unit that is to accept 3 has SuccessExitStatus=3, and then misses drift beside it.`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "mend what is not as recorded")
	cmd.Flags().StringVar(&known, "known", "", "`FILE` with the entries of the run before, and for the next")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if known != "" && len(args) > 0 {
			return usage(cmd, errors.New("--known is about all entries, not about some IDs"))
		}
		v := &verification{app: a, repair: repair, whole: len(args) == 0}
		v.out = verifyOutput{Findings: []findingOutput{}, NoRecord: []string{}}
		if err := v.run(cmd.Context(), args, known); err != nil {
			return err
		}
		var err error
		if a.json {
			err = a.printJSON(v.out)
		} else {
			err = a.printVerified(v.out)
		}
		if code := verdict(v.out); code != fault.ExitOK && err == nil {
			err = exitError(code)
		}
		return err
	}
	return cmd
}

// verification is one run of the command.
type verification struct {
	*app
	repair bool
	whole  bool // of all entries, hence of the tree as well
	out    verifyOutput
}

func (v *verification) run(ctx context.Context, args []string, known string) error {
	s, done, err := v.session()
	if errors.Is(err, pin.ErrForeign) && v.repair {
		s, done, err = v.reclaim()
	}
	if err != nil {
		return err
	}
	defer done()
	found, err := v.selected(s, args, &v.out)
	if err != nil {
		return err
	}
	var k *knownFile
	if known != "" {
		k = v.compareKnown(ctx, s, known, found)
	}
	if v.whole {
		v.stacked(s)
	}
	if s != nil {
		defer v.plans(s)()
		v.examine(ctx, s, found)
	}
	if k != nil {
		v.replaceKnown(s, k)
	}
	return nil
}

// reclaim opens the state after giving its directories their permissions back.
func (v *verification) reclaim() (s *entry.Session, done func(), err error) {
	had, err := pin.Reclaim(v.roots.pins())
	if err != nil {
		return nil, nil, err
	}
	for _, text := range had {
		v.add([]entry.Finding{{Problem: entry.ProblemMode, Detail: text, Repaired: "given back to root alone"}})
	}
	return v.session()
}

// plans gives a session the applied set. Without --repair it is only for telling which
// entries are of older policies.
func (v *verification) plans(s *entry.Session) (done func()) {
	if v.repair {
		return v.addPlans(s)
	}
	set, err := applied.Open(v.roots.applied())
	if err != nil {
		return func() {}
	}
	s.Plans = set
	return func() { v.warn(set.Close()) }
}

func (v *verification) examine(ctx context.Context, s *entry.Session, found []entry.Item) {
	x := s.Examine()
	switch {
	case v.whole && v.repair:
		v.add(x.RepairTree())
	case v.whole:
		v.add(settled(x.Tree, x.Tree))
	}
	for _, it := range found {
		findings := settled(func() []entry.Finding { return x.Entry(it) }, func() []entry.Finding {
			again, ok := s.Look(it.Place)
			if !ok {
				return nil // it was retired
			}
			it = again
			return x.Entry(it)
		})
		if v.repair && slices.ContainsFunc(findings, mendable) {
			findings = mend(ctx, x, it, findings)
		}
		if it.Record != nil && it.Retired == nil {
			v.out.Links += len(it.Record.Programs)
			v.out.Unowned += unowned(it.Record)
		}
		v.add(findings)
	}
}

// stacked says if another bpffs hides what linkpin has recorded, or might.
func (v *verification) stacked(s *entry.Session) {
	err := pin.CheckStacked(v.roots.pins())
	switch {
	case err == nil:
	case s == nil:
		v.add([]entry.Finding{{
			Problem: entry.ProblemHidden, Detail: "nothing is recorded in the uppermost bpffs, and one below may hold what is attached: " + fault.OneLine(err.Error()),
		}})
	default:
		v.add([]entry.Finding{{Problem: entry.ProblemStacked, Detail: fault.OneLine(err.Error())}})
	}
}

func (v *verification) add(findings []entry.Finding) {
	for _, f := range findings {
		v.out.Findings = append(v.out.Findings, describeFinding(f))
	}
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

// mendable reports whether a repair may help: also where it could not be told, since
// what can't be looked at may still be attached again.
func mendable(f entry.Finding) bool {
	return f.Problem.Drift() || f.Problem == entry.ProblemUnknown && f.Program != ""
}

// mend repairs one entry and returns what is to be said afterwards.
func mend(ctx context.Context, x *entry.Examination, it entry.Item, findings []entry.Finding) []entry.Finding {
	ctx, cancel := context.WithTimeout(ctx, entry.LoadTimeout+entry.AttachTimeout)
	defer cancel()
	repaired, err := x.Repair(ctx, it.Place)
	if err == nil {
		return repaired
	}
	for i := range findings {
		if mendable(findings[i]) && findings[i].Err == nil {
			findings[i].Err = err
		}
	}
	return findings
}

func describeFinding(f entry.Finding) findingOutput {
	out := findingOutput{
		Path: f.Place.String(), Policy: f.Place.Policy(), Program: f.Program,
		Problem: f.Problem, Level: f.Problem.Level(), Drift: f.Problem.Drift(), Detail: f.Detail, Remedy: f.Remedy,
	}
	if f.Path != "" {
		out.Path = f.Path
	}
	switch {
	case f.Record != nil:
		out.Policy = f.Record.Policy
		out.Container = describeContainer(f.Record)
	case f.Place != pin.Place{}:
		out.Container.ID = ids(entry.Item{Place: f.Place})[0]
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
		case f.Level == entry.LevelUnknown:
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
	drift, repaired, warnings := 0, 0, 0
	if len(out.Findings) > 0 {
		t := a.table("CONTAINER", "POLICY", "PROGRAM", "PROBLEM", "DETAIL")
		shown, alike := collapse(out.Findings)
		warnings += len(out.Findings) - len(shown)
		for i, f := range shown {
			detail := f.Detail
			switch {
			case f.Error != "":
				detail += "; " + f.Error
			case f.Repaired != "":
				detail += "; mended: " + f.Repaired
				repaired++
			case f.Remedy != "":
				detail += "; " + f.Remedy
			}
			if alike[i] > 0 {
				detail += fmt.Sprintf(" (and the same for %s)", count(alike[i], "other", "others"))
			}
			problem := string(f.Problem)
			switch f.Level {
			case entry.LevelDrift:
				drift++
			case entry.LevelWarning:
				problem += " (warning)"
				warnings++
			}
			t.row(findingLabel(f), f.Policy, f.Program, problem, detail)
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	a.printf("%s compared", count(out.Links, "link", "links"))
	if out.Unowned > 0 {
		a.printf(" (%s)", count(out.Unowned, "unowned tc filter", "unowned tc filters"))
	}
	a.printf(", %s of drift", count(drift, "case", "cases"))
	if repaired > 0 {
		a.printf(", %d mended", repaired)
	}
	if warnings > 0 {
		a.printf(", %s", count(warnings, "warning", "warnings"))
	}
	if drift > repaired {
		a.printf("; `linkpin verify --repair` mends what can be")
	}
	a.printf("\n")
	return nil
}

// collapse leaves out what one neighbour of many containers gives rise to, but for the
// first of them: a program above all their cgroups would fill pages. alike says how many
// are left out behind each that is shown.
func collapse(findings []findingOutput) (shown []findingOutput, alike []int) {
	type neighbour struct{ program, detail string }
	at := map[neighbour]int{}
	for _, f := range findings {
		if f.Problem == entry.ProblemBehind || f.Problem == entry.ProblemInFront {
			k := neighbour{f.Program, f.Detail}
			if i, seen := at[k]; seen {
				alike[i]++
				continue
			}
			at[k] = len(shown)
		}
		shown, alike = append(shown, f), append(alike, 0)
	}
	return shown, alike
}

func findingLabel(f findingOutput) string {
	return label(f.Container.identity())
}
