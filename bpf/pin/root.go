// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// DefaultPath is where bpffs is mounted by custom.
const DefaultPath = "/sys/fs/bpf"

// Options say where the state is. The zero value means the real places.
type Options struct {
	Path string           // mount point of bpffs, absolute; default DefaultPath
	Proc string           // mount point of procfs, absolute; default /proc
	Now  func() time.Time // clock; default time.Now
}

func (o Options) withDefaults() Options {
	if o.Path == "" {
		o.Path = DefaultPath
	}
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Path = filepath.Clean(o.Path)
	return o
}

// Root is linkpin's directory in a bpffs, opened and found to be ours. It may be
// used by several goroutines at once.
type Root struct {
	fd   int    // of linkpin/v1
	path string // of linkpin/v1, for messages
	base string // the same through fd, for calls that take only paths
	proc string
	now  func() time.Time

	mu   sync.Mutex
	held map[Owner]*Lock // those that this Root holds
}

// Open opens the state in a bpffs. Errors are *fault.Error and wrap ErrNoBPFFS,
// ErrNoState, ErrForeign or the system call's error. The caller must Close the
// Root, after everything that came from it.
func Open(o Options) (*Root, error) { return open(o.withDefaults(), openExisting) }

// Create opens the state in a bpffs and makes what is missing of it. Errors are
// those of Open, except ErrNoState, and ErrReadOnly.
func Create(o Options) (*Root, error) {
	o = o.withDefaults()
	r, err := open(o, makeMissing)
	if err != nil {
		return nil, err
	}
	if err := r.checkWritable(); err != nil {
		r.Close()
		return nil, err
	}
	for _, dir := range allDirs {
		if err := mkdir(r.fd, string(dir)); err != nil {
			r.Close()
			return nil, makeFault(filepath.Join(r.path, string(dir)), err)
		}
	}
	return r, nil
}

// step opens one directory of the way from the mount point to v1.
type step func(at int, name, path string) (int, error)

func open(o Options, next step) (*Root, error) {
	mount, err := openMount(o.Path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(mount)
	path := filepath.Join(o.Path, "linkpin")
	top, err := next(mount, "linkpin", path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(top)
	path = filepath.Join(path, "v1")
	fd, err := next(top, "v1", path)
	if err != nil {
		return nil, err
	}
	r := &Root{
		fd:   fd,
		path: path,
		base: o.Proc + "/self/fd/" + strconv.Itoa(fd),
		proc: o.Proc,
		now:  o.Now,
		held: make(map[Owner]*Lock),
	}
	if err := r.checkBase(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return r, nil
}

// openMount opens the root directory of a bpffs.
func openMount(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return -1, noBPFFS(path, fmt.Errorf("%w: %w", ErrNoBPFFS, err))
	}
	if err != nil {
		return -1, fault.New(path, err, asRoot(err)).WithExit(fault.ExitUnavailable)
	}
	if err := checkMount(fd, path); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// checkMount refuses what is not a bpffs, and a bpffs in whose root directory
// somebody other than root could rename our directory away: it belongs to root,
// and if others may write to it, it has the sticky bit.
func checkMount(fd int, path string) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fault.New(path, os.NewSyscallError("fstatfs", err), "").WithExit(fault.ExitUnavailable)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		return noBPFFS(path, ErrNoBPFFS)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fault.New(path, os.NewSyscallError("fstat", err), "").WithExit(fault.ExitUnavailable)
	}
	if st.Uid != 0 || (st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0) {
		return fault.New(path, fmt.Errorf("belongs to uid %d with mode %04o: others could move linkpin's state away", st.Uid, st.Mode&0o7777),
			"mount bpffs there with uid=0 and mode=0700 or 1777, or name another bpffs").WithExit(fault.ExitUnavailable)
	}
	return nil
}

func noBPFFS(path string, cause error) error {
	return fault.New(path, cause, "mount one: mount -t bpf bpf "+path).WithExit(fault.ExitUnavailable)
}

func openExisting(at int, name, path string) (int, error) {
	fd, err := openDir(at, name)
	if errors.Is(err, unix.ENOENT) {
		return -1, fault.New(path, ErrNoState, "it is made with the first attachment").WithExit(fault.ExitUnavailable)
	}
	if err != nil {
		return -1, openFault(at, name, path, err)
	}
	if err := checkOurs(fd, path); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func makeMissing(at int, name, path string) (int, error) {
	fd, err := openExisting(at, name, path)
	if !errors.Is(err, ErrNoState) {
		return fd, err
	}
	return makeDir(at, name, path)
}

// makeDir makes and opens a directory that was not there a moment ago.
func makeDir(at int, name, path string) (int, error) {
	err := unix.Mkdirat(at, name, dirMode)
	if errors.Is(err, unix.EEXIST) { // somebody else was faster: is it ours?
		return openExisting(at, name, path)
	}
	if err != nil {
		return -1, makeFault(path, err)
	}
	fd, err := openExisting(at, name, path)
	if errors.Is(err, ErrForeign) {
		// The umask took permissions from our own new directory. It is removed
		// rather than chmod-ed: no mode is ever changed.
		_ = rmdir(at, name)
		return -1, fault.New(path, fmt.Errorf("the umask takes permissions from root's own directories: %w", err), "start linkpin with umask 022").WithExit(fault.ExitUnavailable)
	}
	return fd, err
}

// checkOurs refuses a directory that is not on bpffs, not root's, or not private.
func checkOurs(fd int, path string) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fault.New(path, os.NewSyscallError("fstatfs", err), "").WithExit(fault.ExitUnavailable)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fault.New(path, os.NewSyscallError("fstat", err), "").WithExit(fault.ExitUnavailable)
	}
	if fs.Type != unix.BPF_FS_MAGIC || st.Uid != 0 || st.Mode&0o7777 != dirMode {
		return notPrivate(path, &st)
	}
	return nil
}

// openFault explains why a directory of the tree can't be opened: a symbolic link
// or a pinned object stands there, or another filesystem is mounted over it.
func openFault(at int, name, path string, cause error) error {
	var st unix.Stat_t
	if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fault.New(path, os.NewSyscallError("openat2", cause), "").WithExit(fault.ExitUnavailable)
	}
	switch {
	case errors.Is(cause, unix.ELOOP), errors.Is(cause, unix.ENOTDIR):
		return foreign(path, describe(&st))
	case errors.Is(cause, unix.EXDEV):
		return foreign(path, "another filesystem is mounted over it")
	}
	return fault.New(path, os.NewSyscallError("openat2", cause), asRoot(cause)).WithExit(fault.ExitUnavailable)
}

// asRoot is the remedy for calls that are refused.
func asRoot(err error) string {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return "linkpin must run as root"
	}
	return ""
}

func describe(st *unix.Stat_t) string {
	kind := "file"
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		kind = "directory"
	case unix.S_IFLNK:
		kind = "symbolic link"
	}
	return fmt.Sprintf("a %s of uid %d with mode %04o, not a directory of uid 0 with mode %04o", kind, st.Uid, st.Mode&0o7777, dirMode)
}

// notPrivate refuses a directory that is not, or was not, root's alone.
func notPrivate(path string, st *unix.Stat_t) error {
	remedy := "`linkpin verify --repair` takes these permissions back"
	if st.Uid != 0 || st.Mode&0o022 != 0 {
		remedy = fmt.Sprintf("rm -r %s and start all its containers again; or, only if you know that nobody has changed anything in it: chown 0:0 %s && chmod %04o %s",
			path, path, dirMode, path)
	}
	return fault.New(path, fmt.Errorf("%w: %s", ErrForeign, describe(st)), remedy).WithExit(fault.ExitUnavailable)
}

func foreign(path, what string) error {
	return fault.New(path, fmt.Errorf("%w: %s", ErrForeign, what),
		"find out who made it, then remove it and what is in it").WithExit(fault.ExitUnavailable)
}

// checkWritable finds out early that nothing could be pinned.
func (r *Root) checkWritable() error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(r.fd, &fs); err != nil {
		return fault.New(r.path, os.NewSyscallError("fstatfs", err), "").WithExit(fault.ExitUnavailable)
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return makeFault(r.path, unix.EROFS)
	}
	return nil
}

func makeFault(path string, err error) error {
	if errors.Is(err, unix.EROFS) {
		return fault.New(path, ErrReadOnly, "remount its bpffs read-write: mount -o remount,rw").WithExit(fault.ExitUnavailable)
	}
	return fault.New(path, os.NewSyscallError("mkdirat", err), asRoot(err)).WithExit(fault.ExitUnavailable)
}

// checkBase makes sure that the descriptor's path in procfs leads to the directory.
func (r *Root) checkBase() error {
	var open, there unix.Stat_t
	if err := unix.Fstat(r.fd, &open); err != nil {
		return fault.New(r.path, os.NewSyscallError("fstat", err), "").WithExit(fault.ExitUnavailable)
	}
	if err := unix.Stat(r.base, &there); err != nil || open.Dev != there.Dev || open.Ino != there.Ino {
		return fault.Newf(r.proc, "is not the procfs of this process", "mount -t proc proc "+r.proc).WithExit(fault.ExitUnavailable)
	}
	return nil
}

// Path returns where the state is, for messages.
func (r *Root) Path() string { return r.path }

// Close closes the directory. Paths that came from r lead nowhere afterwards, or
// elsewhere. Closing again does nothing.
func (r *Root) Close() error {
	if r.fd < 0 {
		return nil
	}
	fd := r.fd
	r.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// pathError names a path below v1 as people know it, not through a descriptor.
func (r *Root) pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: r.path + "/" + path, Err: err}
}
