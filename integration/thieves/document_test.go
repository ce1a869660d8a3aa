// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	document = "../../docs/SECURITY.md"
	begin    = "<!-- thieves: begin (generated: go test ./integration/thieves -run TestDocument -update) -->\n"
	end      = "<!-- thieves: end -->\n"
)

// TestDocument holds the table of docs/SECURITY.md to the table of the tests.
func TestDocument(t *testing.T) {
	path, err := filepath.Abs(document)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no lines %q and %q", path, begin, end)
	}
	want := markdown()
	if have == want {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the tests check; run: go test ./integration/thieves -run TestDocument -update", path)
	}
	if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// markdown returns the tables, and how often each class occurs.
func markdown() string {
	var b strings.Builder
	count := map[class][3]int{}
	for _, g := range groups {
		fmt.Fprintf(&b, "\n### %s\n\n", g.title)
		fmt.Fprintln(&b, "| what the thief does | host | privileged | own user namespace | why, and what to do |")
		fmt.Fprintln(&b, "|---|---|---|---|---|")
		for _, r := range g.rows {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.what, cell(r.host), cell(r.caps), cell(r.own), r.note)
			for _, a := range []actor{hostRoot, hostUserns, ownUserns} {
				n := count[r.expected(a)]
				n[a]++
				count[r.expected(a)] = n
			}
		}
	}
	fmt.Fprint(&b, "\n### Count\n\n| | host | privileged | own user namespace |\n|---|---|---|---|\n")
	for _, c := range []class{refused, holds, mended, seen, warned, outside} {
		n := count[c]
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", cell(c), n[hostRoot], n[hostUserns], n[ownUserns])
	}
	fmt.Fprintln(&b)
	return b.String()
}

func cell(c class) string {
	switch c {
	case none:
		return "–"
	case outside:
		return "**outside**"
	}
	return string(c)
}
