// SPDX-License-Identifier: Apache-2.0

package change

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// ErrChanged means that a file is no longer what it was when the plan was made.
var ErrChanged = errors.New("was changed by somebody else in the meantime")

// Apply makes the changes in order. If one fails, it and those before it are undone
// and nothing is left. Each file is replaced by one rename: whoever reads it sees the
// old content or the new. A file that is not as it was when the plan was made is not
// touched (ErrChanged).
func (p *Plan) Apply(h Host) error {
	var made journal
	for _, c := range p.Changes {
		err := h.make(c, &made)
		if err == nil {
			continue
		}
		remedy := remedyFor(err)
		for _, step := range slices.Backward(made) {
			if undo := step.undo(); undo != nil {
				err = fmt.Errorf("%w, and undoing the change of %s: %w", err, step.path, undo)
				remedy = "compare with --dry-run"
			}
		}
		return fault.New(c.Path, err, remedy)
	}
	return nil
}

// remedyFor says what to do about the errors that file systems give.
func remedyFor(err error) string {
	switch {
	case errors.Is(err, unix.EROFS):
		return "the file system is read-only: remount it, or change the image it comes from with --root"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "make space and run it again"
	case errors.Is(err, ErrChanged):
		return "run it again"
	case errors.Is(err, fs.ErrPermission):
		return "run it as root"
	}
	return "run it again when that is mended"
}

// journal is what has been done, in order, and how each of it is undone.
type journal []step

type step struct {
	path string
	undo func() error
}

func (j *journal) add(path string, undo func() error) { *j = append(*j, step{path, undo}) }

// make makes one change. What it has done is in the journal, also with an error.
func (h Host) make(c Change, made *journal) error {
	resolved, err := h.Resolve(c.Path)
	if err != nil {
		return err
	}
	if c.removes() && c.Old.Mode.IsDir() {
		return removeEmpty(resolved, made)
	}
	now, err := h.Read(c.Path)
	if err != nil {
		return err
	}
	if !now.same(c.Old) {
		return ErrChanged
	}
	if c.removes() {
		if err := os.Remove(resolved); err != nil {
			return err
		}
		made.add(c.Path, func() error { return restore(resolved, now) })
		sweep(filepath.Dir(resolved))
		return syncDir(filepath.Dir(resolved))
	}
	if err := makeDirs(filepath.Dir(resolved), made); err != nil {
		return err
	}
	renamed, err := replace(resolved, c.becomes(now))
	if renamed {
		made.add(c.Path, func() error { return restore(resolved, now) })
	}
	return err
}

// becomes returns what a file is after the change: one that was there keeps its owner
// and its mode, but for an executable bit that it lacks.
func (c Change) becomes(now *File) content {
	switch {
	case c.Placed:
		return content{data: c.New, mode: c.Mode}
	case now.Missing:
		return content{data: c.New, mode: c.Mode, uid: -1, gid: -1}
	}
	return content{data: c.New, mode: now.Mode.Perm() | c.Mode&0o111, uid: now.UID, gid: now.GID}
}

// restore brings back what was there before a change that was made.
func restore(resolved string, old *File) error {
	if !old.Missing {
		_, err := replace(resolved, content{old.Data, old.Mode.Perm(), old.UID, old.GID})
		return err
	}
	if err := os.Remove(resolved); err != nil {
		return err
	}
	return syncDir(filepath.Dir(resolved))
}

// makeDirs makes a directory and those above it that are missing, for everybody to
// read, whatever the umask.
func makeDirs(dir string, made *journal) error {
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, d)
	}
	for _, d := range slices.Backward(missing) {
		err := os.Mkdir(d, 0o755) //nolint:gosec // runtimes and users read configuration below /etc
		if errors.Is(err, fs.ErrExist) {
			continue // somebody else's
		}
		if err != nil {
			return err
		}
		made.add(d, func() error { return removeEmpty(d, new(journal)) })
		if err := os.Chmod(d, 0o755); err != nil { //nolint:gosec // as above
			return err
		}
	}
	return nil
}

// removeEmpty removes a directory. One that others use stays.
func removeEmpty(resolved string, made *journal) error {
	sweep(resolved)
	var was unix.Stat_t
	if err := unix.Lstat(resolved, &was); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return &os.PathError{Op: "lstat", Path: resolved, Err: err}
	}
	err := unix.Rmdir(resolved)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "rmdir", Path: resolved, Err: err}
	}
	made.add(resolved, func() error {
		mode := fs.FileMode(was.Mode & 0o777)
		return errors.Join(os.Mkdir(resolved, mode), os.Chown(resolved, int(was.Uid), int(was.Gid)), os.Chmod(resolved, mode))
	})
	return nil
}
