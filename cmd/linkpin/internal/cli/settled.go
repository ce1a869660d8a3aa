// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"time"

	"github.com/linkpin/linkpin/bpf/entry"
)

// settlePause is how long what looks like drift may be somebody's unfinished work.
const settlePause = 100 * time.Millisecond

// settled looks a second time if the first look has found drift, since nothing is locked:
// a container that starts or ends at this moment is half there. Drift is what both have
// seen; of the rest the second look counts.
func settled(first, again func() []entry.Finding) []entry.Finding {
	before := first()
	if !slices.ContainsFunc(before, drifts) {
		return before
	}
	time.Sleep(settlePause)
	return slices.DeleteFunc(again(), func(f entry.Finding) bool {
		return drifts(f) && !slices.ContainsFunc(before, func(b entry.Finding) bool {
			return b.Place == f.Place && b.Path == f.Path && b.Program == f.Program && b.Problem == f.Problem
		})
	})
}

func drifts(f entry.Finding) bool { return f.Problem.Drift() }
