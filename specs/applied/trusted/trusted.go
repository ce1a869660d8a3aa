// SPDX-License-Identifier: Apache-2.0

// Package trusted opens files that only root can have written: what decides
// which programs a container gets must not come from anybody else. Every
// component of a path is opened by itself, without following symbolic links,
// and checked by its descriptor, so that nothing can be exchanged between check
// and use.
package trusted

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrUntrusted means that somebody other than root could have written this,
	// or that it is not the kind of file it should be.
	ErrUntrusted = errors.New("can't be trusted")
	// ErrTooBig means that a file has more bytes than it may have.
	ErrTooBig = errors.New("is too big")
)

// maxLinks is how many symbolic links a path may go through: the kernel's own
// limit, path_resolution(7).
const maxLinks = 40

// OpenDir opens a directory by its absolute path. The directory and everything
// above it must be owned by root and not writable by others, except for sticky
// directories such as /tmp above it. A symbolic link above it is followed if it
// is root's; the directory itself must not be one. Errors are *fs.PathError
// around ErrUntrusted or what the kernel gave. The caller must Close the file.
func OpenDir(path string) (*os.File, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("is not an absolute path")}
	}
	path = filepath.Clean(path)
	parent, err := openAncestor(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	if path == "/" {
		path = "/."
	}
	return OpenDirAt(parent, filepath.Base(path))
}

// openAncestor walks to a directory that only leads to what is wanted.
func openAncestor(path string) (*os.File, error) {
	dir, err := openRoot()
	if err != nil {
		return nil, err
	}
	rest := components(path)
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		next, target, err := step(dir, name)
		if err != nil {
			dir.Close()
			return nil, err
		}
		if target == "" {
			dir.Close()
			dir = next
			continue
		}
		if links++; links > maxLinks {
			dir.Close()
			return nil, &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
		}
		rest = append(components(target), rest...)
		if target[0] != '/' {
			continue
		}
		dir.Close()
		if dir, err = openRoot(); err != nil {
			return nil, err
		}
	}
	return dir, nil
}

// step goes from a directory to one of its entries: to the directory of that
// name, or, for a symbolic link of root's, to the text of the link.
func step(dir *os.File, name string) (next *os.File, target string, err error) {
	path := filepath.Join(dir.Name(), name)
	next, err = openAt(dir, name, unix.O_DIRECTORY)
	if err == nil {
		if err = check(next, unix.S_IFDIR, unix.S_ISVTX); err != nil {
			next.Close()
			return nil, "", err
		}
		return next, "", nil
	}
	// With O_DIRECTORY and O_NOFOLLOW a link gives ENOTDIR, not ELOOP.
	if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		return nil, "", err
	}
	target, lerr := ReadlinkAt(dir, name)
	if errors.Is(lerr, unix.EINVAL) {
		return nil, "", err // neither a directory nor a link
	}
	if lerr != nil {
		return nil, "", lerr
	}
	if target == "" {
		return nil, "", &fs.PathError{Op: "readlink", Path: path, Err: unix.ENOENT}
	}
	return nil, target, nil
}

func openRoot() (*os.File, error) {
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	dir := os.NewFile(uintptr(fd), "/")
	if err := check(dir, unix.S_IFDIR, unix.S_ISVTX); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

func components(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// OpenDirAt opens a directory inside another one, with the checks of OpenDir.
// The caller must Close the file.
func OpenDirAt(dir *os.File, name string) (*os.File, error) {
	return openChecked(dir, name, unix.O_DIRECTORY, unix.S_IFDIR)
}

// OpenFileAt opens a regular file inside a directory, with the checks of
// OpenDir. The caller must Close the file.
func OpenFileAt(dir *os.File, name string) (*os.File, error) {
	// O_NONBLOCK: opening a FIFO must not wait for somebody to write to it.
	return openChecked(dir, name, unix.O_NONBLOCK, unix.S_IFREG)
}

// ReadFileAt reads a regular file inside a directory, with the checks of OpenDir.
// A file of more than limit bytes is ErrTooBig.
func ReadFileAt(dir *os.File, name string, limit int64) ([]byte, error) {
	f, err := OpenFileAt(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The size is only a hint: the file may grow while it is read.
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, &fs.PathError{Op: "read", Path: f.Name(), Err: fmt.Errorf("%w: more than %d bytes", ErrTooBig, limit)}
	}
	return data, nil
}

// ReadlinkAt returns the text of a symbolic link that root owns.
func ReadlinkAt(dir *os.File, name string) (string, error) {
	path := filepath.Join(dir.Name(), name)
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	link := os.NewFile(uintptr(fd), path)
	defer link.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return "", &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", &fs.PathError{Op: "readlink", Path: path, Err: unix.EINVAL}
	}
	if stat.Uid != 0 {
		return "", untrusted(path, fmt.Sprintf("is a symbolic link of uid %d, not of root", stat.Uid))
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	return string(buf[:n]), nil
}

func openChecked(dir *os.File, name string, flags int, kind uint32) (*os.File, error) {
	f, err := openAt(dir, name, flags)
	if err != nil {
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			if _, lerr := ReadlinkAt(dir, name); !errors.Is(lerr, unix.EINVAL) {
				return nil, untrusted(filepath.Join(dir.Name(), name), "is a symbolic link")
			}
			return nil, untrusted(filepath.Join(dir.Name(), name), "is not a directory")
		}
		return nil, err
	}
	if err := check(f, kind, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	path := filepath.Join(dir.Name(), name)
	if name == "" || strings.Contains(name, "/") {
		return nil, &fs.PathError{Op: "open", Path: path, Err: unix.EINVAL}
	}
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// check looks at an open file: its kind (S_IFDIR, S_IFREG), its owner, and that
// nobody else may write to it, unless it has the mode bit `unless`.
func check(f *os.File, kind, unless uint32) error {
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	switch {
	case stat.Mode&unix.S_IFMT != kind && kind == unix.S_IFREG:
		return untrusted(f.Name(), "is not a regular file")
	case stat.Mode&unix.S_IFMT != kind:
		return untrusted(f.Name(), "is not a directory")
	case stat.Uid != 0:
		return untrusted(f.Name(), fmt.Sprintf("is owned by uid %d, not by root", stat.Uid))
	case stat.Mode&0o022 != 0 && stat.Mode&unless == 0:
		return untrusted(f.Name(), fmt.Sprintf("is writable by others (mode %#o)", stat.Mode&0o7777))
	}
	return nil
}

func untrusted(path, why string) error {
	return &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%w: %s", ErrUntrusted, why)}
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
