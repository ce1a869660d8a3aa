// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/change"
)

// A list behind a symbolic link is edited where it is; the link, permissions and owner
// stay.
func TestSymlinkedList(t *testing.T) {
	h, c := hostWith(t, map[string]string{"/srv/cni/real": bridge, "keep": ""}), &CNI{}
	real := filepath.Join(h.Dir, "srv/cni/real")
	err := errors.Join(os.Symlink("/srv/cni/real", at(h, "10.conflist")), os.Chown(real, 12, 34), os.Chmod(real, 0o640))
	if err != nil {
		t.Fatal(err)
	}
	check := func(want string) {
		t.Helper()
		data, err := os.ReadFile(real)
		if err != nil || string(data) != want {
			t.Errorf("%s, %v", data, err)
		}
		if to, err := os.Readlink(at(h, "10.conflist")); err != nil || to != "/srv/cni/real" {
			t.Errorf("link: %q, %v", to, err)
		}
		var st unix.Stat_t
		if err := unix.Stat(real, &st); err != nil || st.Uid != 12 || st.Gid != 34 || st.Mode&0o777 != 0o640 {
			t.Errorf("%d:%d %o, %v", st.Uid, st.Gid, st.Mode, err)
		}
	}
	install(t, c, h)
	check(withOurs)
	uninstall(t, c, h)
	check(bridge)
}

// mounted puts a file system on the host's network directory.
func mounted(t *testing.T, h change.Host, options string) {
	t.Helper()
	dir := at(h, ".")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mounting a tmpfs needs root (hack/ns): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// Neither a file system that is read-only nor one that is full leaves anything, for
// lists and for conversions.
func TestApplyFails(t *testing.T) {
	padded := strings.Replace(single, `"type"`, `"pad": "`+strings.Repeat("x", 6000)+`", "type"`, 1)
	for name, text := range map[string]string{"10.conflist": bridge, "10.conf": padded} {
		for _, full := range []bool{false, true} {
			h, c := hostWith(t, nil), &CNI{}
			mounted(t, h, "size=32k")
			put(t, h, name, text)
			before := map[string]string{name: text}
			if full {
				free(t, h, map[bool]int{true: 8192, false: 0}[name == "10.conf"])
				before = configs(t, h)
			} else if err := unix.Mount("", at(h, "."), "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=32k"); err != nil {
				t.Fatal(err)
			}
			p, err := c.Install(h)
			if err != nil {
				t.Fatal(err)
			}
			err = p.Apply(h)
			want := unix.EROFS
			if full {
				want = unix.ENOSPC
			}
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
			refused(t, h, before, err)
		}
	}
}

// free fills a file system up to some bytes.
func free(t *testing.T, h change.Host, left int) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(at(h, "."), &st); err != nil {
		t.Fatal(err)
	}
	put(t, h, "filler", strings.Repeat("x", int(st.Bavail)*int(st.Bsize)-left))
}

// A file that somebody changes after the plan was made is not overwritten.
func TestChangedInBetween(t *testing.T) {
	h, c := hostWith(t, map[string]string{"10.conflist": bridge}), &CNI{}
	p, err := c.Install(h)
	if err != nil {
		t.Fatal(err)
	}
	put(t, h, "10.conflist", named("new"))
	if err := p.Apply(h); !errors.Is(err, change.ErrChanged) {
		t.Errorf("error %v", err)
	}
	sameFiles(t, h, map[string]string{"10.conflist": named("new")})
}
