// SPDX-License-Identifier: Apache-2.0

package change

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// temporary is how names of files begin that are not complete yet; they end in ".tmp".
const temporary = ".linkpin-"

// syncDir makes what was done in a directory last. Tests have it fail.
var syncDir = syncDirectory

// content is what a file is to be.
type content struct {
	data     []byte
	mode     fs.FileMode // permissions
	uid, gid int         // -1: those of the process
}

// replace writes a temporary file and renames it to resolved. renamed says whether it
// got that far: then the file is changed, with or without an error.
func replace(resolved string, c content) (renamed bool, err error) {
	dir := filepath.Dir(resolved)
	sweep(dir)
	tmp := temporaryDir(dir, c.mode)
	f, err := os.CreateTemp(tmp, temporary+"*.tmp")
	if err != nil {
		return false, err
	}
	name := f.Name()
	defer func() {
		err = errors.Join(err, f.Close())
		if !renamed {
			err = errors.Join(err, os.Remove(name))
		}
	}()
	if _, err := f.Write(c.data); err != nil {
		return false, err
	}
	mode := c.mode
	if tmp == dir {
		mode &^= 0o111 // runtimes start what is executable, whatever its name
	}
	if err := errors.Join(f.Chown(c.uid, c.gid), f.Chmod(mode), f.Sync()); err != nil {
		return false, err
	}
	if err := os.Rename(name, resolved); err != nil {
		return false, err
	}
	if mode != c.mode {
		err = errors.Join(f.Chmod(c.mode), f.Sync())
	}
	return true, errors.Join(err, syncDir(dir))
}

// temporaryDir returns where a file that is to be in dir is written. Runtimes read
// directories of fragments, CRI-O every file whatever its name, and start whatever is
// executable in those of plugins: half a file must not be in one, so it stands beside
// it.
func temporaryDir(dir string, mode fs.FileMode) string {
	parent := filepath.Dir(dir)
	if !strings.HasSuffix(dir, ".d") && mode&0o111 == 0 || !sameMount(dir, parent) {
		return dir
	}
	return parent
}

// sameMount reports whether files can be renamed from one directory to the other: a
// bind mount of the same file system is in the way, too.
func sameMount(a, b string) bool {
	var x, y unix.Statx_t
	const mask = unix.STATX_MNT_ID
	if unix.Statx(unix.AT_FDCWD, a, 0, mask, &x) != nil || unix.Statx(unix.AT_FDCWD, b, 0, mask, &y) != nil {
		return false
	}
	return x.Dev_major == y.Dev_major && x.Dev_minor == y.Dev_minor && x.Mnt_id == y.Mnt_id
}

// Sweep removes what an installer that was killed has left of the file at path. The
// host's lock must be held, so that nobody else is writing.
func (h Host) Sweep(path string) error {
	resolved, err := h.Resolve(path)
	if err != nil {
		return err
	}
	sweep(filepath.Dir(resolved))
	return nil
}

// sweep removes temporary files of what is in dir, wherever they may stand.
func sweep(dir string) {
	for _, d := range []string{dir, filepath.Dir(dir)} {
		entries, err := os.ReadDir(d)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.Type().IsRegular() && strings.HasPrefix(e.Name(), temporary) && strings.HasSuffix(e.Name(), ".tmp") {
				_ = os.Remove(filepath.Join(d, e.Name())) // the next one tries again
			}
		}
	}
}

func syncDirectory(dir string) error {
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
