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

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

func TestTrusted(t *testing.T) {
	files := map[string]string{
		"/opt/dir/hook": "program", "/tmp/x/hook": "program",
		"/usr/link": "-> /opt/dir", "/usr/up": "-> ../tmp/x/hook", "/usr/loop": "-> loop",
	}
	for _, tc := range []struct {
		name   string
		path   string
		harmed string // "" for none
		uid    int
		mode   fs.FileMode
		want   string // part of the error, "" if root's alone
	}{
		{"root's", "/opt/dir/hook", "", 0, 0, ""},
		{"not there", "/opt/dir/none/hook", "", 0, 0, ""},
		{"file of another", "/opt/dir/hook", "/opt/dir/hook", 1000, 0o755, "/opt/dir/hook belongs to uid 1000"},
		{"file for all", "/opt/dir/hook", "/opt/dir/hook", 0, 0o777, "/opt/dir/hook has mode 0777"},
		{"file for the group", "/opt/dir/hook", "/opt/dir/hook", 0, 0o775, "has mode 0775"},
		{"directory of another", "/opt/dir/hook", "/opt/dir", 1000, 0o755, "/opt/dir belongs to uid 1000"},
		{"directory above for all", "/opt/dir/hook", "/opt", 0, 0o777, "/opt has mode 0777"},
		{"sticky", "/tmp/x/hook", "/tmp", 0, fs.ModeSticky | 0o777, ""},
		{"sticky, of another", "/tmp/x/hook", "/tmp", 1000, fs.ModeSticky | 0o777, "/tmp belongs to uid 1000"},
		{"sticky file", "/tmp/x/hook", "/tmp/x/hook", 0, fs.ModeSticky | 0o777, "/tmp/x/hook has mode 1777"},
		{"not there, in another's", "/opt/dir/none", "/opt/dir", 1000, 0o755, "/opt/dir belongs"},
		{"through a link", "/usr/link/hook", "/opt/dir", 1000, 0o755, "/opt/dir belongs"},
		{"through a relative link", "/usr/up", "/tmp/x", 0, 0o777, "/tmp/x has mode"},
		{"beside the link", "/usr/up", "/opt", 0, 0o777, ""},
		{"loop", "/usr/loop/hook", "", 0, 0, "too many levels"},
		{"relative", "opt/hook", "", 0, 0, "not an absolute path"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := host(t, files)
			if tc.harmed != "" {
				real := filepath.Join(h.Dir, tc.harmed)
				if err := errors.Join(os.Chown(real, tc.uid, 0), os.Chmod(real, tc.mode)); err != nil {
					t.Fatal(err)
				}
			}
			err := h.Trusted(tc.path)
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || !strings.Contains(err.Error(), tc.want) || f.Object != tc.path || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if tc.harmed != "" && !errors.Is(err, ErrUntrusted) {
				t.Errorf("%v is not ErrUntrusted", err)
			}
		})
	}
	h := host(t, files)
	if err := os.Lchown(filepath.Join(h.Dir, "usr/link"), 1000, 0); err != nil {
		t.Fatal(err)
	}
	if err := h.Trusted("/usr/link/hook"); err == nil || !strings.Contains(err.Error(), "/usr/link belongs to uid 1000") {
		t.Errorf("a link of another: %v", err)
	}
}

// Nobody but root can keep installers waiting.
func TestLockIsRoots(t *testing.T) {
	h := host(t, map[string]string{"/etc/x": ""})
	etc, err := os.Open(filepath.Join(h.Dir, "etc")) // as any user can
	if err != nil {
		t.Fatal(err)
	}
	defer etc.Close()
	if err := unix.Flock(int(etc.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	path, err := h.lockPath()
	if err != nil || !strings.HasPrefix(path, "/run/linkpin-install-") {
		t.Fatalf("%s, %v", path, err)
	}
	unlock, err := h.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	unlock()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock stays: %v", err)
	}
	// The same host by another path is the same host.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(h.Dir, link); err != nil {
		t.Fatal(err)
	}
	if other, err := (Host{Dir: link}).lockPath(); err != nil || other != path {
		t.Errorf("%s is not %s, %v", other, path, err)
	}

	defer os.Remove(path)
	for name, make := range map[string]func() error{
		"link":       func() error { return errors.Join(os.WriteFile(link+"-2", nil, 0o600), os.Symlink(link+"-2", path)) },
		"another's":  func() error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, 1000, 0)) },
		"for all":    func() error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o644)) },
		"no file":    func() error { return unix.Mkfifo(path, 0o600) },
		"directory!": func() error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := make(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			unlock, err := h.Lock(ctx)
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || f.Object != path || f.Remedy != "remove it" {
				t.Errorf("%v", err)
			}
			if err == nil {
				unlock()
			}
			os.Remove(path)
		})
	}
}
