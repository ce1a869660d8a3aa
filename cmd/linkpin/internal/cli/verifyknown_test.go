// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
)

// What an earlier run has written is read again; what somebody else could have written
// is not.
func TestKnownFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known.json")
	if _, err := readKnown(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	want := knownContent{Kind: knownKind, Boot: "boot", State: "/sys/fs/bpf", Time: time.Unix(1, 0).UTC(),
		Entries: []entry.Known{{Path: "containers/a/b", Record: pin.Record{Policy: "b", PID: 7}}}}
	if err := os.WriteFile(path, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeKnown(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := readKnown(path)
	if err != nil || got.Boot != "boot" || len(got.Entries) != 1 || got.Entries[0].Path != "containers/a/b" || got.Entries[0].Record.PID != 7 {
		t.Errorf("%+v, %v", got, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	for name, spoil := range map[string]func() error{
		"writable for others": func() error { return os.Chmod(path, 0o620) },
		"of another user":     func() error { return os.Chown(path, 1234, 0) },
		"another file":        func() error { return os.WriteFile(path, []byte(`{"kind": "x"}`), 0) },
		"cut off":             func() error { return os.Truncate(path, 20) },
		"empty":               func() error { return os.Truncate(path, 0) },
		"too long":            func() error { return os.Truncate(path, maxKnown+1) },
		"a link":              func() error { return errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path)) },
		"a FIFO":              func() error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) },
		"a directory":         func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.RemoveAll(path), writeKnown(path, want), spoil()); err != nil {
				t.Fatal(err)
			}
			if _, err := readKnown(path); !errors.Is(err, errKnown) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestWriteKnownFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "known.json")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeKnown(path, knownContent{}); err == nil {
		t.Error("a directory was replaced")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}
