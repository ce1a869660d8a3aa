// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"math/rand/v2"
	"slices"

	"golang.org/x/sys/unix"
)

// maxSample bounds a sample, in names.
const maxSample = 256

// Containers lists the containers that have a directory, sorted. Some may be empty
// or gone by the time they are looked at.
func (r *Root) Containers() ([]Key, error) { return r.keys(DirContainers) }

// Sandboxes lists the sandboxes that have a directory; see Containers.
func (r *Root) Sandboxes() ([]Key, error) { return r.keys(DirSandboxes) }

// StagingNames lists the staging directories, in use or abandoned.
func (r *Root) StagingNames() ([]string, error) { return r.list(DirStaging) }

// RetiredCount returns the number of retired entries without listing them.
func (r *Root) RetiredCount() (int, error) { return r.count(DirRetired) }

func (r *Root) keys(dir Dir) ([]Key, error) {
	names, err := r.list(dir)
	if err != nil {
		return nil, err
	}
	keys := make([]Key, len(names))
	for i, name := range names {
		keys[i] = Key(name)
	}
	return keys, nil
}

func (r *Root) list(dir Dir) ([]string, error) {
	names, err := listDir(r.fd, string(dir))
	return names, r.pathError("list", string(dir), err)
}

// count returns the number of subdirectories of dir: bpffs counts each as a link
// to it, beside its name and its own ".".
func (r *Root) count(dir Dir) (int, error) {
	var st unix.Stat_t
	err := unix.Fstatat(r.fd, string(dir), &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, r.pathError("stat", string(dir), err)
	}
	return max(int(st.Nlink)-2, 0), nil
}

// Sample returns up to n names (at most 256) from dir, from a random start, in no
// order. It reads no more of the directory than that, however large it is: the
// offset of an open bpffs directory counts entries.
func (r *Root) Sample(dir Dir, n int) ([]string, error) {
	n = min(n, maxSample)
	if n <= 0 {
		return nil, nil
	}
	size, err := r.estimate(dir, n)
	if err != nil {
		return nil, err
	}
	fd, err := openDir(r.fd, string(dir))
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, r.pathError("open", string(dir), err)
	}
	defer unix.Close(fd)
	start := 0
	if size > n {
		start = rand.IntN(size)
	}
	names, err := sampleFrom(fd, start, n)
	if err == nil && len(names) < n && start > 0 {
		var head []string
		head, err = sampleFrom(fd, 0, min(n-len(names), start))
		names = append(names, head...)
	}
	if err != nil {
		return nil, r.pathError("list", string(dir), err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return checkName(name) != nil })
	return names, nil
}

// estimate returns how many names dir has. Symbolic links are not counted by
// bpffs: for the index of namespaces it is more than there should be, one for each
// sandbox, so that the dangling ones behind those are reached as well.
func (r *Root) estimate(dir Dir, n int) (int, error) {
	if dir != DirNetns {
		return r.count(dir)
	}
	sandboxes, err := r.count(DirSandboxes)
	return 2*sandboxes + n + 1, err
}

func sampleFrom(fd, start, n int) ([]string, error) {
	const dots = 2 // "." and ".." come first
	if _, err := unix.Seek(fd, int64(dots+start), unix.SEEK_SET); err != nil {
		return nil, err
	}
	return readNames(fd, n)
}
