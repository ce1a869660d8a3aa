// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
)

// known is an entry as it was at the last look.
type known struct {
	item      entry.Item
	print     fingerprint
	number    int        // in the order in which they were met: they take turns by it
	links     []linkInfo // parallel to the record's programs
	counters  []*counters
	announced bool // there was an Attached event, or it was there at the start
	initial   bool

	suspects map[finding]suspect // not told yet
	told     map[finding]entry.Finding
}

func newKnown() *known {
	return &known{suspects: map[finding]suspect{}, told: map[finding]entry.Finding{}}
}

// finding is what makes two findings the same.
type finding struct {
	path    string
	program string
	problem entry.Problem
}

// suspect is something that has been seen and is looked at again before it is told.
type suspect struct {
	since time.Time
	next  time.Time // when it is looked at again
	entry.Finding
}

func (k *known) programs() []pin.ProgramRecord {
	if k.item.Record == nil {
		return nil
	}
	return k.item.Record.Programs
}

// isNote tells records of what pods ask for from entries.
func isNote(it entry.Item) bool {
	return it.Place.Policy() == entry.Note || it.Record != nil && it.Record.Policy == entry.Note
}

// view is one look.
type view struct {
	*watcher
	session *entry.Session
	now     clocks
	heard   heard

	examination *entry.Examination // nil: not begun yet
	ours        map[uint32]bool    // programs of all records; nil: not asked for yet
	caughtUp    bool               // ours is as new as the look
}

func (v *view) look(d depth) error {
	if d == lookSuspects {
		v.lookAgain()
		return nil
	}
	places, listed, err := v.list()
	if err != nil {
		return err
	}
	there := make(map[pin.Place]bool, len(places))
	for _, p := range places {
		there[p] = true
		if d == lookAll || v.entries[p] == nil {
			there[p] = v.visit(p)
		}
	}
	if d == lookAll {
		v.turn++
	}
	if listed || d == lookAll {
		retired, err := v.session.Root.Retired()
		if err != nil {
			return err
		}
		v.hear()
		v.visitRetired(retired)
	}
	for p, k := range v.entries {
		if !there[p] {
			v.leave(p, k)
		}
	}
	v.before = v.heard
	v.lookAtDevices()
	if d == lookAll {
		v.verifyInTurn()
	}
	v.lookAgain()
	return nil
}

// list returns the places of all entries. Where the kernel has announced nothing since
// the last time there can't be others, unless somebody has made them in another way:
// then they are found a little later. Where there are few, they are listed each time.
func (v *view) list() (places []pin.Place, listed bool, err error) {
	v.hear()
	if v.started && len(v.entries) > fewEntries && !v.heard.files && !v.before.files && v.now.wall.Sub(v.listedAt) < verifyRound {
		return slices.Collect(maps.Keys(v.entries)), false, nil
	}
	v.listedAt = v.now.wall
	places, err = v.places()
	return places, true, err
}

// hear takes what the kernel has announced. A move is announced before it can be
// seen, so that after a look at names everything about them has been.
func (v *view) hear() {
	more := v.ears.take()
	v.heard.retired = append(v.heard.retired, more.retired...)
	v.heard.moved += more.moved
	v.heard.files = v.heard.files || more.files
	if v.heard.devices == nil {
		v.heard.devices = map[int]bool{}
	}
	maps.Copy(v.heard.devices, more.devices)
}

// places lists all entries but the retired ones: containers first.
func (v *view) places() ([]pin.Place, error) {
	root := v.session.Root
	containers, err := root.Containers()
	if err != nil {
		return nil, err
	}
	sandboxes, err := root.Sandboxes()
	if err != nil {
		return nil, err
	}
	var all []pin.Place
	add := func(o pin.Owner) error {
		places, err := root.Entries(o)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, p := range places {
			if p.Policy() != entry.Note {
				all = append(all, p)
			}
		}
		return err
	}
	for _, k := range containers {
		if err := add(pin.Container(k)); err != nil {
			return nil, err
		}
	}
	for _, k := range sandboxes {
		if err := add(pin.Sandbox(k)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (v *view) path(p pin.Place) string {
	return v.session.Root.Path() + "/" + p.String()
}

// visit looks at one entry if its turn has come: closely, if it is new or something about
// it has changed.
// false: it is not there any more.
func (v *view) visit(p pin.Place) bool {
	k := v.entries[p]
	if k != nil && !v.itsTurn(k, v.looksPer(linkRound)) {
		return true
	}
	found, err := fingerprintOf(v.path(p))
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	v.warn(err)
	if k != nil && err == nil && found.dir != k.print.dir {
		v.leave(p, k) // another one of the same name has come
		k = nil
	}
	switch {
	case k == nil:
		k = v.meet(p, found)
	case !v.matches(k):
	case err != nil || !k.print.same(found) || opaque(k) || v.linksChanged(k):
		k.print = found
		v.check(k)
	}
	if k != nil && v.matches(k) {
		v.announce(k)
		v.readDenials(k)
	}
	return true
}

// meet takes in an entry that was not there before; nil: it is gone again.
func (v *view) meet(p pin.Place, found fingerprint) *known {
	item, ok := v.session.Look(p)
	if !ok || !v.stays(p, found) {
		return nil
	}
	k := newKnown()
	k.item, k.print, k.initial, k.number = item, found, !v.started, v.met
	v.met++
	k.counters = v.countersOf(item)
	if k.initial {
		for _, c := range k.counters {
			v.warn(gone(c.start(v.path(p), v.reader)))
		}
	}
	v.readLinks(k)
	v.entries[p] = k
	v.judge(k, v.exam().Entry(item))
	return k
}

// stays reports whether the directory at a place is still the one that it was.
func (v *view) stays(p pin.Place, found fingerprint) bool {
	now, err := fingerprintOf(v.path(p))
	return err == nil && now.dir == found.dir
}

func (w *watcher) matches(k *known) bool { return w.Match == nil || w.Match(k.item) }

// announce tells of an entry once.
func (v *view) announce(k *known) {
	if k.announced {
		return
	}
	k.announced = true
	if !k.initial || v.Initial {
		v.entryEvent(k, Event{Kind: Attached, Initial: k.initial, Detail: attachedText(k)})
	}
}

func attachedText(k *known) string {
	if k.item.Record == nil {
		return "the record can't be read"
	}
	var names []string
	for _, p := range k.programs() {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	switch len(names) {
	case 0:
		return "nothing to attach here"
	case 1:
		return "program " + names[0]
	}
	return fmt.Sprintf("%d programs: %s", len(names), strings.Join(names, ", "))
}

// leave tells that an entry is no longer where it was. Where it went may have been
// heard, though it is not there any more.
func (v *view) leave(p pin.Place, k *known) {
	delete(v.entries, p)
	if !k.announced {
		return
	}
	v.hear()
	if rec := k.item.Record; rec != nil && rec.Cgroup != nil {
		for _, r := range slices.Concat(v.before.retired, v.heard.retired) {
			if r.Cgroup == rec.Cgroup.ID {
				v.entryEvent(k, Event{Kind: Retired, Reason: r.Reason, Detail: retiredText(r)})
				break
			}
		}
	}
	// linkpin itself never takes an entry apart where it stands: it moves it away.
	if v.before.moved+v.heard.moved == 0 && v.started {
		v.entryEvent(k, Event{Kind: Drift, Problem: entry.ProblemVanished, Detail: "somebody has removed the whole entry"})
	}
	v.gone(k)
}

func (v *view) gone(k *known) { v.entryEvent(k, Event{Kind: Gone, Detail: "the entry is no more"}) }

func retiredText(r pin.Retired) string { return "reason: " + r.Reason }

// visitRetired follows entries into retired/ and out of it.
func (v *view) visitRetired(places []pin.Place) {
	byDir := make(map[uint64]*known, len(v.entries))
	there := make(map[pin.Place]bool, len(places))
	for _, p := range places {
		there[p] = true
		if k := v.retired[p]; k != nil {
			if k.announced {
				v.readDenials(k)
			}
			continue
		}
		if len(byDir) == 0 {
			for _, k := range v.entries {
				byDir[k.print.dir] = k
			}
		}
		v.meetRetired(p, byDir)
	}
	for p, k := range v.retired {
		if !there[p] {
			delete(v.retired, p)
			if k.announced {
				v.gone(k)
			}
		}
	}
}

func (v *view) meetRetired(p pin.Place, byDir map[uint64]*known) {
	found, err := fingerprintOf(v.path(p))
	if err != nil {
		return // gone again
	}
	reason, _ := pin.ParseRetired(p.Name()) // a name that is none of ours has no reason
	k := byDir[found.dir]
	if k != nil {
		delete(v.entries, k.item.Place)
		k.item.Place, k.item.Retired = p, &reason
	} else {
		item, ok := v.session.Look(p)
		if !ok || isNote(item) {
			return
		}
		k = newKnown()
		k.item, k.print, k.initial = item, found, !v.started
		if v.matches(k) && v.started {
			v.announce(k) // it came and went between two looks
		}
		k.announced = v.matches(k)
	}
	v.retired[p] = k
	if !k.announced {
		return
	}
	v.readDenials(k)
	if v.started || v.Initial {
		v.entryEvent(k, Event{Kind: Retired, Initial: !v.started, Reason: reason.Reason, Detail: retiredText(reason)})
	}
}

// entryEvent adds an event about an entry.
func (v *view) entryEvent(k *known, e Event) {
	e.Place, e.Item = k.item.Place, k.item
	v.event(e)
}

func (w *watcher) event(e Event) {
	e.Time = w.Now()
	w.events = append(w.events, e)
}
