// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"encoding/json"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// A tc filter does not go with a descriptor, as a link does. So an entry that has
// filters notes them in a pin of its own before it makes them: whoever finds the note
// in a staging directory that nobody holds takes off what it names. The note stays in
// the entry when that is published.
const (
	progPrefix  = "prog_"
	filtersFile = "filters"
	filtersNew  = "filters_new" // in staging: a note that is about to replace one
	filtersName = "linkpin_filters"
)

// Filters is a note of filters: what may be on devices on behalf of an entry.
type Filters struct {
	Version  int             `json:"version"` // RecordVersion; set when it is written
	Netns    *NetnsRecord    `json:"netns,omitempty"`
	Sandbox  Key             `json:"sandbox,omitempty"`
	Programs []ProgramRecord `json:"programs"` // each with Filter
}

// WriteFilters writes the note of an entry that is being built, or replaces it.
func (s *Staging) WriteFilters(note Filters) error {
	if err := s.pinFilters(note); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = slices.DeleteFunc(s.files, func(f string) bool { return f == filtersNew })
	if err := unix.Renameat(s.fd, filtersNew, s.fd, filtersFile); err != nil {
		return s.root.pathError("write", stagingPath(s.name)+"/"+filtersFile, err)
	}
	if !slices.Contains(s.files, filtersFile) {
		s.files = append(s.files, filtersFile)
	}
	return nil
}

func (s *Staging) pinFilters(note Filters) error {
	note.Version = RecordVersion
	text, err := json.Marshal(note)
	if err != nil {
		return err
	}
	m, err := newFrozen(filtersName, text)
	if err != nil {
		return s.root.pathError("write", stagingPath(s.name)+"/"+filtersFile, err)
	}
	defer m.Close()
	return s.pinFile(filtersNew, m)
}

// PinProgram pins the program of a filter under the name of its attachment.
func (s *Staging) PinProgram(name string, p Pinner) error { return s.pin(progPrefix, name, p) }

// Leave gives up a staging directory without emptying it: a sweep takes off what its
// note names.
func (s *Staging) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		s.close()
	}
}

// HasFilters reports whether the entry has a note of filters.
func (e *Entry) HasFilters() bool { return e.filters }

// Filters reads the entry's note of filters. The errors are those of Record.
func (e *Entry) Filters() (Filters, error) {
	note, err := readFilters(e.pinPath(filtersFile))
	return note, e.root.pathError("read", e.place.path+"/"+filtersFile, err)
}

// ReplaceFilters replaces the note by one rename. The caller must hold the owner's lock.
func (e *Entry) ReplaceFilters(note Filters) error {
	// Under its own name in staging, a sweep would act on it.
	return e.replaceAs(filtersNew, filtersFile, func(s *Staging) error { return s.pinFilters(note) })
}

// ProgramPath returns the path of the pin of a filter's program; see LinkPath.
func (e *Entry) ProgramPath(name string) string { return e.pinPath(progPrefix + Escape(name)) }

// ReplaceProgram does for the program of a filter what ReplaceLink does for a link.
func (e *Entry) ReplaceProgram(name string, p Pinner) error {
	file, err := pinName(progPrefix, name)
	if err != nil {
		return err
	}
	return e.replaceAs(file, file, func(s *Staging) error { return s.PinProgram(name, p) })
}

// RemoveStagingFilters is RemoveStaging for directories that may hold a note of
// filters: undo is called with it first, while the directory is locked, and the
// directory stays if that fails.
func (r *Root) RemoveStagingFilters(name string, undo func(Filters) error) error {
	return r.removeStaging(name, func() error {
		note, err := readFilters(r.base + "/" + stagingPath(name) + "/" + filtersFile)
		switch {
		case err == nil:
			return undo(note)
		case errors.Is(err, ErrNoRecord), errors.Is(err, ErrDamaged), errors.Is(err, ErrUnfrozen):
			return nil // there is nothing to go by
		}
		return r.pathError("read", stagingPath(name)+"/"+filtersFile, err)
	})
}

func readFilters(path string) (Filters, error) {
	var note Filters
	text, err := readFrozen(path)
	if err != nil {
		return note, err
	}
	if err := json.Unmarshal(text, &note); err != nil || note.Version != RecordVersion {
		return Filters{}, damaged("a note of filters of version %d", note.Version)
	}
	return note, nil
}
