// SPDX-License-Identifier: Apache-2.0

package change

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// ErrChanged means that a file is no longer what it was when the plan was made.
var ErrChanged = errors.New("was changed by somebody else in the meantime")

// temporary is how names of files begin that are not complete yet; they end in ".tmp".
const temporary = ".linkpin-"

// Lock keeps other installers of the host away until unlock is called. It must be
// held from before a plan is made until it has been applied. It leaves nothing
// behind: the lock is on the directory /etc itself. The error of a lock that is not
// to be had in time wraps ctx's.
func (h Host) Lock(ctx context.Context) (unlock func(), err error) {
	resolved, err := h.Resolve("/etc")
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(resolved)
	if err != nil {
		return nil, fault.New("/etc", err, "is --root the root directory of a host?")
	}
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { dir.Close() }, nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			dir.Close()
			return nil, &os.PathError{Op: "flock", Path: resolved, Err: err}
		}
		select {
		case <-ctx.Done():
			dir.Close()
			return nil, fault.New("/etc", fmt.Errorf("another linkpin install holds the lock: %w", context.Cause(ctx)), "wait for it to end")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Apply makes the changes in order. If one fails, those before it are undone and
// nothing is left. Each file is replaced by one rename: whoever reads it sees the
// old content or the new. A file that is not as it was when the plan was made is not
// touched (ErrChanged).
func (p *Plan) Apply(h Host) error {
	var made []string // directories, outermost first
	for i, c := range p.Changes {
		dirs, err := h.make(c)
		made = append(made, dirs...)
		if err == nil {
			continue
		}
		remedy := remedyFor(err)
		for _, done := range slices.Backward(p.Changes[:i]) {
			if undo := h.undo(done); undo != nil {
				err = fmt.Errorf("%w, and undoing the change of %s: %w", err, done.Path, undo)
				remedy = "compare with --dry-run"
			}
		}
		for _, dir := range slices.Backward(made) {
			if undo := removeEmpty(dir); undo != nil {
				err = fmt.Errorf("%w, and removing a directory: %w", err, undo)
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
		return "make space and run it again; nothing was changed"
	case errors.Is(err, ErrChanged):
		return "run it again"
	case errors.Is(err, fs.ErrPermission):
		return "run it as root"
	}
	return "nothing was changed"
}

// make makes one change. It returns the directories that it made on the way.
func (h Host) make(c Change) (made []string, err error) {
	resolved, err := h.Resolve(c.Path)
	if err != nil {
		return nil, err
	}
	if c.removes() && c.Old.Mode.IsDir() {
		return nil, removeEmpty(resolved)
	}
	now, err := h.Read(c.Path)
	if err != nil {
		return nil, err
	}
	if !now.same(c.Old) {
		return nil, ErrChanged
	}
	if c.removes() {
		return nil, remove(resolved)
	}
	if made, err = makeDirs(filepath.Dir(resolved)); err != nil {
		return made, err
	}
	return made, replace(resolved, c.New, c.Old, c.Mode)
}

// makeDirs makes a directory and those above it that are missing, and returns which
// it made, the outermost first.
func makeDirs(dir string) (made []string, err error) {
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, d)
	}
	for _, d := range slices.Backward(missing) {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // runtimes and users read configuration below /etc
			return made, err
		}
		made = append(made, d)
	}
	return made, nil
}

// undo brings back what was there before a change that was made.
func (h Host) undo(c Change) error {
	resolved, err := h.Resolve(c.Path)
	if err != nil {
		return err
	}
	switch {
	case c.Old.Mode.IsDir():
		return os.MkdirAll(resolved, c.Old.Mode.Perm())
	case c.Old.Missing:
		return remove(resolved)
	}
	return replace(resolved, c.Old.Data, c.Old, c.Old.Mode.Perm())
}

func remove(resolved string) error {
	if err := os.Remove(resolved); err != nil {
		return err
	}
	return syncDir(filepath.Dir(resolved))
}

// removeEmpty removes a directory. One that others use stays.
func removeEmpty(resolved string) error {
	err := unix.Rmdir(resolved)
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return nil
	}
	return &os.PathError{Op: "rmdir", Path: resolved, Err: err}
}

// replace writes a temporary file and renames it to resolved. The new file gets mode
// and owner of the old one, or mode if there was none.
func replace(resolved string, data []byte, old *File, mode fs.FileMode) (err error) {
	dir := filepath.Dir(resolved)
	tmp := temporaryDir(dir)
	sweepTemporary(tmp)
	f, err := os.CreateTemp(tmp, temporary+"*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if old.Missing {
		err = f.Chmod(mode)
	} else {
		err = errors.Join(f.Chown(old.UID, old.GID), f.Chmod(old.Mode.Perm()|mode&0o111))
	}
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), resolved); err != nil {
		return err
	}
	return errors.Join(f.Close(), syncDir(dir))
}

// temporaryDir returns where a file that is to be in dir is written. Runtimes read
// directories of fragments, CRI-O every file whatever its name: half a file must not
// be in one, so it stands beside it.
func temporaryDir(dir string) string {
	parent := filepath.Dir(dir)
	if !strings.HasSuffix(dir, ".d") {
		return dir
	}
	var a, b unix.Stat_t
	if unix.Stat(dir, &a) != nil || unix.Stat(parent, &b) != nil || a.Dev != b.Dev {
		return dir // nothing can be renamed across file systems
	}
	return parent
}

// sweepTemporary removes what an installer that was killed has left. The host's lock
// is held, so nobody else is writing.
func sweepTemporary(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasPrefix(e.Name(), temporary) && strings.HasSuffix(e.Name(), ".tmp") {
			_ = os.Remove(filepath.Join(dir, e.Name())) // the next one tries again
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // some file systems can't
		return err
	}
	return nil
}
