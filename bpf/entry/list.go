// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"errors"
	"io/fs"

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

// Look reads one entry; ok is false if it is gone.
func (s *Session) Look(p pin.Place) (item Item, ok bool) {
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
		info, err := linkInfo(e.LinkPath(prog.Name))
		item.Links = append(item.Links, LinkState{Info: info, Err: err})
	}
	return item, true
}
