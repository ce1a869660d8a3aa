// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/specs/applied"
)

// standings says of entries whether the applied set has another version of their
// policy. Without an applied set it can't be told, and that is not this command's
// business to complain about.
func (a *app) standings(s *entry.Session, found []entry.Item, out []*entryOutput) {
	if s == nil {
		return
	}
	if set, err := applied.Open(a.roots.applied()); err == nil {
		defer func() { a.warn(set.Close()) }()
		s.Plans = set
		defer func() { s.Plans = nil }()
	}
	for i, it := range found {
		if it.Record != nil && it.Retired == nil {
			out[i].Standing = s.Standing(it.Record)
		}
	}
}

// standingText is what a state or digest is followed by, for people.
func standingText(e entryOutput) string {
	switch e.Standing {
	case entry.StandingOutdated, entry.StandingWithdrawn:
		return ", " + string(e.Standing)
	}
	return ""
}

// inUse tells which applied sets entries were made from: `linkpin update` compares with
// the version that runs, and `verify --repair` may have to load it again. Where there is
// nothing to be seen, none is.
func (a *app) inUse() func(generation string) bool {
	used := map[string]bool{}
	s, done, err := a.session()
	if err != nil || s == nil {
		return nil
	}
	defer done()
	found, err := items(s)
	a.warn(err)
	for _, it := range found {
		if it.Record != nil {
			used[it.Record.Generation] = true
		}
	}
	return func(generation string) bool { return used[generation] }
}
