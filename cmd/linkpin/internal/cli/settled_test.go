// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"testing"

	"github.com/linkpin/linkpin/bpf/entry"
)

// Drift is what two looks have seen.
func TestSettled(t *testing.T) {
	drift := func(program string) entry.Finding {
		return entry.Finding{Program: program, Problem: entry.ProblemMissing}
	}
	warning := entry.Finding{Program: "w", Problem: entry.ProblemInFront}
	looks := func(all ...[]entry.Finding) (func() []entry.Finding, *int) {
		n := 0
		return func() []entry.Finding { n++; return slices.Clone(all[n-1]) }, &n
	}
	for name, c := range map[string]struct {
		first, second []entry.Finding
		looks         int
		want          []string
	}{
		"in order":          {nil, nil, 1, nil},
		"only a warning":    {[]entry.Finding{warning}, nil, 1, []string{"w"}},
		"passing":           {[]entry.Finding{drift("a")}, nil, 2, nil},
		"stays":             {[]entry.Finding{drift("a")}, []entry.Finding{drift("a")}, 2, []string{"a"}},
		"another one":       {[]entry.Finding{drift("a")}, []entry.Finding{drift("b")}, 2, nil},
		"stays, warning":    {[]entry.Finding{drift("a")}, []entry.Finding{drift("a"), warning}, 2, []string{"a", "w"}},
		"one of two stays":  {[]entry.Finding{drift("a"), drift("b")}, []entry.Finding{drift("b")}, 2, []string{"b"}},
		"warning goes away": {[]entry.Finding{drift("a"), warning}, []entry.Finding{drift("a")}, 2, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			look, n := looks(c.first, c.second)
			var got []string
			for _, f := range settled(look, look) {
				got = append(got, f.Program)
			}
			if !slices.Equal(got, c.want) || *n != c.looks {
				t.Errorf("%v after %d looks, want %v after %d", got, *n, c.want, c.looks)
			}
		})
	}
}
