// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Pinner is a link or map of cilium/ebpf.
type Pinner interface {
	// Pin makes the object a file at path. An object of cilium/ebpf that was pinned
	// before is moved there instead: pin a Clone of what stands in two entries.
	Pin(path string) error
}

// nameTries bounds the search for a random name that is not taken.
const nameTries = 16

// Staging is an entry that is being built. It is locked as long as it is open. It
// may be used by several goroutines at once until it is published or discarded.
type Staging struct {
	root *Root
	name string // in DirStaging

	mu    sync.Mutex
	fd    int      // -1 when published or discarded
	files []string // those that were pinned
}

// Stage is StageFor for what will be on more than one target, or on none.
func (r *Root) Stage() (*Staging, error) { return r.StageFor(Target{}) }

// StageFor makes an empty staging directory for links that will be on a target. The
// caller must Discard it.
func (r *Root) StageFor(t Target) (*Staging, error) {
	for range nameTries {
		name := randomName() + t.suffix()
		path := stagingPath(name)
		err := unix.Mkdirat(r.fd, path, dirMode)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return nil, r.pathError("mkdir", path, err)
		}
		fd, err := r.tryDir(path)
		if errors.Is(err, ErrBusy) || errors.Is(err, unix.ENOENT) {
			continue // a sweep saw it before we had locked it, and removes it
		}
		if err != nil {
			_ = rmdir(r.fd, path)
			return nil, r.pathError("lock", path, err)
		}
		return &Staging{root: r, name: name, fd: fd}, nil
	}
	return nil, r.pathError("mkdir", string(DirStaging), ErrExist)
}

func stagingPath(name string) string { return string(DirStaging) + "/" + name }

func randomName() string { return fmt.Sprintf("%016x", rand.Uint64()) }

// PinLink pins a link under the name of its attachment.
func (s *Staging) PinLink(name string, p Pinner) error { return s.pin(linkPrefix, name, p) }

// PinMap pins a map under its plan name.
func (s *Staging) PinMap(name string, p Pinner) error { return s.pin(mapPrefix, name, p) }

func (s *Staging) pin(prefix, name string, p Pinner) error {
	file, err := pinName(prefix, name)
	if err != nil {
		return err
	}
	return s.pinFile(file, p)
}

func (s *Staging) pinFile(file string, p Pinner) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := stagingPath(s.name) + "/" + file
	if s.fd < 0 {
		return s.root.pathError("pin", path, ErrNotExist)
	}
	if err := p.Pin(s.root.base + "/" + path); err != nil {
		return s.root.pathError("pin", path, err)
	}
	s.files = append(s.files, file)
	return nil
}

// WriteRecord freezes and pins the entry's record. It sets the version, and the
// time where rec has none. The errors are ErrTooLarge and those of bpf(2).
func (s *Staging) WriteRecord(rec Record) error {
	rec.Version = RecordVersion
	if rec.Created.IsZero() {
		rec.Created = s.root.now().UTC()
	}
	m, err := newMeta(rec)
	if err != nil {
		return s.root.pathError("write", stagingPath(s.name)+"/"+recordFile, err)
	}
	defer m.Close()
	return s.pinFile(recordFile, m)
}

// Publish makes what was staged the entry at p, by one rename. The caller must
// hold the lock of p's owner. The errors are ErrExist, if there is an entry at p,
// ErrIncomplete, ErrNotLocked and those of system calls; after an error the
// staging directory is as it was and has to be discarded.
func (s *Staging) Publish(p Place) error {
	if err := p.check(); err != nil {
		return err
	}
	owner, ok := p.Owner()
	if !ok {
		return nameError(p.path)
	}
	lock, err := s.root.holding(owner)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return s.root.pathError("publish", stagingPath(s.name), ErrNotExist)
	}
	if err := s.checkComplete(); err != nil {
		return s.root.pathError("publish", stagingPath(s.name), err)
	}
	ok, err = same(lock.fd, s.root.fd, owner.path())
	if err == nil && !ok {
		err = fmt.Errorf("the directory that was locked: %w", ErrNotExist)
	}
	if err != nil {
		return s.root.pathError("publish", p.path, err)
	}
	// From here on everything is relative to the directory that is locked, not to
	// its name.
	to := p.below(owner)
	for i := 0; i < len(to); i++ {
		if to[i] != '/' {
			continue
		}
		if err := mkdir(lock.fd, to[:i]); err != nil {
			return s.root.pathError("publish", p.path, err)
		}
	}
	if err := unix.Renameat2(s.root.fd, stagingPath(s.name), lock.fd, to, unix.RENAME_NOREPLACE); err != nil {
		return s.root.pathError("publish", p.path, err)
	}
	s.close()
	return nil
}

// checkComplete refuses an entry without a record, and one out of which a pin has
// gone: cilium/ebpf moves the pin of an object that is pinned a second time.
func (s *Staging) checkComplete() error {
	if !slices.Contains(s.files, recordFile) {
		return fmt.Errorf("%w: %w", ErrIncomplete, ErrNoRecord)
	}
	if _, err := unix.Seek(s.fd, 0, unix.SEEK_SET); err != nil {
		return err
	}
	there, err := readNames(s.fd, -1)
	if err != nil {
		return err
	}
	for _, file := range s.files {
		if !slices.Contains(there, file) {
			return fmt.Errorf("%w: %s has been pinned elsewhere since", ErrIncomplete, file)
		}
	}
	return nil
}

// Discard unpins everything that was staged. After Publish, or a second time, it
// does nothing.
func (s *Staging) Discard() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	err := s.root.dismantle(s.name, s.fd)
	s.close()
	return err
}

func (s *Staging) close() {
	unix.Close(s.fd)
	s.fd = -1
}

// dismantle empties and removes a staging directory that the caller has locked.
func (r *Root) dismantle(name string, fd int) error {
	if err := empty(fd); err != nil {
		return r.pathError("discard", stagingPath(name), err)
	}
	err := unix.Unlinkat(r.fd, stagingPath(name), unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return r.pathError("rmdir", stagingPath(name), err)
}

// RemoveStaging removes what a process left behind that died while it built an
// entry or took one apart. The errors are ErrBusy, if the process still lives,
// ErrNotExist and ErrUnfinished: an update is never just removed.
func (r *Root) RemoveStaging(name string) error {
	return r.removeStaging(name, func() error { return nil })
}

// removeStaging calls before with the directory locked, and leaves it if that fails.
func (r *Root) removeStaging(name string, before func() error) error {
	if err := checkName(name); err != nil {
		return err
	}
	fd, err := r.tryDir(stagingPath(name))
	if err != nil {
		return r.pathError("lock", stagingPath(name), err)
	}
	defer unix.Close(fd)
	if unfinished(fd) {
		return r.pathError("remove", stagingPath(name), ErrUnfinished)
	}
	if err := before(); err != nil {
		return err
	}
	return r.dismantle(name, fd)
}

func isNetwork(name string) bool { return strings.HasPrefix(name, networkPrefix) }
