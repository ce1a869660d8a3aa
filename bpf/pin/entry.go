// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Entry is one policy at one container, interface or namespace: a directory of
// pins, as it was when Entry looked. It holds nothing open and needs no Close.
type Entry struct {
	root    *Root
	place   Place
	links   []string
	maps    []string
	filters bool // there is a note of filters
}

// Entries lists the entries of an owner, sorted; none if there is no such owner.
func (r *Root) Entries(o Owner) ([]Place, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	// The directories to list, and what to do with what is in them.
	todo := []string{o.path()}
	var places []Place
	for len(todo) > 0 {
		dir := todo[0]
		todo = todo[1:]
		names, err := listDir(r.fd, dir)
		if err != nil {
			return nil, r.pathError("list", dir, err)
		}
		for _, name := range names {
			p := place(dir, name)
			if p.Kind() != NoPlace {
				places = append(places, p)
			} else if o.IsSandbox() && leadsToEntries(strings.TrimPrefix(p.path, o.path()+"/")) {
				todo = append(todo, p.path)
			}
		}
	}
	slices.SortFunc(places, func(a, b Place) int { return strings.Compare(a.path, b.path) })
	return places, nil
}

// PodCgroups lists the entries of a sandbox that are on the cgroup of its pod, sorted.
func (r *Root) PodCgroups(k Key) ([]Place, error) {
	if err := Sandbox(k).check(); err != nil {
		return nil, err
	}
	dir := Sandbox(k).path() + "/" + cgroupDir
	names, err := listDir(r.fd, dir)
	if err != nil {
		return nil, r.pathError("list", dir, err)
	}
	places := make([]Place, len(names))
	for i, name := range names {
		places[i] = place(dir, name)
	}
	return places, nil
}

// leadsToEntries tells whether path, relative to a sandbox and not an entry
// itself, has entries below it.
func leadsToEntries(path string) bool {
	first, _, deeper := strings.Cut(path, "/")
	return first == hookDir || isNetwork(first) || (first == netnsDir || first == cgroupDir) && !deeper
}

// Entry looks up one entry. The error wraps ErrNotExist if there is none.
func (r *Root) Entry(p Place) (*Entry, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	fd, err := openDir(r.fd, p.path)
	if err != nil {
		return nil, r.pathError("open", p.path, err)
	}
	defer unix.Close(fd)
	names, err := readNames(fd, -1)
	if err != nil {
		return nil, r.pathError("list", p.path, err)
	}
	slices.Sort(names)
	e := &Entry{root: r, place: p}
	for _, name := range names {
		if s, ok := strings.CutPrefix(name, linkPrefix); ok {
			if text, err := Unescape(s); err == nil {
				e.links = append(e.links, text)
			}
		} else if s, ok := strings.CutPrefix(name, mapPrefix); ok {
			if text, err := Unescape(s); err == nil {
				e.maps = append(e.maps, text)
			}
		} else if name == filtersFile {
			e.filters = true
		}
	}
	return e, nil
}

// Place returns where the entry is.
func (e *Entry) Place() Place { return e.place }

// Links returns the names of the pinned links.
func (e *Entry) Links() []string { return slices.Clone(e.links) }

// Maps returns the names of the pinned maps.
func (e *Entry) Maps() []string { return slices.Clone(e.maps) }

// LinkPath returns the path of a link's pin. It is valid as long as the Root is
// open and the entry stays where it is.
func (e *Entry) LinkPath(name string) string { return e.pinPath(linkPrefix + Escape(name)) }

// MapPath returns the path of a map's pin; see LinkPath.
func (e *Entry) MapPath(name string) string { return e.pinPath(mapPrefix + Escape(name)) }

func (e *Entry) pinPath(file string) string {
	return e.root.base + "/" + e.place.path + "/" + file
}

// Record reads the entry's record. The errors are ErrNoRecord, ErrUnfrozen,
// ErrDamaged and those of bpf(2).
func (e *Entry) Record() (Record, error) {
	rec, err := readMeta(e.pinPath(recordFile))
	return rec, e.root.pathError("read", e.place.path+"/"+recordFile, err)
}

// RemoveLink unpins one link; it may be gone already. The caller must hold the
// owner's lock, unless the entry is retired.
func (e *Entry) RemoveLink(name string) error {
	file, err := pinName(linkPrefix, name)
	if err != nil {
		return err
	}
	at, path, err := e.writable()
	if err != nil {
		return err
	}
	if err := unix.Unlinkat(at, path+"/"+file, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return e.root.pathError("unpin", e.place.path+"/"+file, err)
	}
	e.links = slices.DeleteFunc(e.links, func(s string) bool { return s == name })
	return nil
}

// ReplaceLink pins a link in the place of one that was lost or is to be dropped,
// by one rename. The caller must hold the owner's lock.
func (e *Entry) ReplaceLink(name string, p Pinner) error {
	file, err := pinName(linkPrefix, name)
	if err != nil {
		return err
	}
	if err := e.replace(file, func(s *Staging) error { return s.PinLink(name, p) }); err != nil {
		return err
	}
	e.links = withName(e.links, name)
	return nil
}

// ReplaceMap does for a map what ReplaceLink does for a link.
func (e *Entry) ReplaceMap(name string, p Pinner) error {
	file, err := pinName(mapPrefix, name)
	if err != nil {
		return err
	}
	if err := e.replace(file, func(s *Staging) error { return s.PinMap(name, p) }); err != nil {
		return err
	}
	e.maps = withName(e.maps, name)
	return nil
}

// ReplaceRecord does for the record what ReplaceLink does for a link: readers see
// the old one or the new one.
func (e *Entry) ReplaceRecord(rec Record) error {
	return e.replace(recordFile, func(s *Staging) error { return s.WriteRecord(rec) })
}

func (e *Entry) replace(file string, stage func(*Staging) error) error {
	return e.replaceAs(file, file, stage)
}

// replaceAs is replace for a file that has another name while it is staged.
func (e *Entry) replaceAs(staged, file string, stage func(*Staging) error) (err error) {
	at, path, err := e.writable()
	if err != nil {
		return err
	}
	s, err := e.root.Stage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Discard()) }()
	if err := stage(s); err != nil {
		return err
	}
	return e.root.pathError("replace", e.place.path+"/"+file, unix.Renameat(s.fd, staged, at, path+"/"+file))
}

// writable returns the directory and the path in it by which an entry may be
// changed: the owner's, which must be locked, or the root for a retired one.
func (e *Entry) writable() (at int, path string, err error) {
	owner, ok := e.place.Owner()
	if !ok {
		return e.root.fd, e.place.path, nil
	}
	lock, err := e.root.holding(owner)
	if err != nil {
		return -1, "", err
	}
	return lock.fd, e.place.below(owner), nil
}

// Remove takes the entry out by one rename and then unpins everything in it. The
// caller must hold the owner's lock; a retired entry has none, and is ErrBusy while
// somebody else removes it. The error wraps ErrNotExist if it is gone already.
// Links that somebody holds open stay attached until they are closed.
func (e *Entry) Remove() error {
	if _, _, err := e.writable(); err != nil {
		return err
	}
	// Locked before it is in staging, it never looks abandoned there.
	fd, err := e.root.tryDir(e.place.path)
	if err != nil {
		return e.root.pathError("remove", e.place.path, err)
	}
	defer unix.Close(fd)
	var on Target // of an entry's links only its record says what they are on
	if e.place.Kind() == RetiredPlace {
		if r, err := ParseRetired(e.place.Name()); err == nil {
			on = r.Target
		}
	}
	name, err := e.root.moveTo(DirStaging, e.place, func() string { return randomName() + on.suffix() })
	if err != nil {
		return err
	}
	return e.root.dismantle(name, fd)
}

// moveTo renames an entry into one of the directories for which any new name will do.
func (r *Root) moveTo(dir Dir, p Place, newName func() string) (string, error) {
	at, from := r.fd, p.path
	if owner, ok := p.Owner(); ok {
		lock, err := r.holding(owner)
		if err != nil {
			return "", err
		}
		at, from = lock.fd, p.below(owner)
	}
	for range nameTries {
		name := newName()
		err := unix.Renameat2(at, from, r.fd, string(dir)+"/"+name, unix.RENAME_NOREPLACE)
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, unix.EEXIST) {
			return "", r.pathError("move to "+string(dir), p.path, err)
		}
	}
	return "", r.pathError("move to "+string(dir), p.path, ErrExist)
}

func withName(names []string, name string) []string {
	if i, found := slices.BinarySearch(names, name); !found {
		return slices.Insert(names, i, name)
	}
	return names
}
