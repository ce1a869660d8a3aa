// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/specs/fault"
)

// addOutputFlag adds -o to all commands.
func (a *app) addOutputFlag(root *cobra.Command) {
	root.PersistentFlags().VarP(&outputFlag{a}, "output", "o", "text, or json: see linkpin help output")
}

// outputFlag is the value of -o.
type outputFlag struct{ app *app }

func (f *outputFlag) String() string {
	if f.app != nil && f.app.json {
		return "json"
	}
	return "text"
}

func (f *outputFlag) Type() string { return "format" }

func (f *outputFlag) Set(s string) error {
	switch s {
	case "text", "json":
		f.app.json = s == "json"
		return nil
	}
	return fmt.Errorf("there are text and json")
}

// printf writes to stdout.
func (a *app) printf(format string, args ...any) {
	fmt.Fprintf(a.Stdout, format, args...)
}

// printJSON writes one document to stdout. Control characters that encoding/json
// leaves alone (those after ASCII) are escaped as well: runtimes wrote them, and a
// terminal would obey them.
func (a *app) printJSON(document any) error {
	data, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, r := range string(data) {
		if r >= 0x7f && r < 0xa0 {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	_, err = io.WriteString(a.Stdout, b.String()+"\n")
	return err
}

// table writes rows in columns.
type table struct {
	w *tabwriter.Writer
}

func (a *app) table(header ...string) *table {
	t := &table{w: tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)}
	t.row(header...)
	return t
}

// row writes one row. Empty cells show as "-".
func (t *table) row(cells ...string) {
	for i, cell := range cells {
		if cell = fault.OneLine(cell); cell == "" {
			cell = "-"
		}
		cells[i] = cell
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t *table) flush() error { return t.w.Flush() }

// age returns a duration as a short word: "5s", "3m", "7h", "2d".
func age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d/time.Second))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d/time.Hour))
	}
	return fmt.Sprintf("%dd", int(d/(24*time.Hour)))
}

// count writes "1 policy" or "3 policies".
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
