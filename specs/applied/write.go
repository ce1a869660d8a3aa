// SPDX-License-Identifier: Apache-2.0

package applied

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/applied/trusted"
	"github.com/linkpin/linkpin/specs/fault"
)

// Names of what a killed writer may leave behind in sets/; the next one removes
// them.
const (
	newPrefix     = ".new-"
	removedPrefix = ".removed-"
	newCurrent    = ".current"
)

// Write puts a set into effect, making the directory where it is missing. It
// reports false if exactly this set was in effect already and is undamaged; then
// nothing is written. Writers wait for each other (ErrBusy). Errors are
// *fault.Error; with one, what was in effect before still is.
func Write(o Options, set NewSet) (changed bool, err error) {
	o = o.withDefaults()
	content, err := compose(set)
	if err != nil {
		return false, fault.New(o.Dir, err, "")
	}
	w, err := openWriter(o)
	if err != nil {
		return false, err
	}
	defer w.close()
	if changed, err = w.replace(content); err != nil {
		return false, fault.New(o.Dir, fmt.Errorf("writing the policies: %w", err), "what was in effect before still is")
	}
	return changed, nil
}

// writer holds the directory, locked against other writers. Everything inside it
// is ours alone: it is 0700 and root's.
type writer struct {
	o    Options
	dir  *os.File // locked exclusively
	root *os.Root // the same directory
}

func openWriter(o Options) (*writer, error) {
	if err := makeDir(o); err != nil {
		return nil, fault.New(o.Dir, err, "")
	}
	deadline := time.Now().Add(o.Wait)
	for {
		w, err := tryWriter(o)
		if !errors.Is(err, ErrBusy) {
			return w, err
		}
		if time.Now().After(deadline) {
			return nil, fault.New(o.Dir, ErrBusy, "try again when it has finished")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// makeDir makes the directory where it is missing.
func makeDir(o Options) error {
	path := o.Dir
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if err := os.MkdirAll(parent, 0o755); err != nil { //nolint:gosec // others may look for their own files in /var/lib
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(parent)
	if err != nil {
		return err
	}
	defer d.Close()
	return o.sync(d)
}

// tryWriter opens and locks the directory; ErrBusy if somebody else has it.
func tryWriter(o Options) (*writer, error) {
	dir, err := trusted.OpenDir(o.Dir)
	if err != nil {
		return nil, directoryProblem(o.Dir, err)
	}
	if err := flock(dir, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fault.New(o.Dir, os.NewSyscallError("flock", err), "")
	}
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		dir.Close()
		return nil, fault.New(o.Dir, err, "")
	}
	w := &writer{o: o, dir: dir, root: root}
	// The lock counts only if the path still leads to the directory that we locked.
	locked, err1 := dir.Stat()
	opened, err2 := root.Stat(".")
	if err := errors.Join(err1, err2); err != nil {
		w.close()
		return nil, fault.New(o.Dir, err, "")
	}
	if !os.SameFile(locked, opened) {
		w.close()
		return nil, ErrBusy
	}
	return w, nil
}

func (w *writer) close() {
	w.root.Close()
	w.dir.Close()
}

// replace writes the set and switches to it.
//
// The order is what makes it safe against power loss: a rename may reach the disk
// before the data of what was renamed, unless that was synced first. So every
// file is synced, then the directories that name the files, then sets/ which names
// the set, and only then is the link exchanged; the exchange itself is one
// directory operation, which journals and copy-on-write file systems write whole
// or not at all. The older sets go after the exchange has been synced: a power
// loss can't bring back a link to a set that is gone.
func (w *writer) replace(c content) (changed bool, err error) {
	previous := w.inEffect()
	if _, h, ok := parseSetName(previous); ok && h == c.hash && w.intact() {
		return false, nil
	}
	if err := w.clean(); err != nil {
		return false, err
	}
	number, err := w.nextNumber()
	if err != nil {
		return false, err
	}
	name := setName(number, c.hash)
	building := setsName + "/" + newPrefix + name
	if err := w.build(building, c); err != nil {
		return false, errors.Join(err, w.root.RemoveAll(building))
	}
	w.o.step("name the set")
	if err := w.root.Rename(building, setsName+"/"+name); err != nil {
		return false, errors.Join(err, w.root.RemoveAll(building))
	}
	if err := w.sync(setsName); err != nil {
		return false, err
	}
	w.o.step("make the link")
	if err := w.root.Symlink(setsName+"/"+name, newCurrent); err != nil {
		return false, err
	}
	w.o.step("exchange the link")
	if err := w.root.Rename(newCurrent, currentName); err != nil {
		return false, err
	}
	w.o.step("sync the link")
	if err := w.sync("."); err != nil {
		return false, err
	}
	// The set is in effect: what is left over takes nothing away from that.
	w.removeOld(name, previous)
	return true, nil
}

// inEffect returns the name of the current set, or "" if there is none.
func (w *writer) inEffect() string {
	name, err := current(w.dir)
	if err != nil {
		return ""
	}
	return name
}

// intact says whether the current set can be read to its last byte.
func (w *writer) intact() bool {
	set, err := Open(w.o)
	if err != nil {
		return false
	}
	defer set.Close()
	for _, p := range set.policies {
		if _, _, err := set.Plan(p.Name); err != nil {
			return false
		}
	}
	for _, object := range set.objects {
		if _, err := set.Object(object); err != nil {
			return false
		}
	}
	return true
}

// clean makes sets/ a directory that readers accept, and removes what a killed
// writer left.
func (w *writer) clean() error {
	w.o.step("clean")
	for _, name := range []string{newCurrent, removedPrefix + setsName} {
		if err := w.root.RemoveAll(name); err != nil {
			return err
		}
	}
	// `current` can be anything but a directory for rename(2) to replace it.
	if info, err := w.root.Lstat(currentName); err == nil && info.IsDir() {
		if err := w.root.RemoveAll(currentName); err != nil {
			return err
		}
	}
	sets, err := trusted.OpenDirAt(w.dir, setsName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// Readers refuse it: nothing in it is worth keeping.
		if err := w.root.Rename(setsName, removedPrefix+setsName); err != nil {
			return err
		}
		if err := w.root.RemoveAll(removedPrefix + setsName); err != nil {
			return err
		}
	}
	if err != nil {
		if err := w.root.Mkdir(setsName, 0o700); err != nil {
			return err
		}
		return w.sync(".")
	}
	defer sets.Close()
	names, err := readNames(sets)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, _, ok := parseSetName(name); ok {
			continue
		}
		if err := w.root.RemoveAll(setsName + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

// nextNumber returns a number that no set has had: names must not come back, or
// a reader could not tell that a set was replaced.
func (w *writer) nextNumber() (uint64, error) {
	sets, err := trusted.OpenDirAt(w.dir, setsName)
	if err != nil {
		return 0, err
	}
	defer sets.Close()
	names, err := readNames(sets)
	if err != nil {
		return 0, err
	}
	last := uint64(0)
	if number, _, ok := parseSetName(w.inEffect()); ok {
		last = number
	}
	for _, name := range names {
		if number, _, ok := parseSetName(name); ok {
			last = max(last, number)
		}
	}
	return last + 1, nil
}

// build writes and syncs the files of a set.
func (w *writer) build(path string, c content) error {
	for _, dir := range []string{path, path + "/" + plansName, path + "/" + objectsName} {
		w.o.step("make a directory")
		if err := w.root.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.files)) {
		w.o.step("write " + name)
		if err := w.writeFile(path+"/"+name, c.files[name]); err != nil {
			return err
		}
	}
	for _, dir := range []string{path + "/" + plansName, path + "/" + objectsName, path} {
		if err := w.sync(dir); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) writeFile(path string, data []byte) error {
	f, err := w.root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		w.o.step("sync a file")
		err = w.o.sync(f)
	}
	return errors.Join(err, f.Close())
}

func (w *writer) sync(path string) error {
	w.o.step("sync " + path)
	d, err := w.root.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(w.o.sync(d), d.Close())
}

// removeOld removes every set but two and those that Options.Keep names. A set that somebody reads is left for the
// next time.
func (w *writer) removeOld(keep ...string) {
	sets, err := trusted.OpenDirAt(w.dir, setsName)
	if err != nil {
		return
	}
	defer sets.Close()
	names, err := readNames(sets)
	if err != nil {
		return
	}
	for _, name := range names {
		if slices.Contains(keep, name) || w.o.Keep != nil && w.o.Keep(name) {
			continue
		}
		w.o.step("remove an old set")
		w.removeSet(sets, name)
	}
}

func (w *writer) removeSet(sets *os.File, name string) {
	dir, err := trusted.OpenDirAt(sets, name)
	if err == nil {
		defer dir.Close()
		if err := flock(dir, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			return
		}
	}
	// A reader that comes now finds either no directory of that name or, by name
	// and inode, that the one it opened has gone.
	if w.root.Rename(setsName+"/"+name, setsName+"/"+removedPrefix+name) == nil {
		w.o.step("remove its files")
		_ = w.root.RemoveAll(setsName + "/" + removedPrefix + name) // clean tries again
	}
}
