// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs/fault"
)

// Errors is everything that is wrong with one policy file, in the order of its
// lines. Each error is one line, "file:line: field: message; remedy".
type Errors []*fault.Error

// Error returns one line for each error.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the errors one by one.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// maxErrors is how many errors of a file are reported, and maxNoted how many are
// kept to choose from; the rest is only counted.
const (
	maxErrors = 50
	maxNoted  = 500
)

// problem is an error with the line that it is sorted by.
type problem struct {
	line int
	err  *fault.Error
}

// fail notes an error. The remedy may be empty.
func (d *decoder) fail(pos Pos, remedy, format string, args ...any) {
	if len(d.problems) == maxNoted {
		d.dropped++
		return
	}
	err := fault.New(pos.String(), fmt.Errorf(format, args...), remedy).WithExit(fault.ExitInput)
	d.problems = append(d.problems, problem{pos.Line, err})
}

// err returns what was noted as Errors, or nil.
func (d *decoder) err() error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b problem) int { return a.line - b.line })
	var errs Errors
	for i, p := range d.problems {
		if i == maxErrors {
			more := fmt.Errorf("%d more errors", len(d.problems)-i+d.dropped)
			errs = append(errs, fault.New(Pos{File: d.file}.String(), more, "correct these first").WithExit(fault.ExitInput))
			break
		}
		errs = append(errs, p.err)
	}
	return errs
}

// oneOf writes "a", "a or b", "a, b or c".
func oneOf(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// nearest returns the name that s was probably meant to be, or "".
func nearest(s string, names []string) string {
	if len(s) > 64 {
		return ""
	}
	plain := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r == '_' || r == '-' || r == '/' || r == '.' {
				return -1
			}
			return r
		}, strings.ToLower(s))
	}
	best, bestDistance := "", 3
	for _, name := range names {
		distance := editDistance(plain(s), plain(name))
		if distance < bestDistance && distance*2 <= len(name) {
			best, bestDistance = name, distance
		}
	}
	return best
}

// editDistance counts the characters to insert, delete or replace (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
