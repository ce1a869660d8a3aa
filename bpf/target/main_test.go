// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

func TestMain(m *testing.M) { os.Exit(bpftest.Main(m)) }

// noLeaks fails the test if it leaves descriptors open. Nothing is collected until
// then: that would close what was dropped without Close.
func noLeaks(t *testing.T) {
	t.Helper()
	runtime.GC()
	percent := debug.SetGCPercent(-1)
	before := descriptors(t)
	t.Cleanup(func() {
		defer debug.SetGCPercent(percent)
		if after := descriptors(t); after > before {
			t.Errorf("%d descriptors are open, %d before", after, before)
		}
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// fakeProc is a /proc of which each file is either the real one or what a test wants.
type fakeProc struct {
	t   *testing.T
	dir string
}

func newFakeProc(t *testing.T) *fakeProc {
	t.Helper()
	p := &fakeProc{t, t.TempDir()}
	p.link("self/mountinfo")
	p.link("self/cgroup")
	return p
}

func (p *fakeProc) roots() Roots { return Roots{Proc: p.dir} }

// link makes a file the real one.
func (p *fakeProc) link(name string) {
	p.t.Helper()
	path := p.path(name)
	if err := os.Symlink("/proc/"+name, path); err != nil {
		p.t.Fatal(err)
	}
}

// process links the files of a real process.
func (p *fakeProc) process(pid int) {
	p.t.Helper()
	for _, f := range []string{"stat", "cgroup", "ns/net"} {
		p.link(strconv.Itoa(pid) + "/" + f)
	}
}

// write gives a file a content.
func (p *fakeProc) write(name, content string) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// pipe makes a file whose content is another one at each reading.
func (p *fakeProc) pipe(name string, contents ...string) {
	p.t.Helper()
	path := p.path(name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		p.t.Fatal(os.NewSyscallError("mkfifo", err))
	}
	go func() {
		for i, c := range contents {
			f, err := os.OpenFile(path, os.O_WRONLY, 0) // waits for a reader
			if err != nil {
				return
			}
			_, _ = f.WriteString(c)
			if i+1 < len(contents) {
				// Whoever opens the path from now on gets another pipe: the next
				// reader must not see the rest of this one.
				_ = os.Remove(path)
				_ = unix.Mkfifo(path, 0o600)
			}
			f.Close()
		}
	}()
}

func (p *fakeProc) path(name string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		p.t.Fatal(err)
	}
	return path
}

// statLine is a line of /proc/PID/stat.
func statLine(pid int, command string, state byte, start uint64) string {
	return fmt.Sprintf("%d (%s) %c 1 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 %d 1 1\n", pid, command, state, start)
}
