// SPDX-License-Identifier: Apache-2.0

// Package fault gives every error that a user sees the same shape: one line
// that names the object, the cause and the remedy.
package fault

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Exit codes of all linkpin commands. The numbers from 64 up are those of
// sysexits.h.
const (
	ExitOK          = 0
	ExitFailed      = 1  // refused, failed, or drift left
	ExitUnsure      = 3  // linkpin verify: could not tell
	ExitUsage       = 64 // wrong arguments
	ExitInput       = 65 // state, configuration or policy that can't be understood
	ExitUnavailable = 69 // bpffs, cgroup2 or a kernel feature is missing
	ExitConfig      = 78 // the applied set is missing or damaged
)

// Error is a failure that a user can act on.
type Error struct {
	Object string // what failed: a file with its line, a container, a device. Never empty.
	Cause  error  // why. Never nil.
	Remedy string // what to do about it; may be empty when nothing can be done.
	Exit   int    // exit code; 0 stands for ExitFailed.
}

// New returns an Error without an exit code of its own.
func New(object string, cause error, remedy string) *Error {
	return &Error{Object: object, Cause: cause, Remedy: remedy}
}

// Newf is New for a cause that is only text.
func Newf(object, cause, remedy string) *Error {
	return New(object, errors.New(cause), remedy)
}

// WithExit sets the exit code and returns e.
func (e *Error) WithExit(code int) *Error {
	e.Exit = code
	return e
}

// Error returns "object: cause; remedy" on one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Object)
	b.WriteString(": ")
	b.WriteString(e.Cause.Error())
	if e.Remedy != "" {
		b.WriteString("; ")
		b.WriteString(e.Remedy)
	}
	return OneLine(b.String())
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// ExitCode returns the exit code that err asks for: 0 for nil, that of the
// outermost Error in the chain that has one, ExitFailed otherwise.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	for {
		var e *Error
		if !errors.As(err, &e) {
			return ExitFailed
		}
		if e.Exit != 0 {
			return e.Exit
		}
		err = e.Cause
	}
}

// OneLine makes s safe for one line of a terminal or log: whatever does not
// print by itself (control characters, invalid UTF-8, characters that turn the
// direction of text) is escaped as Go would write it, line ends become "; ".
func OneLine(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, unprintable) {
		return s
	}
	s = strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "; ")
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			const hex = "0123456789abcdef"
			b.WriteString(`\x` + string(hex[s[i]>>4]) + string(hex[s[i]&15]))
		case unprintable(r):
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool {
	return !strconv.IsPrint(r)
}
