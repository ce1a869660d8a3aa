// SPDX-License-Identifier: Apache-2.0

package change

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// tree returns what is below a directory: type, mode and content by path.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		value := info.Mode().String()
		switch {
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			value += " " + string(data)
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			value += " " + to
		}
		out[strings.TrimPrefix(path, dir)] = value
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// host makes a host of files; a content that begins with "-> " is a symbolic link.
func host(t testing.TB, files map[string]string) Host {
	t.Helper()
	dir := t.TempDir()
	for path, content := range files {
		real := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(to, real)
		} else {
			err = os.WriteFile(real, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return Host{Dir: dir}
}

func read(t testing.TB, h Host, path string) *File {
	t.Helper()
	f, err := h.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestApply(t *testing.T) {
	h := host(t, map[string]string{"/etc/a.conf": "one\n", "/etc/gone": "x", "/etc/own/x": "", "/etc/shared/x": "", "/etc/shared/y": ""})
	if err := os.Chmod(filepath.Join(h.Dir, "etc/a.conf"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(h.Dir, "etc/a.conf"), 12, 34); err != nil {
		t.Fatal(err)
	}
	var p Plan
	p.Write(read(t, h, "/usr/libexec/x/bin"), []byte("\x7fELF\x00"), 0o755)
	p.Write(read(t, h, "/etc/a.conf"), []byte("one\ntwo\n"), 0o600)
	p.Write(read(t, h, "/etc/empty"), nil, 0o600)
	p.Remove(read(t, h, "/etc/gone"))
	p.Remove(read(t, h, "/etc/never-there"))
	for _, dir := range []string{"/etc/own", "/etc/shared"} {
		p.Remove(read(t, h, dir+"/x"))
		p.RemoveDir(dir)
	}
	if err := p.Apply(h); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"": "drwxr-xr-x", "/etc": "drwxr-xr-x", "/etc/a.conf": "-rw-r----- one\ntwo\n", "/etc/empty": "-rw------- ",
		"/etc/shared": "drwxr-xr-x", "/etc/shared/y": "-rw-r--r-- ",
		"/usr": "drwxr-xr-x", "/usr/libexec": "drwxr-xr-x", "/usr/libexec/x": "drwxr-xr-x", "/usr/libexec/x/bin": "-rwxr-xr-x \x7fELF\x00",
	}
	if d := cmp.Diff(want, tree(t, h.Dir)); d != "" {
		t.Error(d)
	}
	if f := read(t, h, "/etc/a.conf"); f.UID != 12 || f.GID != 34 {
		t.Errorf("owner %d:%d, want that of the old file", f.UID, f.GID)
	}

	var again Plan
	again.Write(read(t, h, "/etc/a.conf"), []byte("one\ntwo\n"), 0o600)
	again.Write(read(t, h, "/usr/libexec/x/bin"), []byte("\x7fELF\x00"), 0o755)
	if !again.Empty() {
		t.Errorf("there is nothing to change, and yet: %s", again.Diff())
	}
}

// A binary that has lost its executable bit gets it back.
func TestWriteMendsTheExecutableBit(t *testing.T) {
	h := host(t, map[string]string{"/bin/x": "program"})
	var p Plan
	p.Write(read(t, h, "/bin/x"), []byte("program"), 0o755)
	if err := p.Apply(h); err != nil {
		t.Fatal(err)
	}
	if f := read(t, h, "/bin/x"); f.Mode.Perm() != 0o755 {
		t.Errorf("mode %v", f.Mode)
	}
}

// Whatever goes wrong, nothing of the plan stays.
func TestApplyUndoes(t *testing.T) {
	for _, tc := range []struct {
		name   string
		want   error
		remedy string
		harm   func(t *testing.T, h Host)
	}{
		{"changed meanwhile", ErrChanged, "run it again", func(t *testing.T, h Host) {
			if err := os.WriteFile(filepath.Join(h.Dir, "etc/last"), []byte("by hand"), 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"made meanwhile", ErrChanged, "run it again", func(t *testing.T, h Host) {
			if err := os.WriteFile(filepath.Join(h.Dir, "etc/new"), []byte("by hand"), 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"read-only", unix.EROFS, "remount", func(t *testing.T, h Host) {
			tmpfs(t, filepath.Join(h.Dir, "etc/ro"), "")
			if err := unix.Mount("", filepath.Join(h.Dir, "etc/ro"), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
		}},
		{"full", unix.ENOSPC, "space", func(t *testing.T, h Host) {
			tmpfs(t, filepath.Join(h.Dir, "etc/ro"), "size=4k")
		}},
		{"a directory is in the way", ErrNotFile, "", func(t *testing.T, h Host) {
			if err := os.MkdirAll(filepath.Join(h.Dir, "etc/ro/f"), 0o755); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := host(t, map[string]string{"/etc/first": "1", "/etc/gone": "2", "/etc/last": "3", "/etc/dir/x": ""})
			var p Plan
			p.Write(read(t, h, "/etc/first"), []byte("changed"), 0)
			p.Remove(read(t, h, "/etc/gone"))
			p.Remove(read(t, h, "/etc/dir/x"))
			p.RemoveDir("/etc/dir")
			p.Write(read(t, h, "/usr/made/on/the/way"), []byte("made"), 0o600)
			p.Write(read(t, h, "/etc/ro/f"), []byte(strings.Repeat("x", 64<<10)), 0o600)
			p.Write(read(t, h, "/etc/new"), []byte("new"), 0o600)
			p.Write(read(t, h, "/etc/last"), []byte("changed"), 0)
			tc.harm(t, h)
			before := tree(t, h.Dir)
			err := p.Apply(h)
			var f *fault.Error
			if !errors.Is(err, tc.want) || !errors.As(err, &f) || !strings.Contains(f.Remedy, tc.remedy) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			after := tree(t, h.Dir)
			if d := cmp.Diff(before, after); d != "" {
				t.Error(d)
			}
		})
	}
}

func tmpfs(t testing.TB, dir, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// Symbolic links of an image lead to files of the image.
func TestHostKeepsLinksInside(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for _, path := range []string{outside, outside + "-2"} {
		if err := os.WriteFile(path, []byte("host's"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := host(t, map[string]string{
		"/etc/abs": "-> " + outside, "/etc/up": "-> ../../../../../.." + outside + "-2",
		"/etc/dir": "-> /real", "/real/f": "image's", "/etc/loop": "-> loop",
	})
	for _, path := range []string{"/etc/abs", "/etc/up"} {
		if f := read(t, h, path); !f.Missing {
			t.Errorf("%s leads out of the image", path)
		}
		var p Plan
		p.Write(read(t, h, path), []byte("new"), 0o600)
		if err := p.Apply(h); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{outside, outside + "-2"} {
		if data, err := os.ReadFile(path); err != nil || string(data) != "host's" {
			t.Errorf("the file outside: %q, %v", data, err)
		}
	}
	if f := read(t, h, "/etc/dir/f"); string(f.Data) != "image's" {
		t.Errorf("/etc/dir/f: %+v", f)
	}
	// Written through a link, the link stays.
	var p Plan
	p.Write(read(t, h, "/etc/dir/f"), []byte("new"), 0)
	if err := p.Apply(h); err != nil {
		t.Fatal(err)
	}
	if f := read(t, h, "/real/f"); string(f.Data) != "new" {
		t.Errorf("/real/f: %+v", f)
	}
	if to, err := os.Readlink(filepath.Join(h.Dir, "etc/dir")); err != nil || to != "/real" {
		t.Errorf("the link is now %q, %v", to, err)
	}
	if _, err := h.Read("/etc/loop"); err == nil {
		t.Error("a loop of links was read")
	}
	if _, err := h.Read("etc/relative"); err == nil {
		t.Error("a relative path was read")
	}
}

// Opening a FIFO must not wait for a writer, nor may a device be read.
func TestReadRegularFilesOnly(t *testing.T) {
	h := host(t, map[string]string{"/etc/x": ""})
	if err := unix.Mkfifo(filepath.Join(h.Dir, "etc/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/etc/fifo", "/etc"} {
		if _, err := h.Read(path); !errors.Is(err, ErrNotFile) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if f := read(t, h, "/etc/x/below-a-file"); !f.Missing {
		t.Error("a file below a file")
	}
}

func TestLock(t *testing.T) {
	h := host(t, map[string]string{"/etc/x": ""})
	before := tree(t, h.Dir)
	unlock, err := h.Lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second lock: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		unlock, err := h.Lock(context.Background())
		if err == nil {
			unlock()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(before, tree(t, h.Dir)); d != "" {
		t.Errorf("the lock left something: %s", d)
	}
	if _, err := (Host{Dir: t.TempDir()}).Lock(context.Background()); err == nil || !strings.Contains(err.Error(), "--root") {
		t.Errorf("no /etc: %v", err)
	}
}

// What an installer that was killed has left goes with the next change.
func TestApplySweepsTemporaryFiles(t *testing.T) {
	h := host(t, map[string]string{"/etc/.linkpin-123.tmp": "half", "/etc/.linkpin-keep": "", "/etc/a": "1"})
	var p Plan
	p.Write(read(t, h, "/etc/a"), []byte("2"), 0)
	if err := p.Apply(h); err != nil {
		t.Fatal(err)
	}
	names, err := h.ReadDir("/etc")
	if d := cmp.Diff([]string{".linkpin-keep", "a"}, names); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
}

func TestDiff(t *testing.T) {
	h := host(t, map[string]string{"/etc/a": "1\n2\n", "/etc/b": "gone\n", "/bin/x": "\x00", "/etc/d/f": "x"})
	var p Plan
	p.Write(read(t, h, "/bin/x"), []byte("\x00\x01"), 0o755)
	p.Write(read(t, h, "/etc/a"), []byte("1\n3\n"), 0)
	p.Write(read(t, h, "/etc/new"), []byte("n\n"), 0)
	p.Remove(read(t, h, "/etc/b"))
	p.RemoveDir("/etc/d")
	p.Note("restart it")
	p.Note("restart it")
	want := `binary /bin/x → /bin/x (1 → 2 bytes)
--- /etc/a
+++ /etc/a
@@ -1,2 +1,2 @@
 1
-2
+3
--- /dev/null
+++ /etc/new
@@ -0,0 +1,1 @@
+n
--- /etc/b
+++ /dev/null
@@ -1,1 +0,0 @@
-gone
directory /etc/d goes if it is empty
# restart it
`
	if d := cmp.Diff(want, p.Diff()); d != "" {
		t.Error(d)
	}
}

// No runtime may see half a file: what is read as a directory of fragments is never
// written in.
func TestTemporaryFilesStandOutside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "crio.conf.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := temporaryDir(dir, 0o644); got != filepath.Dir(dir) {
		t.Errorf("temporary files are in %s", got)
	}
	tmpfs(t, dir, "")
	if got := temporaryDir(dir, 0o644); got != dir {
		t.Errorf("from %s nothing can be renamed to %s", got, dir)
	}
	h := host(t, map[string]string{"/etc/x.d/a": "1", "/etc/.linkpin-1.tmp": "half"})
	var p Plan
	p.Write(read(t, h, "/etc/x.d/a"), []byte("2"), 0)
	if err := p.Apply(h); err != nil {
		t.Fatal(err)
	}
	if names, err := h.ReadDir("/etc"); err != nil || len(names) != 1 {
		t.Errorf("in /etc: %v, %v", names, err)
	}
}
