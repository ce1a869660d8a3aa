// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"errors"
	"io/fs"
	"reflect"
	"slices"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
)

// Item is one entry as it is found: its record, and what the kernel says of each
// of its links.
type Item struct {
	Place   pin.Place
	Record  *pin.Record // nil if Err is set
	Retired *pin.Retired
	Links   []LinkState // parallel to Record.Programs
	Err     error       // why the record can't be read
}

// LinkState is what the kernel says of one recorded link.
type LinkState struct {
	Info attach.Info // zero if Err is set
	Err  error       // wraps fs.ErrNotExist if the pin is gone
}

// Walk calls fn for every entry: containers, then sandboxes, then retired ones. It
// takes no locks: entries that go away meanwhile are left out. fn's error ends it.
func (s *Session) Walk(fn func(Item) error) error {
	places, err := s.places()
	if err != nil {
		return err
	}
	for _, p := range places {
		item, ok := s.Look(p)
		if !ok {
			continue
		}
		if err := fn(item); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) places() ([]pin.Place, error) {
	owners, err := s.owners()
	if err != nil {
		return nil, err
	}
	var all []pin.Place
	for _, o := range owners {
		places, err := s.Root.Entries(o)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		all = append(all, places...)
	}
	retired, err := s.Root.Retired()
	return append(all, retired...), err
}

func (s *Session) owners() ([]pin.Owner, error) {
	var owners []pin.Owner
	containers, err := s.Root.Containers()
	if err != nil {
		return nil, err
	}
	for _, k := range containers {
		owners = append(owners, pin.Container(k))
	}
	sandboxes, err := s.Root.Sandboxes()
	if err != nil {
		return nil, err
	}
	for _, k := range sandboxes {
		owners = append(owners, pin.Sandbox(k))
	}
	return owners, nil
}

// lookTries bounds how often Look begins again because somebody else is at work.
const lookTries = 8

// Look reads one entry; ok is false if it is gone. It takes no lock: what looks
// damaged is looked at again, because it may have been retired or replaced in between.
func (s *Session) Look(p pin.Place) (item Item, ok bool) {
	item, ok = s.lookOnce(p)
	for range lookTries {
		if !ok || !item.torn() {
			break
		}
		before := item
		if item, ok = s.lookOnce(p); ok && item.torn() && item.same(before) {
			break // nobody is at work: it is damaged
		}
	}
	return item, ok
}

// torn reports whether an entry looks as if half of it were gone.
func (it Item) torn() bool {
	return it.Err != nil || slices.ContainsFunc(it.Links, func(l LinkState) bool { return errors.Is(l.Err, fs.ErrNotExist) })
}

// same reports whether two looks have seen the same.
func (it Item) same(other Item) bool {
	if it.Record == nil || other.Record == nil {
		return it.Record == nil && other.Record == nil && it.Err.Error() == other.Err.Error()
	}
	return reflect.DeepEqual(it.Record, other.Record) &&
		slices.EqualFunc(it.Links, other.Links, func(a, b LinkState) bool { return errors.Is(a.Err, fs.ErrNotExist) == errors.Is(b.Err, fs.ErrNotExist) })
}

func (s *Session) lookOnce(p pin.Place) (item Item, ok bool) {
	item = Item{Place: p}
	if p.Kind() == pin.RetiredPlace {
		if r, err := pin.ParseRetired(p.Name()); err == nil {
			item.Retired = &r
		}
	}
	e, err := s.Root.Entry(p)
	if errors.Is(err, fs.ErrNotExist) {
		return item, false
	}
	if err != nil {
		item.Err = err
		return item, true
	}
	rec, err := e.Record()
	if err != nil {
		item.Err = err
		return item, true
	}
	item.Record = &rec
	for _, prog := range rec.Programs {
		info, err := s.rowInfo(e, &rec, prog)
		item.Links = append(item.Links, LinkState{Info: info, Err: err})
	}
	return item, true
}
