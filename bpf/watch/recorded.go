// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"maps"
	"slices"

	"github.com/linkpin/linkpin/bpf/pin"
)

// recorded reports whether a program is in any of our records. All of them are known
// from earlier looks; only what has changed since is read, and only if somebody asks
// about a program that is in none.
func (v *view) recorded(program uint32) bool {
	if v.ours == nil {
		v.ours = map[uint32]bool{}
		for _, entries := range []map[pin.Place]*known{v.entries, v.retired} {
			for _, k := range entries {
				v.addPrograms(k.item.Record)
			}
		}
	}
	if !v.ours[program] && !v.caughtUp {
		v.caughtUp = true
		v.catchUp()
	}
	return v.ours[program]
}

// catchUp reads the records of entries that are new or have changed.
func (v *view) catchUp() {
	places := slices.Collect(maps.Keys(v.entries))
	if v.hear(); v.heard.files {
		all, err := v.places()
		v.warn(err)
		places = all
	}
	for _, p := range places {
		if k := v.entries[p]; k != nil {
			if now, err := fingerprintOf(v.path(p)); err != nil || k.print.same(now) {
				continue
			}
		}
		if e, err := v.session.Root.Entry(p); err == nil {
			if rec, err := e.Record(); err == nil {
				v.addPrograms(&rec)
			}
		}
	}
}

func (v *view) addPrograms(rec *pin.Record) {
	if rec == nil {
		return
	}
	for _, p := range rec.Programs {
		v.ours[p.ProgramID] = true
	}
}
