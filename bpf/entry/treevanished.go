// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// Known is an entry as an earlier run has seen it.
type Known struct {
	Path   string     `json:"path"` // below v1
	Record pin.Record `json:"record"`
}

// Know returns what a later run needs to tell whether an entry has ended or was taken
// away as a whole; false for entries that need not be missed.
func Know(it Item) (Known, bool) {
	if it.Record == nil || it.Retired != nil || isNote(it.Place) {
		return Known{}, false
	}
	rec := *it.Record
	rec.Identity.Annotations, rec.Uncovered, rec.Maps = nil, nil, nil
	return Known{Path: it.Place.String(), Record: rec}, true
}

// Vanished returns which of the known entries are gone although what they were for
// lives, each with what is known of it. What was retired has been taken care of.
// Session.Root may be nil: then all of them are gone.
func (s *Session) Vanished(known []Known, now []Item) ([]Known, []Finding) {
	there := map[string]bool{}
	retired := map[string]bool{} // links and filters
	for _, it := range now {
		if it.Retired == nil {
			there[it.Place.String()] = true
		} else if it.Record != nil {
			for _, p := range it.Record.Programs {
				retired[attachmentKey(p)] = true
			}
		}
	}
	var left []Known
	var out []Finding
	for _, k := range known {
		if there[k.Path] || slices.ContainsFunc(k.Record.Programs, func(p pin.ProgramRecord) bool { return retired[attachmentKey(p)] }) {
			continue
		}
		rec := k.Record
		f := Finding{Path: k.Path, Record: &rec, Problem: ProblemVanished}
		lives, err := s.knownLives(k)
		switch {
		case err != nil:
			f.Problem, f.Err = ProblemUnknown, err
			f.Detail = k.Path + " is gone, and whether what it was for has ended can't be told"
		case !lives:
			continue
		default:
			f.Detail = k.Path + " is gone, what it was for is still there"
			if n := liveLinks(rec); n > 0 {
				f.Detail += fmt.Sprintf("; %d of its links live on without a pin", n)
			}
			f.Remedy = "start the container again"
		}
		left = append(left, k)
		out = append(out, f)
	}
	return left, out
}

// knownLives reports whether what an entry was for is still there. What is for a whole
// sandbox goes with the interface whose ADD made it.
func (s *Session) knownLives(k Known) (bool, error) {
	rec := &k.Record
	pod := slices.ContainsFunc(rec.Programs, func(p pin.ProgramRecord) bool { return p.Target == specs.TargetPodCgroup })
	if pod || strings.HasPrefix(k.Path, string(pin.DirContainers)+"/") {
		if ended, err := s.containerEnded(rec); ended || err != nil || !pod {
			return !ended, err
		}
	}
	ns, err := s.reopenNetns(pin.Place{}, rec)
	if errors.Is(err, target.ErrGone) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { s.warn(ns.Close()) }()
	if rec.Interface == nil {
		return true, nil
	}
	_, err = findInterface(ns, rec.Interface)
	switch {
	case err == nil, errors.Is(err, errReplaced):
		return true, nil
	case errors.Is(err, target.ErrGone):
		return false, nil
	}
	return false, fault.New(k.Path, err, "")
}

// LinksLive reports whether all links of an entry that is gone are still there: then it
// may only be hidden.
func (k Known) LinksLive() bool {
	return len(k.Record.Programs) > 0 && liveLinks(k.Record) == len(k.Record.Programs)
}

func liveLinks(rec pin.Record) int {
	n := 0
	for _, p := range rec.Programs {
		if linkExists(p.LinkID) {
			n++
		}
	}
	return n
}
