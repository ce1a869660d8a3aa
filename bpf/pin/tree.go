// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// pinMode is what the kernel gives a pin (bpf_obj_do_pin in kernel/bpf/inode.c).
const pinMode = 0o600

// OddityKind says what is odd.
type OddityKind int

// The kinds of oddities.
const (
	OddMode    OddityKind = iota // owner or permissions are not those that linkpin gives
	OddForeign                   // linkpin makes nothing of that name or type there
)

// Oddity is something in the tree that is not as linkpin makes it.
type Oddity struct {
	Kind   OddityKind
	Path   string // below v1
	Place  Place  // of the entry that it is, or is in; the zero Place if in none
	Detail string

	open bool // others could have put it there
}

// Oddities walks the tree and returns what is not as linkpin makes it. What comes and
// goes meanwhile is left out. It does not look into staging/, where everything is on
// its way to somewhere else.
func (r *Root) Oddities() ([]Oddity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(r.fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	w := walk{root: r, dev: st.Dev}
	err := w.directory("", Place{}, false)
	return w.found, err
}

type walk struct {
	root  *Root
	dev   uint64 // of the bpffs
	found []Oddity
}

func (w *walk) foreign(path string, p Place, detail string) {
	w.found = append(w.found, Oddity{Kind: OddForeign, Path: path, Place: p, Detail: detail})
}

// directory looks at what is in one directory; in is the entry that it is, if it is
// one, and open says that others than root may write to it or to one above it.
func (w *walk) directory(dir string, in Place, open bool) error {
	fd, err := openDir(w.root.fd, path.Join(".", dir))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return w.root.pathError("open", dir, err)
	}
	defer unix.Close(fd)
	names, err := readNames(fd, -1)
	if err != nil {
		return w.root.pathError("list", dir, err)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.child(fd, path.Join(dir, name), name, in, open); err != nil {
			return err
		}
	}
	return nil
}

// child looks at one name in an open directory.
func (w *walk) child(fd int, rel, name string, in Place, open bool) error {
	var st unix.Stat_t
	err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return w.root.pathError("stat", rel, err)
	}
	if st.Dev != w.dev {
		w.foreign(rel, in, "another filesystem is mounted over it")
		return nil
	}
	want, deeper := expected(rel, in)
	if want == 0 || st.Mode&unix.S_IFMT != want&unix.S_IFMT {
		w.foreign(rel, in, fmt.Sprintf("a %s of uid %d that linkpin has not made", fileType(st.Mode), st.Uid))
		return nil
	}
	if p := place(rel); p.Kind() != NoPlace {
		in = p
	}
	if want&unix.S_IFMT != unix.S_IFLNK && (st.Uid != 0 || st.Mode&0o7777 != want&0o7777) {
		w.found = append(w.found, Oddity{Kind: OddMode, Path: rel, Place: in, open: open, Detail: fmt.Sprintf(
			"it belongs to uid %d with mode %04o, linkpin made it for uid 0 with mode %04o", st.Uid, st.Mode&0o7777, want&0o7777)})
	}
	if !deeper {
		return nil
	}
	return w.directory(rel, in, open || st.Uid != 0 || st.Mode&0o022 != 0)
}

// expected returns the type and permissions of what linkpin makes at a path below v1,
// 0 if it makes nothing there, and whether there is anything to look at below it. in is
// the entry that the path is in.
func expected(rel string, in Place) (mode uint32, deeper bool) {
	const dir, pin = unix.S_IFDIR | dirMode, unix.S_IFREG | pinMode
	parts := strings.Split(rel, "/")
	name := parts[len(parts)-1]
	switch top := Dir(parts[0]); {
	case len(parts) == 1:
		if slices.Contains(allDirs, top) {
			return dir, true
		}
	case top == DirNetns && len(parts) == 2:
		if _, err := ParseCookie(name); err != nil {
			return 0, false
		}
		if strings.HasPrefix(name, indexLockPrefix) {
			return dir, false
		}
		return unix.S_IFLNK, false
	case top == DirStaging && len(parts) == 2:
		return dir, false
	case in != Place{}:
		// Entries are flat. What is not a pin is foreign; so are names of no kind.
		for _, prefix := range pinPrefixes {
			if strings.HasPrefix(name, prefix) {
				return pin, false
			}
		}
		if name == recordFile || name == filtersFile {
			return pin, false
		}
	case place(rel).Kind() != NoPlace, len(parts) == 2 && (top == DirContainers || top == DirSandboxes):
		return dir, true
	case top == DirSandboxes && parts[2] == membersDir:
		return dir, len(parts) == 3
	case top == DirSandboxes && leadsToEntries(strings.Join(parts[2:], "/")):
		return dir, true
	}
	return 0, false
}

// pinPrefixes are how the names of pins in entries begin.
var pinPrefixes = []string{linkPrefix, mapPrefix, progPrefix}

func fileType(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symbolic link"
	}
	return "file"
}

// Restore gives what an OddMode was found at back to root, with the permissions that
// linkpin had given it. Nothing else is ever changed.
func (r *Root) Restore(o Oddity) error {
	in := o.Place
	if place(o.Path) == in {
		in = Place{} // the directory of the entry itself
	}
	want, _ := expected(o.Path, in)
	if o.Kind != OddMode || want == 0 {
		return r.pathError("restore", o.Path, ErrForeign)
	}
	at, name := r.fd, o.Path
	if dir, base := path.Split(o.Path); dir != "" {
		fd, err := openDir(r.fd, strings.TrimSuffix(dir, "/"))
		if err != nil {
			return r.pathError("open", dir, err)
		}
		defer unix.Close(fd)
		at, name = fd, base
	}
	var st, root unix.Stat_t
	if err := errors.Join(unix.Fstat(r.fd, &root), unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		return r.pathError("stat", o.Path, err)
	}
	// What others could have put there is not taken over.
	if st.Mode&unix.S_IFMT != want&unix.S_IFMT || st.Dev != root.Dev || o.open && st.Uid != 0 {
		return r.pathError("restore", o.Path, ErrForeign)
	}
	if err := unix.Fchownat(at, name, 0, 0, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return r.pathError("chown", o.Path, err)
	}
	return r.pathError("chmod", o.Path, unix.Fchmodat(at, name, want&0o7777, 0))
}

// Reclaim gives the directories linkpin and linkpin/v1 the permissions back without
// which Open refuses them, and returns what they had. It does so only where nobody but
// root could write: what others may have put there is for a person to look at.
func Reclaim(o Options) ([]string, error) {
	o = o.withDefaults()
	at, err := openMount(o.Path)
	if err != nil {
		return nil, err
	}
	defer func() { unix.Close(at) }()
	var done []string
	dir := o.Path
	for _, name := range []string{"linkpin", "v1"} {
		dir = path.Join(dir, name)
		fd, err := openDir(at, name)
		if err != nil {
			return done, openFault(at, name, dir, err)
		}
		unix.Close(at)
		at = fd
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return done, os.NewSyscallError("fstat", err)
		}
		mode := st.Mode & 0o7777
		if mode == dirMode && st.Uid == 0 {
			continue
		}
		if st.Uid != 0 || mode&0o022 != 0 {
			return done, notPrivate(dir, &st)
		}
		if err := unix.Fchmod(fd, dirMode); err != nil {
			return done, &os.PathError{Op: "chmod", Path: dir, Err: err}
		}
		done = append(done, fmt.Sprintf("%s: it had mode %04o", dir, mode))
	}
	return done, nil
}

// ReadOnly reports whether the bpffs is mounted so that nothing can be pinned.
func (r *Root) ReadOnly() (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(r.fd, &fs); err != nil {
		return false, os.NewSyscallError("fstatfs", err)
	}
	return fs.Flags&unix.ST_RDONLY != 0, nil
}
