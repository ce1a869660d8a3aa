// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

const dirMode = 0o700

// openDir opens the directory at path below the directory at. No component may be
// a symbolic link or a mount point. The caller must close the descriptor.
func openDir(at int, path string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(at, path, &how)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// mkdir makes one directory; it may be there already.
func mkdir(at int, path string) error {
	if err := unix.Mkdirat(at, path, dirMode); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// rmdir removes a directory if it is empty; it may be gone already.
func rmdir(at int, path string) error {
	switch err := unix.Unlinkat(at, path, unix.AT_REMOVEDIR); {
	case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTEMPTY):
		return nil
	default:
		return err
	}
}

// same tells whether the open directory fd is still the one at path.
func same(fd, at int, path string) (bool, error) {
	var open, there unix.Stat_t
	if err := unix.Fstat(fd, &open); err != nil {
		return false, err
	}
	err := unix.Fstatat(at, path, &there, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// A removed directory has no links left. bpffs inode numbers wrap around, so
	// that they alone would not tell.
	return open.Nlink > 0 && open.Dev == there.Dev && open.Ino == there.Ino, nil
}

// tryFlock locks an open directory, how being LOCK_EX or LOCK_SH, or says ErrBusy.
func tryFlock(fd, how int) error {
	err := unix.Flock(fd, how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrBusy
	}
	return err
}

// direntSize is the most that one directory entry takes, in bytes: the fixed part
// of struct linux_dirent64, the name, its NUL, and padding to 8.
const direntSize = (19 + maxName + 1 + 7) &^ 7

// readNames reads up to limit names from an open directory, from where its offset
// stands; limit < 0 stands for all. "." and ".." are left out.
func readNames(fd, limit int) ([]string, error) {
	size := 64 * direntSize
	if limit >= 0 && limit < 64 {
		size = (limit + 2) * direntSize
	}
	buf := make([]byte, size)
	var names []string
	for limit < 0 || len(names) < limit {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("getdents64", err)
		}
		if n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	if limit >= 0 && len(names) > limit {
		names = names[:limit]
	}
	return names, nil
}

// listDir returns the sorted names in the directory at path that checkName allows;
// none if the directory is not there.
func listDir(at int, path string) ([]string, error) {
	fd, err := openDir(at, path)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	names, err := readNames(fd, -1)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // removed since
	}
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return checkName(name) != nil })
	slices.Sort(names)
	return names, nil
}

// empty unpins everything in an open directory: links first, so that what they
// run is off before the maps it uses lose their names, and the record last.
func empty(fd int) error {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return err
	}
	names, err := readNames(fd, -1)
	if err != nil {
		return err
	}
	slices.Sort(names) // link_…, map_…, meta
	var errs []error
	for _, name := range names {
		if err := unix.Unlinkat(fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, &os.PathError{Op: "unpin", Path: name, Err: err})
		}
	}
	return errors.Join(errs...)
}
