// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"sync"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
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

// inUse tells which applied sets entries were made from, and unfinished updates will
// be: `linkpin update` compares with the version that runs, and `verify --repair` may
// have to load it again. Where that can't be told, all are. It looks when it is first
// asked, which is when the new set is in effect already.
func (a *app) inUse() func(generation string) bool {
	look := sync.OnceValues(func() (map[string]bool, bool) {
		used, err := a.generations()
		a.warn(err)
		return used, err == nil
	})
	return func(generation string) bool {
		used, known := look()
		return !known || used[generation]
	}
}

// generations lists the applied sets that what is attached was made from.
func (a *app) generations() (map[string]bool, error) {
	s, done, err := a.session()
	if err != nil || s == nil {
		return nil, err
	}
	defer done()
	// Updates first: one that is finished meanwhile is in its records then.
	pending, err := s.PendingGenerations()
	if err != nil {
		return nil, err
	}
	found, err := items(s)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, generation := range pending {
		used[generation] = true
	}
	for _, it := range found {
		if it.Record == nil {
			return nil, fault.New(it.Place.String(), it.Err, "see `linkpin verify`")
		}
		used[it.Record.Generation] = true
	}
	return used, nil
}
