// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// session opens the state in bpffs. Where linkpin has stored nothing yet, the
// session is nil and done does nothing. The caller must call done.
func (a *app) session() (s *entry.Session, done func(), err error) {
	root, err := pin.Open(a.roots.pins())
	if errors.Is(err, pin.ErrNoState) {
		return nil, func() {}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	s = &entry.Session{
		Root:  root,
		Roots: a.roots.targets(),
		By:    pin.ByCLI,
		Warn:  a.warn,
	}
	return s, func() { a.warn(root.Close()) }, nil
}

// addPlans gives a session the applied set, which it needs to load a program
// again. Without one a repair still does what it can. The caller must call done.
func (a *app) addPlans(s *entry.Session) (done func()) {
	set, err := applied.Open(a.roots.applied())
	if err != nil {
		a.warn(err)
		return func() {}
	}
	s.Plans = set
	return func() { a.warn(set.Close()) }
}

// warn prints what went wrong without ending the command.
func (a *app) warn(err error) { a.warnings(errorLines(err)) }

func (a *app) warnings(lines []string) {
	for _, line := range lines {
		fmt.Fprintln(a.Stderr, "linkpin: warning:", line)
	}
}

// items returns all entries; none if there is no session.
func items(s *entry.Session) ([]entry.Item, error) {
	var all []entry.Item
	if s == nil {
		return nil, nil
	}
	err := s.Walk(func(it entry.Item) error {
		all = append(all, it)
		return nil
	})
	return all, err
}

// errNoRecord means that an ID has no entry.
var errNoRecord = errors.New("nothing is recorded for it")

func noRecord(id string) error {
	return fault.New(id, errNoRecord, "`linkpin ls --all` shows what is")
}
