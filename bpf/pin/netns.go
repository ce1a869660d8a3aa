// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The index of sandboxes by namespace cookie: symbolic links that are read, never
// followed. Making one where there is none is atomic by itself. For everything
// else there is a lock for each cookie, a directory beside the link, since what a
// link says can change between a look at it and its removal.
const (
	indexTarget     = "../" + string(DirSandboxes) + "/"
	indexLockPrefix = "lock_"
)

func indexPath(cookie uint64) string {
	return string(DirNetns) + "/" + strconv.FormatUint(cookie, 10)
}

func indexLockPath(cookie uint64) string {
	return string(DirNetns) + "/" + indexLockPrefix + strconv.FormatUint(cookie, 10)
}

// IndexNetns notes that a network namespace belongs to a sandbox, whose lock the
// caller must hold. It may be noted already. The error wraps ErrExist if another
// sandbox that still has a directory owns the namespace; SandboxByCookie then says
// which. It waits until the deadline of ctx for others who change the same note.
func (r *Root) IndexNetns(ctx context.Context, cookie uint64, sandbox Key) error {
	if _, err := r.holding(Sandbox(sandbox)); err != nil {
		return err
	}
	link := func() error { return unix.Symlinkat(indexTarget+string(sandbox), r.fd, indexPath(cookie)) }
	if err := link(); !errors.Is(err, unix.EEXIST) {
		return r.pathError("index", indexPath(cookie), err)
	}
	return r.withIndexLock(ctx, cookie, func() error {
		key, found, err := r.readIndex(cookie)
		switch {
		case err != nil:
			return err
		case !found:
			return r.pathError("index", indexPath(cookie), link())
		case key == sandbox:
			return nil
		}
		exists, err := r.sandboxExists(key)
		if err != nil {
			return err
		}
		if exists {
			return fmt.Errorf("network namespace %d belongs to %v: %w", cookie, Sandbox(key), ErrExist)
		}
		return r.replaceIndex(cookie, sandbox)
	})
}

// replaceIndex puts a new link in the place of an old one, without a moment in
// which there is none.
func (r *Root) replaceIndex(cookie uint64, sandbox Key) (err error) {
	s, err := r.Stage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Discard()) }()
	const name = "index"
	if err := unix.Symlinkat(indexTarget+string(sandbox), s.fd, name); err != nil {
		return r.pathError("index", indexPath(cookie), err)
	}
	return r.pathError("index", indexPath(cookie), unix.Renameat(s.fd, name, r.fd, indexPath(cookie)))
}

// UnindexNetns takes back what IndexNetns noted, if it still names the sandbox,
// whose lock the caller must hold. It does nothing if the directory that is locked is no
// longer the sandbox's: the note is that of the next one then.
func (r *Root) UnindexNetns(ctx context.Context, cookie uint64, sandbox Key) error {
	lock, err := r.holding(Sandbox(sandbox))
	if err != nil {
		return err
	}
	return r.withIndexLock(ctx, cookie, func() error {
		if ok, err := same(lock.fd, r.fd, Sandbox(sandbox).path()); err != nil || !ok {
			return r.pathError("unindex", indexPath(cookie), err)
		}
		key, found, err := r.readIndex(cookie)
		if err != nil || !found || key != sandbox {
			return err
		}
		return r.pathError("unindex", indexPath(cookie), unix.Unlinkat(r.fd, indexPath(cookie), 0))
	})
}

// SandboxByCookie returns the sandbox that a network namespace belongs to. It is
// false if none is noted, or if the one that is has no directory any more. The
// error wraps ErrDamaged for a note that linkpin did not write. Who needs the
// answer to stay true asks again when it has locked the sandbox.
func (r *Root) SandboxByCookie(cookie uint64) (Key, bool, error) {
	key, found, err := r.readIndex(cookie)
	if err != nil || !found {
		return "", false, err
	}
	exists, err := r.sandboxExists(key)
	if err != nil || !exists {
		return "", false, err
	}
	return key, true, nil
}

// DanglingNetns lists the cookies whose sandbox has no directory any more, and
// those that a killed process left locks of.
func (r *Root) DanglingNetns() ([]uint64, error) {
	names, err := r.list(DirNetns)
	if err != nil {
		return nil, err
	}
	var dangling []uint64
	for _, name := range names {
		cookie, err := ParseCookie(name)
		if err != nil {
			continue // not ours to remove
		}
		if !strings.HasPrefix(name, indexLockPrefix) {
			_, exists, err := r.SandboxByCookie(cookie)
			if err != nil && !errors.Is(err, ErrDamaged) {
				return nil, err
			}
			if exists || err != nil {
				continue
			}
		}
		dangling = append(dangling, cookie)
	}
	slices.Sort(dangling)
	return slices.Compact(dangling), nil
}

// ParseCookie returns the cookie that a name from Sample(DirNetns, …) is about. The
// error is ErrName.
func ParseCookie(name string) (uint64, error) {
	digits := strings.TrimPrefix(name, indexLockPrefix)
	cookie, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || strconv.FormatUint(cookie, 10) != digits {
		return 0, nameError(name)
	}
	return cookie, nil
}

// RemoveDangling takes back the note of a namespace whose sandbox has no directory
// any more; otherwise it changes nothing. The error wraps ErrBusy while somebody
// else changes the note.
func (r *Root) RemoveDangling(cookie uint64) error {
	if dangling, err := r.isDangling(cookie); err != nil || !dangling {
		return err
	}
	path := indexLockPath(cookie)
	if err := mkdir(r.fd, path); err != nil {
		return r.pathError("mkdir", path, err)
	}
	fd, err := r.tryDir(path)
	if errors.Is(err, unix.ENOENT) {
		err = ErrBusy // whoever held it has just removed it
	}
	if err != nil {
		return r.pathError("lock", path, err)
	}
	defer r.releaseIndex(fd, path)
	key, found, err := r.readIndex(cookie)
	if err != nil || !found {
		return err
	}
	exists, err := r.sandboxExists(key)
	if err != nil || exists {
		return err
	}
	return r.pathError("unindex", indexPath(cookie), unix.Unlinkat(r.fd, indexPath(cookie), 0))
}

// isDangling looks without a lock whether there is anything to take back: a note
// of a sandbox without a directory, or a lock that may have been left behind.
func (r *Root) isDangling(cookie uint64) (bool, error) {
	key, found, err := r.readIndex(cookie)
	if err != nil {
		return false, err
	}
	if found {
		if exists, err := r.sandboxExists(key); err != nil || !exists {
			return true, err
		}
	}
	var st unix.Stat_t
	err = unix.Fstatat(r.fd, indexLockPath(cookie), &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, r.pathError("stat", indexLockPath(cookie), err)
}

// withIndexLock runs change under the lock of one cookie. Nothing else is locked
// or waited for inside, so that it can't be part of a deadlock.
func (r *Root) withIndexLock(ctx context.Context, cookie uint64, change func() error) error {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	path := indexLockPath(cookie)
	fd, err := r.waitForDir(ctx, path, "index of network namespace "+strconv.FormatUint(cookie, 10), nil)
	if err != nil {
		return err
	}
	defer r.releaseIndex(fd, path)
	return change()
}

// releaseIndex gives the lock of a cookie back and removes its directory. If that
// fails, the next holder or a sweep does it.
func (r *Root) releaseIndex(fd int, path string) {
	if ok, err := same(fd, r.fd, path); err == nil && ok {
		_ = rmdir(r.fd, path)
	}
	unix.Close(fd)
}

// readIndex returns what the link of a cookie says, whether or not the sandbox
// still has a directory.
func (r *Root) readIndex(cookie uint64) (key Key, found bool, err error) {
	path := indexPath(cookie)
	buf := make([]byte, len(indexTarget)+maxName+1)
	n, err := unix.Readlinkat(r.fd, path, buf)
	if errors.Is(err, unix.ENOENT) {
		return "", false, nil
	}
	if errors.Is(err, unix.EINVAL) {
		return "", false, r.pathError("read", path, damaged("it is not a symbolic link"))
	}
	if err != nil {
		return "", false, r.pathError("read", path, err)
	}
	name, ok := strings.CutPrefix(string(buf[:n]), indexTarget)
	if !ok || checkName(name) != nil {
		return "", false, r.pathError("read", path, damaged("it leads to %q", buf[:n]))
	}
	return Key(name), true, nil
}

func (r *Root) sandboxExists(k Key) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(r.fd, Sandbox(k).path(), &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, r.pathError("stat", Sandbox(k).path(), err)
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}
