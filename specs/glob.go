// SPDX-License-Identifier: Apache-2.0

package specs

import (
	"errors"
	"unicode/utf8"
)

// MaxGlob is the longest glob in bytes. With it, matching takes at most
// MaxGlob steps for each character of the text.
const MaxGlob = 256

// errGlob is what is wrong with a glob whose brackets or escapes do not close.
var errGlob = errors.New("[ without ], an empty [], or \\ at the end")

// Glob reports whether s as a whole matches pattern: "*" stands for any text,
// "?" for one character, "[a-z]" and "[^a-z]" for one character of a class, and
// "\" takes the special meaning of the next character. Unlike in path.Match "/"
// is an ordinary character. An empty pattern matches the empty text alone, and a
// pattern that CheckGlob refuses matches nothing.
func Glob(pattern, s string) bool {
	if CheckGlob(pattern) != nil {
		return false
	}
	// Only the last star is ever tried again, so there is nothing exponential.
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, i
			p++
			continue
		}
		if p < len(pattern) {
			r, width := utf8.DecodeRuneInString(s[i:])
			if ok, next := matchOne(pattern, p, r); ok {
				p, i = next, i+width
				continue
			}
		}
		if star < 0 {
			return false
		}
		_, width := utf8.DecodeRuneInString(s[mark:])
		mark += width
		p, i = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches r with the element at pattern[p], which is not a star, and
// returns where the next element begins. The pattern has passed CheckGlob.
func matchOne(pattern string, p int, r rune) (ok bool, next int) {
	switch pattern[p] {
	case '?':
		return true, p + 1
	case '[':
		c, next, _ := parseClass(pattern, p, r)
		return c, next
	}
	want, next, _ := parseChar(pattern, p)
	return want == r, next
}

// parseChar reads one possibly escaped character.
func parseChar(pattern string, p int) (r rune, next int, err error) {
	if p < len(pattern) && pattern[p] == '\\' {
		p++
	}
	if p >= len(pattern) {
		return 0, p, errGlob
	}
	r, width := utf8.DecodeRuneInString(pattern[p:])
	if r == utf8.RuneError && width == 1 {
		return 0, p, errors.New("not UTF-8")
	}
	return r, p + width, nil
}

// parseClass reads the class that begins at pattern[p] == '[' and reports
// whether it contains r.
func parseClass(pattern string, p int, r rune) (contains bool, next int, err error) {
	p++
	negated := false
	if p < len(pattern) && pattern[p] == '^' {
		negated = true
		p++
	} else if p < len(pattern) && pattern[p] == '!' {
		// A shell would negate here and path.Match would not.
		return false, p, errors.New("[!…] has two meanings: write [^…], or [\\!…] for the character itself")
	}
	for n := 0; ; n++ {
		if p < len(pattern) && pattern[p] == ']' && n > 0 {
			return contains != negated, p + 1, nil
		}
		if p >= len(pattern) || pattern[p] == ']' || pattern[p] == '-' {
			return false, p, errGlob
		}
		low, q, err := parseChar(pattern, p)
		if err != nil {
			return false, q, err
		}
		high := low
		if q < len(pattern) && pattern[q] == '-' {
			if q+1 >= len(pattern) || pattern[q+1] == ']' || pattern[q+1] == '-' {
				return false, q, errGlob
			}
			if high, q, err = parseChar(pattern, q+1); err != nil {
				return false, q, err
			}
			if high < low {
				return false, q, errors.New("a range in [] runs backwards")
			}
		}
		contains = contains || low <= r && r <= high
		p = q
	}
}

// CheckGlob says what is wrong with a glob, or nil.
func CheckGlob(pattern string) error {
	if len(pattern) > MaxGlob {
		return errors.New("longer than 256 bytes")
	}
	for p := 0; p < len(pattern); {
		var err error
		switch pattern[p] {
		case '*', '?':
			p++
		case '[':
			_, p, err = parseClass(pattern, p, 0)
		default:
			_, p, err = parseChar(pattern, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
