// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

const (
	// fewEntries are looked at and verified as a whole at each look; where there are more,
	// they take turns.
	fewEntries = 32
	// linkRound is how long a round over the names, links and counters of all of them takes.
	linkRound = time.Second
	// verifyRound is how long a round that verifies all of them takes, where no more than
	// verifyAtMost are verified at each look for it.
	verifyRound  = 20 * time.Second
	verifyAtMost = 8
)

// readLinks remembers what the kernel says of an entry's links.
func (v *view) readLinks(k *known) {
	k.links = make([]linkInfo, len(k.programs()))
	for i, p := range k.programs() {
		info, err := readLink(p.LinkID)
		v.warn(err)
		k.links[i] = info
	}
}

// linksChanged reports whether the kernel says something else than before. It does
// not judge: that is for entry.Verify.
func (v *view) linksChanged(k *known) bool {
	for i, p := range k.programs() {
		info, err := readLink(p.LinkID)
		if err != nil || info != k.links[i] {
			return true
		}
	}
	return false
}

// opaque reports whether an entry has something that its links do not show, so that
// it has to be verified as a whole each time: netfilter links, and what has no link.
func opaque(k *known) bool {
	return slices.ContainsFunc(k.programs(), func(p pin.ProgramRecord) bool {
		return p.LinkID == 0 || p.Hook == specs.HookNetfilter
	})
}

// check looks at an entry as a whole and tells what is new.
func (v *view) check(k *known) {
	item, ok := v.session.Look(k.item.Place)
	if !ok || !v.stays(k.item.Place, k.print) {
		return // the next look tells where it went
	}
	before := k.item
	k.item = item
	if text := difference(before.Record, item.Record); text != "" {
		v.renewCounters(k)
		v.entryEvent(k, Event{Kind: Updated, Detail: text})
	}
	v.readLinks(k)
	v.judge(k, v.exam().Entry(item))
}

// exam is one for each look: it remembers what it has read.
func (v *view) exam() *entry.Examination {
	if v.examination == nil {
		v.examination = v.session.Examine()
		v.examination.Ours = v.recorded
	}
	return v.examination
}

// difference says in what two records differ; "": in nothing.
func difference(a, b *pin.Record) string {
	if a == nil || b == nil || reflect.DeepEqual(a, b) {
		return ""
	}
	var parts []string
	if a.Digest != b.Digest {
		parts = append(parts, fmt.Sprintf("digest %.12s is %.12s now", a.Digest, b.Digest))
	}
	old := map[string]pin.ProgramRecord{}
	for _, p := range a.Programs {
		old[p.Name] = p
	}
	for _, p := range b.Programs {
		o, ok := old[p.Name]
		switch {
		case !ok:
			parts = append(parts, p.Name+" is new")
		case o.LinkID != p.LinkID:
			parts = append(parts, fmt.Sprintf("%s has link %d instead of %d", p.Name, p.LinkID, o.LinkID))
		case o.ProgramID != p.ProgramID:
			parts = append(parts, fmt.Sprintf("%s has program %d instead of %d", p.Name, p.ProgramID, o.ProgramID))
		}
		delete(old, p.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(old)) {
		parts = append(parts, name+" is no more")
	}
	if len(parts) == 0 {
		return "the record was written anew"
	}
	return strings.Join(parts, ", ")
}

// judge compares what was found with what has been told. What is new becomes a
// suspect; what was told and is no more has been repaired.
func (v *view) judge(k *known, findings []entry.Finding) {
	now := map[finding]entry.Finding{}
	for _, f := range findings {
		if key, ok := worthTelling(f); ok {
			if _, twice := now[key]; !twice {
				now[key] = f
			}
		}
	}
	for key, f := range k.told {
		if _, still := now[key]; still {
			continue
		}
		_, ended := now[finding{problem: entry.ProblemEnded}]
		switch {
		case ended || f.Problem == entry.ProblemEnded:
			delete(k.told, key)
		case replaced(key, now):
			// It stays told until that is: a repair that is under way looks like it.
		default:
			delete(k.told, key)
			v.entryEvent(k, Event{Kind: Repaired, Program: f.Program, Problem: f.Problem, Detail: "no longer so: " + f.Detail})
		}
	}
	maps.DeleteFunc(k.suspects, func(key finding, _ suspect) bool { _, still := now[key]; return !still })
	for key, f := range now {
		if _, told := k.told[key]; told {
			continue
		}
		s, again := k.suspects[key]
		if !again {
			s.since = time.Now()
			s.next = s.since.Add(secondLook)
		}
		s.Finding = f
		k.suspects[key] = s
	}
}

// worthTelling returns the key of a finding. All links of an entry end together, and
// what can't be told by nature (netfilter) is no news.
func worthTelling(f entry.Finding) (finding, bool) {
	switch {
	case f.Problem == entry.ProblemEnded:
		return finding{problem: f.Problem}, true
	case f.Problem == entry.ProblemUnknown && f.Err == nil, f.Problem.Level() == entry.LevelNote:
		return finding{}, false
	}
	return finding{f.Path, f.Program, f.Problem}, true
}

// replaced reports whether something else is wrong with the same program now: then
// nothing has been repaired.
func replaced(key finding, now map[finding]entry.Finding) bool {
	for other := range now {
		if other.program == key.program && other.path == key.path && other.problem.Drift() {
			return true
		}
	}
	return false
}

// due returns when the next suspect is looked at again.
func (w *watcher) due() (at time.Time, ok bool) {
	for _, k := range slices.Concat(slices.Collect(maps.Values(w.entries)), []*known{w.around}) {
		for _, s := range k.suspects {
			if (!ok || s.next.Before(at)) && w.matches(k) {
				at, ok = s.next, true
			}
		}
	}
	return at, ok
}

// lookAgain looks a second time at what was found lately, and tells what is still so.
// An entry that is on its way out is gone by then.
func (v *view) lookAgain() {
	now := time.Now()
	for _, k := range slices.Concat(slices.Collect(maps.Values(v.entries)), []*known{v.around}) {
		ripe := false
		for key, s := range k.suspects {
			if !now.Before(s.next) {
				ripe = true
				s.next = now.Add(secondLook)
				k.suspects[key] = s
			}
		}
		if ripe && v.matches(k) {
			v.lookAgainAt(k, now)
		}
	}
}

func (v *view) lookAgainAt(k *known, now time.Time) {
	// Asked before and after: whoever ends his work or begins it in between counts.
	busy := v.worked(k)
	if k == v.around {
		v.judge(k, v.exam().Tree())
	} else {
		path := v.path(k.item.Place)
		before, err := fingerprintOf(path)
		if err != nil || before.dir != k.print.dir {
			return // gone, or another one: the next look tells
		}
		k.print = before
		v.check(k)
		// While it was judged the entry must have been where it is, and as it is.
		if after, err := fingerprintOf(path); err != nil || !before.same(after) {
			return
		}
	}
	busy = v.worked(k) || busy
	for _, key := range sortedKeys(k.suspects) {
		s := k.suspects[key]
		age := now.Sub(s.since)
		if age < secondLook || age < busyLimit && busy {
			continue
		}
		delete(k.suspects, key)
		if key.problem.Drift() {
			maps.DeleteFunc(k.told, func(old finding, _ entry.Finding) bool {
				return old.problem.Drift() && old.program == key.program && old.path == key.path
			})
		}
		k.told[key] = s.Finding
		v.tell(k, s.Finding)
	}
}

func sortedKeys(suspects map[finding]suspect) []finding {
	keys := slices.Collect(maps.Keys(suspects))
	slices.SortFunc(keys, func(a, b finding) int {
		return strings.Compare(a.path+a.program+string(a.problem), b.path+b.program+string(b.problem))
	})
	return keys
}

// tell makes an event of a finding.
func (v *view) tell(k *known, f entry.Finding) {
	if k != v.around {
		v.announce(k)
	}
	e := Event{Kind: Warning, Program: f.Program, Problem: f.Problem, Detail: f.Detail}
	switch {
	case f.Problem.Drift():
		e.Kind = Drift
	case f.Problem == entry.ProblemEnded:
		e.Kind, e.Program = Ended, ""
	}
	if f.Err != nil {
		e.Detail = strings.TrimPrefix(e.Detail+": "+f.Err.Error(), ": ")
	}
	if f.Path != "" && !strings.HasPrefix(e.Detail, f.Path) {
		e.Detail = f.Path + ": " + e.Detail
	}
	v.entryEvent(k, e)
}

// verifyInTurn verifies some entries as a whole, whatever their links say: who stands
// in front of them, for example, does not show in the links.
func (v *view) verifyInTurn() {
	if len(v.entries) <= fewEntries || v.now.wall.Sub(v.aroundAt) >= verifyRound {
		v.aroundAt = v.now.wall
		v.judge(v.around, v.exam().Tree())
	}
	looks := max(v.looksPer(verifyRound), len(v.entries)/verifyAtMost)
	for _, k := range v.entries {
		if v.itsTurn(k, looks) && v.matches(k) {
			v.check(k)
		}
	}
}

// looksPer returns how many looks at everything there are in so much time.
func (w *watcher) looksPer(round time.Duration) int {
	return int((round + w.Interval - 1) / w.Interval)
}

// itsTurn reports whether an entry's turn has come in this look, where a round over all
// takes so many looks.
func (w *watcher) itsTurn(k *known, looks int) bool {
	return len(w.entries) <= fewEntries || k.number%looks == w.turn%looks
}

// lookAtDevices verifies what is attached to interfaces that the kernel has told
// something about.
func (v *view) lookAtDevices() {
	if len(v.heard.devices) == 0 {
		return
	}
	for _, k := range v.entries {
		rec := k.item.Record
		if rec == nil || rec.Interface == nil || !v.matches(k) {
			continue
		}
		if v.heard.devices[rec.Interface.PeerIndex] || slices.ContainsFunc(k.item.Links, func(l entry.LinkState) bool {
			return l.Info.State == attach.Live && v.heard.devices[l.Info.Ifindex]
		}) {
			v.check(k)
		}
	}
}

// readDenials tells what was refused since the last look.
func (v *view) readDenials(k *known) {
	for _, c := range k.counters {
		denials, err := c.next(v.path(k.item.Place), v.reader, v.now)
		v.warn(gone(err))
		for _, d := range denials {
			v.entryEvent(k, Event{Kind: Denied, Denied: &d, Detail: d.text()})
		}
	}
}

// countersOf finds the maps of an entry that egress counts in.
func (v *view) countersOf(item entry.Item) []*counters {
	if item.Record == nil {
		return nil
	}
	found := deniedMaps(item.Record)
	if len(found) == 0 {
		return nil
	}
	e, err := v.session.Root.Entry(item.Place)
	if err != nil {
		return nil // gone
	}
	for _, c := range found {
		c.locate(e)
	}
	return found
}

// renewCounters keeps the counters of maps that an update has kept.
func (v *view) renewCounters(k *known) {
	old := k.counters
	k.counters = v.countersOf(k.item)
	for i, c := range k.counters {
		if j := slices.IndexFunc(old, func(o *counters) bool { return o.name == c.name }); j >= 0 {
			k.counters[i] = old[j]
		}
	}
}
