// SPDX-License-Identifier: Apache-2.0

package trusted

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestOpenDir(t *testing.T) {
	base := t.TempDir()
	at := func(name string) string { return filepath.Join(base, name) }
	must(t,
		os.MkdirAll(at("a/b/c"), 0o755),
		os.MkdirAll(at("users/b"), 0o755), os.Chown(at("users"), 1, 1),
		os.MkdirAll(at("shared/b"), 0o755), os.Chmod(at("shared"), 0o777),
		os.MkdirAll(at("sticky/b"), 0o755), os.Chmod(at("sticky"), 0o777|fs.ModeSticky),
		os.Mkdir(at("sticky/users"), 0o755), os.Chown(at("sticky/users"), 1, 1),
		os.Symlink("a", at("link")),
		os.Symlink(at("a"), at("absolute")),
		os.Symlink("a", at("others")), os.Lchown(at("others"), 1, 1),
		os.Symlink("users", at("tousers")),
		os.Symlink("loop", at("loop")),
		os.WriteFile(at("file"), nil, 0o600),
	)
	for path, want := range map[string]string{
		"a/b/c":          "",
		"a//b/../b/c/":   "",
		"link/b":         "", // root's own link above the directory
		"absolute/b/c":   "",
		"sticky/b":       "",
		"users/b":        "owned by uid 1",
		"users":          "owned by uid 1",
		"shared/b":       "writable by others",
		"sticky":         "writable by others",
		"sticky/users":   "owned by uid 1",
		"link":           "is a symbolic link",
		"others/b":       "symbolic link of uid 1",
		"tousers/b":      "owned by uid 1",
		"loop/b":         "too many levels",
		"file":           "is not a directory",
		"file/b":         "not a directory",
		"nothing":        "no such file",
		"nothing/at/all": "no such file",
	} {
		f, err := OpenDir(at(path))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", path, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: error %v, want %q", path, err, want)
		case err == nil:
			f.Close()
		}
	}
	for _, path := range []string{"", "a", "./a"} {
		if _, err := OpenDir(path); err == nil {
			t.Errorf("%q: no error", path)
		}
	}
	if f, err := OpenDir("/"); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
}

func TestReadFileAt(t *testing.T) {
	base := t.TempDir()
	at := func(name string) string { return filepath.Join(base, name) }
	must(t,
		os.WriteFile(at("good"), []byte("12345"), 0o644),
		os.WriteFile(at("others"), []byte("12345"), 0o600), os.Chown(at("others"), 1, 0),
		os.WriteFile(at("group"), []byte("12345"), 0o600), os.Chmod(at("group"), 0o620),
		os.Symlink("good", at("link")),
		unix.Mkfifo(at("fifo"), 0o600),
		os.Mkdir(at("dir"), 0o700),
	)
	dir, err := OpenDir(base)
	must(t, err)
	defer dir.Close()
	for name, want := range map[string]string{
		"good":      "",
		"others":    "owned by uid 1",
		"group":     "writable by others (mode 0620)",
		"link":      "is a symbolic link",
		"fifo":      "is not a regular file",
		"dir":       "is not a regular file",
		"dir/../x":  "invalid argument",
		"":          "invalid argument",
		"../" + "x": "invalid argument",
	} {
		done := make(chan struct{})
		time.AfterFunc(5*time.Second, func() {
			select {
			case <-done:
			default:
				panic("waits for " + name)
			}
		})
		data, err := ReadFileAt(dir, name, 5)
		close(done)
		switch {
		case want == "" && (err != nil || string(data) != "12345"):
			t.Errorf("%s: %q, %v", name, data, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
	if _, err := ReadFileAt(dir, "good", 4); !errors.Is(err, ErrTooBig) {
		t.Errorf("5 bytes with a limit of 4: %v", err)
	}
	if _, err := ReadFileAt(dir, "link", 5); !errors.Is(err, ErrUntrusted) {
		t.Errorf("link: %v", err)
	}
}
