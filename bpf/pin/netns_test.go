// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func closeFD(t *testing.T, fd int) {
	t.Helper()
	must(t, unix.Close(fd))
}

func offset(t *testing.T, fd int) int64 {
	t.Helper()
	at, err := unix.Seek(fd, 0, unix.SEEK_CUR)
	must(t, err)
	return at
}

// mountBPFFS mounts another bpffs over dir.
func mountBPFFS(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

const cookie = 1<<63 + 5

func wantSandbox(t *testing.T, r *Root, want Key) {
	t.Helper()
	key, found, err := r.SandboxByCookie(cookie)
	if err != nil || key != want || found != (want != "") {
		t.Errorf("sandbox %q, %v, %v; want %q", key, found, err, want)
	}
}

func TestIndexNetns(t *testing.T) {
	r := newRoot(t)
	a, b := SandboxKey("a"), CookieKey(cookie)
	wantSandbox(t, r, "")
	la := lock(t, r, Sandbox(a))
	for range 2 {
		must(t, r.IndexNetns(t.Context(), cookie, a))
		wantSandbox(t, r, a)
	}
	wantTree(t, r, indexPath(cookie), "sandboxes/a")

	lb := lock(t, r, Sandbox(b))
	wantError(t, r.IndexNetns(t.Context(), cookie, b), ErrExist)
	wantSandbox(t, r, a)
	must(t, r.UnindexNetns(t.Context(), cookie, b)) // not b's: nothing happens
	wantSandbox(t, r, a)

	// The first sandbox ends and forgets the index.
	release(t, la)
	wantSandbox(t, r, "")
	must(t, r.IndexNetns(t.Context(), cookie, b))
	wantSandbox(t, r, b)
	must(t, r.UnindexNetns(t.Context(), cookie, b))
	must(t, r.UnindexNetns(t.Context(), cookie, b))
	wantSandbox(t, r, "")
	release(t, lb)
	wantTree(t, r)
}

// What is in the index must be ours before it is believed, and is never followed.
func TestForgedIndex(t *testing.T) {
	r := newRoot(t)
	l := lock(t, r, Sandbox("a"))
	path := filepath.Join(r.Path(), indexPath(cookie))
	for _, target := range []string{
		"a", "../sandboxes/", "../sandboxes/..", "../sandboxes/a/", "../sandboxes/../containers", "../sandboxes/a/b", "../containers/a",
		"/etc", filepath.Join(r.Path(), "sandboxes/a"), "../sandboxes/a b", "../sandboxes/" + string(make([]byte, 0)) + ".",
	} {
		must(t, os.Symlink(target, path))
		_, _, err := r.SandboxByCookie(cookie)
		wantError(t, err, ErrDamaged)
		wantError(t, r.IndexNetns(t.Context(), cookie, "a"), ErrDamaged)
		if dangling, err := r.DanglingNetns(); err != nil || len(dangling) != 0 {
			t.Errorf("%q: dangling %v, %v", target, dangling, err)
		}
		wantError(t, r.RemoveDangling(cookie), ErrDamaged)
		must(t, os.Remove(path))
	}
	must(t, os.Mkdir(path, 0o700))
	_, _, err := r.SandboxByCookie(cookie)
	wantError(t, err, ErrDamaged)
	must(t, os.Remove(path))
	// A sandbox that is itself a symbolic link is none.
	must(t, os.Symlink("a", filepath.Join(r.Path(), "sandboxes/b")))
	must(t, os.Symlink("../sandboxes/b", path))
	wantSandbox(t, r, "")
	release(t, l)
}

func TestDanglingNetns(t *testing.T) {
	r := newRoot(t)
	index := func(c uint64, k Key) *Lock {
		t.Helper()
		l := lock(t, r, Sandbox(k))
		must(t, r.IndexNetns(t.Context(), c, k))
		return l
	}
	index(1, "live")
	release(t, index(3, "gone"))
	release(t, index(2, "gone2"))
	must(t, os.Mkdir(filepath.Join(r.Path(), indexLockPath(9)), 0o700))            // left by a killed process
	must(t, os.Mkdir(filepath.Join(r.Path(), string(DirNetns), "strange"), 0o700)) // not ours
	dangling, err := r.DanglingNetns()
	if err != nil || !slices.Equal(dangling, []uint64{2, 3, 9}) {
		t.Errorf("dangling %v, %v", dangling, err)
	}
	// Where there is nothing to take back, nothing is touched.
	time.Sleep(20 * time.Millisecond) // more than a tick of the kernel's clock
	before := mtime(t, r)
	must(t, r.RemoveDangling(1))
	must(t, r.RemoveDangling(77))
	if after := mtime(t, r); after != before {
		t.Error("an index that is in order was locked")
	}
	fd, err := r.tryDir(indexLockPath(9))
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, r.RemoveDangling(9), ErrBusy)
	closeFD(t, fd)
	for _, c := range append(dangling, 1, 77) {
		must(t, r.RemoveDangling(c))
	}
	wantTree(t, r, "netns/1", "netns/strange", "sandboxes/live")
	for _, name := range []string{"", "strange", "01", "-1", "lock_", "99999999999999999999"} {
		_, err := ParseCookie(name)
		wantError(t, err, ErrName)
	}
	if c, err := ParseCookie("lock_9"); c != 9 || err != nil {
		t.Errorf("lock of %d, %v", c, err)
	}
}

// mtime returns when the index was last changed.
func mtime(t *testing.T, r *Root) time.Time {
	t.Helper()
	info, err := os.Stat(filepath.Join(r.Path(), string(DirNetns)))
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

func TestIndexMeetsItsDeadline(t *testing.T) {
	r := newRoot(t)
	lock(t, r, Sandbox("a"))
	must(t, os.Symlink("../sandboxes/gone", filepath.Join(r.Path(), indexPath(cookie))))
	must(t, os.Mkdir(filepath.Join(r.Path(), indexLockPath(cookie)), 0o700))
	fd, err := r.tryDir(indexLockPath(cookie))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantError(t, r.IndexNetns(ctx, cookie, "a"), ErrDeadline)
	closeFD(t, fd)
	must(t, r.IndexNetns(t.Context(), cookie, "a"))
	wantTree(t, r, indexPath(cookie), "sandboxes/a")
}

// Many claim a namespace whose last sandbox has ended, while sweeps run: one gets
// it, and who was told so keeps it.
func TestOneSandboxGetsTheNamespace(t *testing.T) {
	r := newRoot(t)
	stop := make(chan struct{})
	var sweeps, claims sync.WaitGroup
	for range 2 {
		sweeps.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					r.RemoveDangling(cookie) // ErrBusy is what a sweep expects
				}
			}
		})
	}
	for range 20 {
		release(t, func() *Lock {
			l := lock(t, r, Sandbox("old"))
			must(t, r.IndexNetns(t.Context(), cookie, "old"))
			return l
		}())
		var won atomic.Int32
		var all sync.Mutex
		var locks []*Lock
		for _, k := range []Key{"a", "b", "c", "d"} {
			claims.Go(func() {
				l := lock(t, r, Sandbox(k))
				all.Lock()
				locks = append(locks, l)
				all.Unlock()
				if r.IndexNetns(t.Context(), cookie, k) == nil {
					won.Add(1)
				}
			})
		}
		claims.Wait()
		if n := won.Load(); n != 1 {
			t.Errorf("%d sandboxes got it", n)
		}
		if _, found, err := r.SandboxByCookie(cookie); !found || err != nil {
			t.Errorf("the index is lost: %v", err)
		}
		for _, l := range locks {
			release(t, l)
		}
	}
	close(stop)
	sweeps.Wait()
	must(t, r.RemoveDangling(cookie))
	wantTree(t, r)
}

func TestMembers(t *testing.T) {
	r := newRoot(t)
	s := SandboxKey("4f")
	if keys, err := r.Members(s); err != nil || len(keys) != 0 {
		t.Errorf("members of nothing: %v, %v", keys, err)
	}
	l := lock(t, r, Sandbox(s))
	a, b := ContainerKey("a", "/a"), ContainerKey(".b/", "/b")
	for _, k := range []Key{b, a, a} {
		must(t, r.AddMember(s, k))
	}
	if keys, err := r.Members(s); err != nil || !slices.Equal(keys, []Key{b, a}) {
		t.Errorf("members %v, %v", keys, err)
	}
	wantError(t, r.AddMember(s, "../x"), ErrName)
	wantError(t, r.RemoveMember(s, "."), ErrName)
	for _, k := range []Key{a, a, "nobody"} {
		must(t, r.RemoveMember(s, k))
	}
	if keys, err := r.Members(s); err != nil || !slices.Equal(keys, []Key{b}) {
		t.Errorf("members %v, %v", keys, err)
	}
	must(t, r.RemoveMember(s, b))
	release(t, l)
	wantTree(t, r)
}

// A sweeper that comes too late leaves the note of the sandbox that has been made since.
func TestUnindexByALateSweeper(t *testing.T) {
	r := newRoot(t)
	late, err := Open(Options{Path: filepath.Dir(filepath.Dir(r.Path()))})
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	key := SandboxKey("pod")
	l := lock(t, r, Sandbox(key))
	must(t, r.IndexNetns(t.Context(), cookie, key))
	release(t, l)
	must(t, os.Mkdir(filepath.Join(r.Path(), Sandbox(key).path()), dirMode)) // Release has removed it
	stopped, err := late.TrySweep(Sandbox(key))
	if err != nil {
		t.Fatal(err)
	}

	// Another one takes the sandbox away, and a third makes it anew.
	again, err := r.LockSweeping(t.Context(), Sandbox(key), func() {})
	if err != nil {
		t.Fatal(err)
	}
	must(t, r.IndexNetns(t.Context(), cookie, key))

	must(t, late.UnindexNetns(t.Context(), cookie, key))
	must(t, stopped.Release())
	if got, found, err := r.SandboxByCookie(cookie); err != nil || !found || got != key {
		t.Errorf("the note of the new sandbox is gone: %q, %v, %v", got, found, err)
	}
	release(t, again)
}
