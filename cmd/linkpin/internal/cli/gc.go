// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/bpf/entry"
)

// gcOutput is `linkpin gc -o json`.
type gcOutput struct {
	Removed  int `json:"removed"`  // entries, unfinished directories and index links
	Draining int `json:"draining"` // retired entries whose links the kernel still holds
	Busy     int `json:"busy"`     // what other processes work on, left alone
}

// gcPreview is `linkpin gc --dry-run -o json`.
type gcPreview struct {
	WouldRemove []entryOutput `json:"wouldRemove"`
}

func (a *app) gcCommand() *cobra.Command {
	var dryRun bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what belongs to containers that have ended",
		Long: `Remove severed links, the entries of containers that have ended, and what killed
processes left unfinished. What the kernel still holds (a socket of an ended container
keeps its cgroup alive) stays until the kernel lets go of it.`,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be removed")
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait for links that the kernel is about to sever, like 5s")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if wait < 0 {
			return usage(cmd, fmt.Errorf("--wait=%s is negative", wait))
		}
		s, done, err := a.session()
		if err != nil {
			return err
		}
		defer done()
		if dryRun {
			return a.previewGC(s)
		}
		var result entry.GCResult
		if s != nil {
			result, err = s.GC(cmd.Context(), entry.GCOptions{Wait: wait})
		}
		if a.json {
			if e := a.printJSON(gcOutput{Removed: result.Removed, Draining: result.Draining, Busy: result.Busy}); err == nil {
				err = e
			}
			return err
		}
		a.printf("%d removed, %d draining, %d busy\n", result.Removed, result.Draining, result.Busy)
		return err
	}
	return cmd
}

func (a *app) previewGC(s *entry.Session) error {
	var found []entry.Item
	if s != nil {
		var err error
		if found, err = s.Preview(); err != nil {
			return err
		}
	}
	out := gcPreview{WouldRemove: []entryOutput{}}
	for _, it := range found {
		out.WouldRemove = append(out.WouldRemove, describeEntry(it))
	}
	if a.json {
		return a.printJSON(out)
	}
	return a.printPreview(found, out)
}

func (a *app) printPreview(found []entry.Item, out gcPreview) error {
	t := a.table("CONTAINER", "POLICY", "LINKS", "AGE")
	for i, e := range out.WouldRemove {
		links := strconv.Itoa(len(e.Programs))
		if n := unowned(found[i].Record); n > 0 {
			links += fmt.Sprintf(" (%d unowned)", n)
		}
		t.row(itemLabel(found[i]), e.Policy, links, age(a.Now().Sub(e.Created)))
	}
	return t.flush()
}
