// SPDX-License-Identifier: Apache-2.0

package change

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// ErrUntrusted means that somebody other than root can change what is at a path.
var ErrUntrusted = errors.New("can be changed by others than root")

// maxLinks is how many symbolic links a path may lead through, as in the kernel.
const maxLinks = 40

// Trusted returns an error (ErrUntrusted, a *fault.Error) unless only root can change
// what is at path: the file, each directory above it but for the host's root, and each
// symbolic link on the way belong to root, and nobody else can write them. In a
// directory with the sticky bit (/tmp) others can't touch what is root's. Of a path
// that is not there, what is there is judged.
func (h Host) Trusted(path string) error {
	if !filepath.IsAbs(path) {
		return fault.Newf(path, "is not an absolute path", "name it from the root directory")
	}
	rest := strings.Split(filepath.Clean(path), "/")[1:]
	at := "/" // within the host, without symbolic links
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		here := filepath.Join(h.root(), next)
		var st unix.Stat_t
		err := unix.Lstat(here, &st)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil {
			return fault.New(path, &os.PathError{Op: "lstat", Path: next, Err: err}, "")
		}
		if err := trusted(path, next, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return fault.New(path, unix.ELOOP, "")
		}
		to, err := os.Readlink(here)
		if err != nil {
			return fault.New(path, err, "")
		}
		if filepath.IsAbs(to) {
			at = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return nil
}

// trusted judges one file or directory on the way to path.
func trusted(path, part string, st *unix.Stat_t) error {
	kind := st.Mode & unix.S_IFMT
	sticky := kind == unix.S_IFDIR && st.Mode&unix.S_ISVTX != 0
	var cause, remedy string
	switch {
	case st.Uid != 0:
		cause = fmt.Sprintf("%s belongs to uid %d", part, st.Uid)
		remedy = "chown root " + part + ", or use a path that is root's"
	case kind != unix.S_IFLNK && st.Mode&0o022 != 0 && !sticky:
		cause = fmt.Sprintf("%s has mode %04o", part, st.Mode&0o7777)
		remedy = "chmod go-w " + part + ", or use a path that is root's"
	default:
		return nil
	}
	return fault.New(path, fmt.Errorf("%w, and would run as root: %s", ErrUntrusted, cause), remedy)
}
