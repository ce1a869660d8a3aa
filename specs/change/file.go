// SPDX-License-Identifier: Apache-2.0

package change

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// maxFile bounds what is read: a Go binary is some 10 MiB.
const maxFile = 256 << 20 // bytes

// ErrNotFile means that a path is neither a regular file nor missing.
var ErrNotFile = errors.New("is not a regular file")

// File is a file of a host as it was read.
type File struct {
	Path     string // as the host sees it
	Data     []byte
	Mode     fs.FileMode // type and permissions
	UID, GID int
	Missing  bool // there is none; Data is nil
}

// Resolve returns where a path of the host is on this machine, symbolic links
// followed within the host.
func (h Host) Resolve(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fault.Newf(path, "is not an absolute path", "name it from the root directory")
	}
	resolved, err := securejoin.SecureJoin(h.root(), path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return resolved, nil
}

// Read returns a file, or a File with Missing set. Anything but a regular file is
// an error that wraps ErrNotFile.
func (h Host) Read(path string) (*File, error) {
	resolved, err := h.Resolve(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(resolved, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return &File{Path: path, Missing: true}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fault.New(path, ErrNotFile, "move it out of the way")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fault.Newf(path, fmt.Sprintf("is larger than %d bytes", maxFile), "")
	}
	out := &File{Path: path, Data: data, Mode: st.Mode()}
	var sys unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &sys); err != nil {
		return nil, &os.PathError{Op: "fstat", Path: resolved, Err: err}
	}
	out.UID, out.GID = int(sys.Uid), int(sys.Gid)
	return out, nil
}

// ReadDir returns the names in a directory of the host in lexical order, none if
// the directory is missing.
func (h Host) ReadDir(path string) ([]string, error) {
	resolved, err := h.Resolve(path)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(resolved)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, nil
}

// Exists reports whether something is at path on the host.
func (h Host) Exists(path string) bool {
	resolved, err := h.Resolve(path)
	if err != nil {
		return false
	}
	_, err = os.Lstat(resolved)
	return err == nil
}

// Executable reports whether a regular file with an executable bit is at path.
func (h Host) Executable(path string) bool {
	resolved, err := h.Resolve(path)
	if err != nil {
		return false
	}
	st, err := os.Stat(resolved)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// same reports whether a file is as it was when it was read.
func (f *File) same(g *File) bool {
	return f.Missing == g.Missing && bytes.Equal(f.Data, g.Data)
}
