// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/linkpin/linkpin/specs/fault"
)

func TestLockExcludes(t *testing.T) {
	r := newRoot(t)
	var inside, worst atomic.Int32
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			l, err := r.Lock(t.Context(), childOwner)
			if err != nil {
				t.Error(err)
				return
			}
			if n := inside.Add(1); n > 1 {
				worst.Store(n)
			}
			time.Sleep(100 * time.Microsecond)
			inside.Add(-1)
			if err := l.Release(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := worst.Load(); n != 0 {
		t.Errorf("%d had the lock at once", n)
	}
	wantTree(t, r)
}

func TestLocksOfOthersDoNotMatter(t *testing.T) {
	r := newRoot(t)
	k := ContainerKey("a", "/a")
	lock(t, r, Container(k))
	lock(t, r, Sandbox(k))
	lock(t, r, Container(ContainerKey("a", "/b")))
}

func TestLockMeetsItsDeadline(t *testing.T) {
	r := newRoot(t)
	cmd, _ := startChild(t, "lock", filepath.Dir(filepath.Dir(r.Path())))
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := r.Lock(ctx, childOwner)
	wantError(t, err, ErrDeadline)
	if d := time.Since(start); d < 200*time.Millisecond || d > 2*time.Second {
		t.Errorf("gave up after %v", d)
	}
	var f *fault.Error
	if !errors.As(err, &f) || f.Object != "container web" || !strings.Contains(err.Error(), "pid "+strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("error %v does not name the container and the process that holds the lock", err)
	}
	_, err = r.TryLock(childOwner)
	wantError(t, err, ErrBusy)

	// A process that dies gives everything back.
	cmd.Process.Kill()
	release(t, lock(t, r, childOwner))
	wantTree(t, r)
}

func TestEveryWaitHasADeadline(t *testing.T) {
	ctx, cancel := withDeadline(context.Background())
	defer cancel()
	if at, ok := ctx.Deadline(); !ok || time.Until(at) > LockTimeout || time.Until(at) < LockTimeout-time.Second {
		t.Errorf("deadline %v, %v", at, ok)
	}
	given, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if kept, _ := withDeadline(given); kept != given {
		t.Error("the caller's deadline is not kept")
	}
}

func TestLockIsGivenUpOnCancel(t *testing.T) {
	r := newRoot(t)
	lock(t, r, childOwner)
	cause := errors.New("SIGTERM")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
	_, err := r.Lock(ctx, childOwner)
	wantError(t, err, cause)
	if errors.Is(err, ErrDeadline) {
		t.Errorf("cancelled, not late: %v", err)
	}
}

// displaced are the ways in which a directory stops being the one at its path.
var displaced = map[string]func(path string) error{
	"removed":  os.Remove,
	"replaced": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	"moved":    func(path string) error { return os.Rename(path, path+"-old") },
	"moved and replaced": func(path string) error {
		return errors.Join(os.Rename(path, path+"-old"), os.Mkdir(path, 0o700))
	},
}

func TestSame(t *testing.T) {
	for name, displace := range displaced {
		t.Run(name, func(t *testing.T) {
			r := newRoot(t)
			path := filepath.Join(r.Path(), "containers/a")
			must(t, os.Mkdir(path, 0o700))
			fd, err := openDir(r.fd, "containers/a")
			if err != nil {
				t.Fatal(err)
			}
			defer closeFD(t, fd)
			if ok, err := same(fd, r.fd, "containers/a"); err != nil || !ok {
				t.Errorf("before: %v, %v", ok, err)
			}
			must(t, displace(path))
			if ok, err := same(fd, r.fd, "containers/a"); err != nil || ok {
				t.Errorf("after: %v, %v", ok, err)
			}
		})
	}
}

// Who waits gets the directory that is at the path in the end.
func TestLockOfWhatIsDisplaced(t *testing.T) {
	for name, displace := range displaced {
		t.Run(name, func(t *testing.T) {
			r := newRoot(t)
			first := lock(t, r, childOwner)
			var l *Lock
			done := make(chan error)
			go func() {
				var err error
				l, err = r.Lock(t.Context(), childOwner)
				done <- err
			}()
			time.Sleep(10 * time.Millisecond) // it waits now
			must(t, displace(filepath.Join(r.Path(), childOwner.path())))
			must(t, first.Release())
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			p := ContainerEntry(childOwner.Key(), "p")
			must(t, stage(t, r, "p").Publish(p))
			entry(t, r, p)
			release(t, l)
		})
	}
}

// tryDir must not report a lock on a directory that is gone, at whatever moment it
// went. The holder removes it before it unlocks, so this hits the gap often.
func TestReleaseRacesWithLock(t *testing.T) {
	r := newRoot(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				l, err := r.Lock(t.Context(), childOwner)
				if err != nil {
					t.Error(err)
					return
				}
				if ok, err := same(l.fd, r.fd, childOwner.path()); err != nil || !ok {
					t.Errorf("locked a directory that is not there: %v", err)
				}
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantTree(t, r)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func TestReleaseOfWhatWasReplacedLeavesTheOther(t *testing.T) {
	r := newRoot(t)
	first := lock(t, r, childOwner)
	must(t, os.Remove(filepath.Join(r.Path(), childOwner.path())))
	second := lock(t, r, childOwner)
	release(t, first)
	if err := stage(t, r, "p").Publish(ContainerEntry(childOwner.Key(), "p")); err != nil {
		t.Errorf("the second lock does not count any more: %v", err)
	}
	release(t, second)
}

func TestTryLock(t *testing.T) {
	r := newRoot(t)
	_, err := r.TryLock(childOwner)
	wantError(t, err, ErrNotExist)
	wantTree(t, r) // it must not make the directory
	publish(t, r, ContainerEntry(childOwner.Key(), "p"))
	l, err := r.TryLock(childOwner)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.TryLock(childOwner)
	wantError(t, err, ErrBusy)
	release(t, l)
	release(t, l) // nothing
	l, err = r.TryLock(childOwner)
	if err != nil {
		t.Fatal(err)
	}
	release(t, l)
}

func TestReleaseTidies(t *testing.T) {
	r := newRoot(t)
	s := SandboxKey("4f")
	a, b := InterfaceEntry(s, "n", "eth0", "p"), HookInterfaceEntry(s, "eth1", "p")
	publish(t, r, a)
	publish(t, r, b)
	l := lock(t, r, Sandbox(s))
	must(t, r.AddMember(s, "c"))
	for _, p := range []Place{a, b} {
		if err := entry(t, r, p).Remove(); err != nil {
			t.Fatal(err)
		}
	}
	release(t, l)
	wantTree(t, r, "sandboxes/4f", "sandboxes/4f/members", "sandboxes/4f/members/c")
	l = lock(t, r, Sandbox(s))
	must(t, r.RemoveMember(s, "c"))
	release(t, l)
	wantTree(t, r)
}

func TestChangesNeedTheLock(t *testing.T) {
	r := newRoot(t)
	s := SandboxKey("4f")
	p := NetnsEntry(s, "p")
	publish(t, r, p)
	e := entry(t, r, p)
	lock(t, r, Container(s)) // not that of the sandbox
	_, err := r.Retire(p, "test", 0)
	for _, err := range []error{
		err, stage(t, r, "q").Publish(NetnsEntry(s, "q")), e.Remove(), e.RemoveLink("ingress"),
		e.ReplaceLink("ingress", newMap(t)), e.ReplaceRecord(someRecord("p")), e.ReplaceMap("allow", newMap(t)),
		r.AddMember(s, "c"), r.RemoveMember(s, "c"), r.IndexNetns(t.Context(), 1, s), r.UnindexNetns(t.Context(), 1, s),
	} {
		wantError(t, err, ErrNotLocked)
	}
}

func TestFindFlock(t *testing.T) {
	const locks = `1: POSIX  ADVISORY  WRITE 10 00:2e:82877 0 EOF
2: FLOCK  ADVISORY  WRITE 0 00:2e:82877 0 EOF
3: FLOCK  ADVISORY  WRITE 12 00:2e:8287 0 EOF
3: -> FLOCK  ADVISORY  WRITE 13 00:2e:82877 0 EOF
broken
4: FLOCK  ADVISORY  WRITE 14 00:2e:82877 0 EOF
`
	if got := findFlock(strings.NewReader(locks), "00:2e:82877"); got != "14" {
		t.Errorf("holder %q, want 14", got)
	}
	if got := findFlock(bytes.NewReader(nil), "00:2e:82877"); got != "" {
		t.Errorf("holder %q of nothing", got)
	}
}

// Sweepers share a lock with each other and with nobody else. Who needs it for itself
// gets it as soon as one of them, be it the waiting one, has taken away what was there.
func TestSweepersShareALock(t *testing.T) {
	r := newRoot(t)
	other, err := Open(Options{Path: filepath.Dir(filepath.Dir(r.Path()))})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	release(t, lock(t, r, childOwner))
	must(t, os.Mkdir(filepath.Join(r.Path(), childOwner.path()), 0o700))
	stopped, err := other.TrySweep(childOwner)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.TryLock(childOwner); !errors.Is(err, ErrBusy) {
		t.Errorf("beside a sweeper: %v", err)
	}
	swept := 0
	l, err := r.LockSweeping(t.Context(), childOwner, func() {
		swept++
		mine, err := r.TrySweep(childOwner)
		if err != nil {
			t.Errorf("beside another sweeper: %v", err)
			return
		}
		must(t, mine.Release()) // removes the directory, which is empty
	})
	if err != nil || swept != 1 {
		t.Fatalf("swept %d times, %v", swept, err)
	}
	if _, err := other.TrySweep(childOwner); !errors.Is(err, ErrBusy) {
		t.Errorf("a sweeper beside who changes it: %v", err)
	}
	must(t, stopped.Release())
	if ok, err := same(l.fd, r.fd, childOwner.path()); err != nil || !ok {
		t.Errorf("the stopped one took the new directory away: %v", err)
	}
	release(t, l)
}
