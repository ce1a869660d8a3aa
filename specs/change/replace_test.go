// SPDX-License-Identifier: Apache-2.0

package change

import (
	"bytes"
	native "encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// failSync has the nth call of syncDir, counted from 1, fail.
func failSync(t *testing.T, n int) {
	t.Helper()
	t.Cleanup(func() { syncDir = syncDirectory })
	syncDir = func(dir string) error {
		if n--; n == 0 {
			return &os.PathError{Op: "fsync", Path: dir, Err: unix.EIO}
		}
		return syncDirectory(dir)
	}
}

// A change counts as made as soon as it can be seen, whatever fails then.
func TestApplyUndoesWhatIsVisible(t *testing.T) {
	for n, name := range []string{"new program", "changed file", "removed file"} {
		t.Run(name, func(t *testing.T) {
			h := host(t, map[string]string{"/etc/a": "1", "/etc/gone": "2"})
			if err := os.Chmod(filepath.Join(h.Dir, "etc/gone"), 0o640); err != nil {
				t.Fatal(err)
			}
			before := tree(t, h.Dir)
			var p Plan
			p.Place(read(t, h, "/opt/made/x"), []byte("program"))
			p.Write(read(t, h, "/etc/a"), []byte("changed"), 0)
			p.Remove(read(t, h, "/etc/gone"))
			failSync(t, n+1)
			err := p.Apply(h)
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || !errors.Is(err, unix.EIO) || strings.Contains(err.Error(), "nothing was changed") || f.Object != p.Changes[n].Path {
				t.Errorf("%v", err)
			}
			if strings.Contains(err.Error(), "undoing") || strings.Contains(err.Error(), "no such file") {
				t.Errorf("there is nothing else to complain of: %v", err)
			}
			if d := cmp.Diff(before, tree(t, h.Dir)); d != "" {
				t.Error(d)
			}
		})
	}
}

// What can't be undone is said, and nobody claims that nothing was changed.
func TestApplyThatCannotUndo(t *testing.T) {
	h := host(t, map[string]string{"/etc/a": "1"})
	var p Plan
	p.Write(read(t, h, "/etc/a"), []byte("changed"), 0)
	t.Cleanup(func() { syncDir = syncDirectory })
	syncDir = func(dir string) error { return &os.PathError{Op: "fsync", Path: dir, Err: unix.EIO} }
	f, ok := errors.AsType[*fault.Error](p.Apply(h))
	if !ok || !strings.Contains(f.Error(), "undoing the change of /etc/a") || f.Remedy != "compare with --dry-run" {
		t.Errorf("%v", f)
	}
}

// A umask is for users' files: runtimes, and users who debug them, read these.
func TestApplyWhateverTheUmask(t *testing.T) {
	h := host(t, map[string]string{"/etc/x": ""})
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	var p Plan
	p.Place(read(t, h, "/opt/nri/plugins/x"), []byte("program"))
	p.Write(read(t, h, "/etc/made/conf"), []byte("text"), 0o644)
	if err := p.Apply(h); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{
		"/opt": 0o755, "/opt/nri": 0o755, "/opt/nri/plugins": 0o755, "/opt/nri/plugins/x": 0o755, "/etc/made": 0o755, "/etc/made/conf": 0o644,
	} {
		if st, err := os.Stat(filepath.Join(h.Dir, path)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
}

// A program belongs to root, whoever had what was there.
func TestPlace(t *testing.T) {
	for _, tc := range []struct {
		name string
		mode fs.FileMode
		uid  int
		data string
		want bool
	}{
		{"as it is to be", 0o755, 0, "program", false},
		{"somebody else's", 0o755, 65534, "program", true},
		{"writable", 0o777, 0, "program", true},
		{"setuid", fs.ModeSetuid | 0o755, 0, "program", true},
		{"not executable", 0o644, 0, "program", true},
		{"another, somebody else's", 0o777, 65534, "old", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := host(t, map[string]string{"/bin/x": tc.data})
			real := filepath.Join(h.Dir, "bin/x")
			if err := errors.Join(os.Chown(real, tc.uid, tc.uid), os.Chmod(real, tc.mode)); err != nil {
				t.Fatal(err)
			}
			var p Plan
			p.Place(read(t, h, "/bin/x"), []byte("program"))
			if p.Empty() == tc.want {
				t.Errorf("planned: %+v", p.Changes)
			}
			if err := p.Apply(h); err != nil {
				t.Fatal(err)
			}
			if f := read(t, h, "/bin/x"); f.Mode != 0o755 || f.UID != 0 || f.GID != 0 || string(f.Data) != "program" {
				t.Errorf("%+v", f)
			}
		})
	}
}

// events returns what happens to names in a directory while f runs: "create x".
func events(t *testing.T, dir string, f func()) []string {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ATTRIB); err != nil {
		t.Fatal(err)
	}
	f()
	buf := make([]byte, 64<<10)
	n, err := unix.Read(fd, buf)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for buf = buf[:n]; len(buf) > 0; {
		mask, size := native.NativeEndian.Uint32(buf[4:]), native.NativeEndian.Uint32(buf[12:])
		name := string(bytes.TrimRight(buf[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size], "\x00"))
		kind := map[uint32]string{unix.IN_CREATE: "create ", unix.IN_MOVED_TO: "move ", unix.IN_ATTRIB: "mode "}[mask]
		out = append(out, kind+name)
		buf = buf[unix.SizeofInotifyEvent+size:]
	}
	return out
}

// NRI starts whatever is executable in its directory, and fails if that is no plugin.
func TestNoProgramIsHalfThere(t *testing.T) {
	h := host(t, map[string]string{"/opt/nri/plugins/.keep": "", "/opt/nri/.keep": ""})
	place := func(path string) func() {
		return func() {
			var p Plan
			p.Place(read(t, h, path), []byte("program"))
			if err := p.Apply(h); err != nil {
				t.Fatal(err)
			}
			if f := read(t, h, path); f.Mode != 0o755 {
				t.Errorf("mode %v", f.Mode)
			}
		}
	}
	dir := filepath.Join(h.Dir, "opt/nri/plugins")
	if d := cmp.Diff([]string{"move x"}, events(t, dir, place("/opt/nri/plugins/x"))); d != "" {
		t.Error(d)
	}
	// Nothing can be renamed into a mount, not even into one of the same file system.
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	seen := events(t, dir, place("/opt/nri/plugins/y"))
	if len(seen) < 3 || !strings.HasPrefix(seen[0], "create "+temporary) || seen[len(seen)-2] != "move y" || seen[len(seen)-1] != "mode y" {
		t.Errorf("it was executable before it was whole: %v", seen)
	}
}

// What a killed installer has left goes, wherever it stands, also on the way back.
func TestSweep(t *testing.T) {
	left := map[string]string{"/opt/nri/plugins/.linkpin-1.tmp": "half", "/opt/nri/.linkpin-2.tmp": "half", "/opt/nri/plugins/x": "program"}
	h := host(t, left)
	var p Plan
	p.Remove(read(t, h, "/opt/nri/plugins/x"))
	p.RemoveDir("/opt/nri/plugins")
	p.RemoveDir("/opt/nri")
	if err := p.Apply(h); err != nil {
		t.Fatal(err)
	}
	if h.Exists("/opt/nri") {
		t.Error(tree(t, h.Dir))
	}
	h = host(t, left)
	if err := h.Sweep("/opt/nri/plugins/other"); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(tree(t, host(t, map[string]string{"/opt/nri/plugins/x": "program"}).Dir), tree(t, h.Dir)); d != "" {
		t.Error(d)
	}
}
