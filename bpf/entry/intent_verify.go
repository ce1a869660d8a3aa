// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"fmt"
	"slices"

	"github.com/linkpin/linkpin/bpf/pin"
)

// duringUpdate looks again at a link that is not as recorded: an update may be under
// way, may have been left unfinished, or may have ended between reading the record and
// asking the kernel. "" means that the link is in order.
func (s *Session) duringUpdate(it Item, row pin.ProgramRecord, l LinkState, problem Problem, detail string) (Problem, string) {
	if in, ok := s.Unfinished(it.Place); ok {
		if explains(&in, it.Place, row, l) {
			return ProblemUpdating, fmt.Sprintf("an update of policy %s is not finished", in.Policy)
		}
		return problem, detail
	}
	now, ok := s.Look(it.Place)
	if !ok {
		return "", "" // retired, or taken down
	}
	if now.Record == nil || now.Record.Updated.Equal(it.Record.Updated) && now.Record.Created.Equal(it.Record.Created) {
		return problem, detail
	}
	i := slices.IndexFunc(now.Record.Programs, func(p pin.ProgramRecord) bool { return p.Name == row.Name })
	if i < 0 {
		return "", ""
	}
	return compare(now.Record.Programs[i], now.Links[i])
}

// explains reports whether an intent is why a link is not as recorded. Any other
// program in it is drift, also while an update is under way.
func explains(in *pin.Intent, p pin.Place, row pin.ProgramRecord, l LinkState) bool {
	for _, e := range in.Entries {
		if e.Place != p.String() {
			continue
		}
		for _, w := range e.Swaps {
			if w.Link == row.Name {
				return l.Err == nil && l.Info.LinkID == w.LinkID && (l.Info.ProgramID == w.Old.ID || l.Info.ProgramID == w.New.ID)
			}
		}
		return slices.Contains(e.DropLinks, row.Name) ||
			slices.ContainsFunc(e.Moves, func(m pin.IntentMove) bool { return m.Link == row.Name })
	}
	return false
}
