// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const traced = "LINKPIN_TRACED"

// TestMain is also the program that is traced.
func TestMain(m *testing.M) {
	if what := os.Getenv(traced); what != "" {
		os.Exit(program(what, os.Args[1]))
	}
	os.Exit(m.Run())
}

const directories = 40

// program makes directories, each in a thread of its own.
func program(what, dir string) int {
	if what == "parent" {
		cmd := exec.Command("/proc/self/exe", dir)
		cmd.Env = []string{traced + "=child"}
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			return 3
		}
		return 0
	}
	if what == "open" {
		if _, err := os.Open(filepath.Join(dir, "there")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 4
		}
		return 0
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	failed := 0
	for i := range directories {
		wg.Go(func() {
			runtime.LockOSThread() // the thread ends with the goroutine
			mu.Lock()
			defer mu.Unlock()
			if err := unix.Mkdir(filepath.Join(dir, strconv.Itoa(i)), 0o700); errors.Is(err, unix.ENOSPC) {
				failed++
			}
			for range 50 {
				runtime.Gosched() // signals and threads in between
			}
		})
	}
	wg.Wait()
	return 10 * failed
}

// run traces this test's own program. It returns which call was the Nth mkdir.
func run(t *testing.T, what string, f Fault) (r *Result, made int, calls []string, stderr string) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Fatal(ErrUnsupported)
	}
	dir := t.TempDir()
	if what == "open" {
		if err := os.WriteFile(filepath.Join(dir, "there"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "err"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	r, err = Run(Options{
		Path: "/proc/self/exe", Args: []string{dir}, Env: []string{traced + "=" + what},
		Files: [3]*os.File{2: out}, Fault: f,
		Trace: func(c Call) { calls = append(calls, c.Name) },
	})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return r, len(entries), calls, string(data)
}

// position returns the number of the nth call whose name has a prefix.
func position(t *testing.T, calls []string, prefix string, nth int) int {
	t.Helper()
	for i, c := range calls {
		if strings.HasPrefix(c, prefix) {
			if nth--; nth == 0 {
				return i + 1
			}
		}
	}
	t.Fatalf("no such call %s in %v", prefix, calls)
	return 0
}

func TestCountsOverAllThreads(t *testing.T) {
	for range 5 {
		r, made, calls, _ := run(t, "mkdir", Fault{})
		n := 0
		for _, c := range calls {
			if strings.HasPrefix(c, "mkdirat ") {
				n++
			}
		}
		if n != directories || made != directories || r.Exit != 0 || r.Calls != len(calls) {
			t.Errorf("counted %d of %d, made %d, %+v", n, directories, made, r)
		}
	}
}

func TestCountsChildren(t *testing.T) {
	r, made, calls, stderr := run(t, "parent", Fault{})
	if made != directories || r.Exit != 0 || !slices.ContainsFunc(calls, func(c string) bool { return strings.HasSuffix(c, "/7") }) {
		t.Errorf("made %d, %+v, %s", made, r, stderr)
	}
}

func TestActions(t *testing.T) {
	_, _, calls, _ := run(t, "mkdir", Fault{})
	n := position(t, calls, "mkdirat ", 11)
	for _, tc := range []struct {
		fault Fault
		made  int
		exit  int
	}{
		{Fault{Action: KillEntry, N: n}, 10, -1},
		{Fault{Action: KillExit, N: n}, 11, -1},
		{Fault{Action: Fail, N: n, Errno: unix.ENOSPC}, directories - 1, 10},
	} {
		r, made, _, _ := run(t, "mkdir", tc.fault)
		if made != tc.made || r.Exit != tc.exit || !r.Reached || !strings.HasPrefix(r.At.Name, "mkdirat ") {
			t.Errorf("%v: made %d, want %d; %+v, want exit %d", tc.fault, made, tc.made, r, tc.exit)
		}
	}
}

// Of a program that is stopped no thread makes a call that is counted, and it goes on
// where it was. Others run meanwhile.
func TestStop(t *testing.T) {
	dir := t.TempDir()
	there := func() int {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	stops := 0
	r, err := Run(Options{
		Path: "/proc/self/exe", Args: []string{dir}, Env: []string{traced + "=mkdir"},
		Fault: Fault{Action: Stop, N: 11, Call: "mkdirat " + dir},
		Stopped: func() {
			stops++
			if _, made, _, _ := run(t, "mkdir", Fault{}); made != directories {
				t.Errorf("another one made %d", made)
			}
			if n := there(); n != 11 {
				t.Errorf("%d directories when it is stopped", n)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if stops != 1 || !r.Reached || r.Exit != 0 || there() != directories {
		t.Errorf("stopped %d times, made %d: %+v", stops, there(), r)
	}
}

func TestNotReached(t *testing.T) {
	all, _, _, _ := run(t, "mkdir", Fault{})
	for _, action := range []Action{KillEntry, KillExit, Fail} {
		r, made, _, _ := run(t, "mkdir", Fault{Action: action, N: all.Calls + 1, Errno: unix.EPERM})
		if r.Reached || r.Exit != 0 || made != directories || r.Calls != all.Calls {
			t.Errorf("%d: %+v", action, r)
		}
	}
}

// TestInterruptedOpen: Go itself repeats an open that a signal has interrupted.
func TestInterruptedOpen(t *testing.T) {
	_, _, calls, _ := run(t, "open", Fault{})
	n := 0
	for i, c := range calls {
		if strings.HasPrefix(c, "openat ") && strings.HasSuffix(c, "/there") {
			n = i + 1
		}
	}
	if n == 0 {
		t.Fatal("not opened:", calls)
	}
	r, _, again, stderr := run(t, "open", Fault{Action: Fail, N: n, Errno: unix.EINTR})
	if r.Exit != 0 || len(again) != len(calls)+1 {
		t.Errorf("EINTR: %+v, %d calls instead of %d; %s", r, len(again), len(calls)+1, stderr)
	}
	if r, _, _, stderr = run(t, "open", Fault{Action: Fail, N: n, Errno: unix.EBUSY}); r.Exit != 4 || !strings.Contains(stderr, "busy") {
		t.Errorf("EBUSY: %+v, %s", r, stderr)
	}
}
