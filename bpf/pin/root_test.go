// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs/fault"
)

// wantFault checks that err is one that a user can act on.
func wantFault(t *testing.T, err, want error, parts ...string) {
	t.Helper()
	wantError(t, err, want)
	var f *fault.Error
	if !errors.As(err, &f) || f.Remedy == "" || fault.ExitCode(err) != fault.ExitUnavailable || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v is not a fault with a remedy and exit code %d", err, fault.ExitUnavailable)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not name %q", err, part)
		}
	}
}

func TestCreateThenOpen(t *testing.T) {
	dir := bpftest.TempBPFFS(t)
	_, err := Open(Options{Path: dir})
	wantFault(t, err, ErrNoState, filepath.Join(dir, "linkpin"))
	if _, err := os.Lstat(filepath.Join(dir, "linkpin")); err == nil {
		t.Error("Open made something")
	}
	r := createAt(t, dir)
	if want := filepath.Join(dir, "linkpin/v1"); r.Path() != want {
		t.Errorf("path %q, want %q", r.Path(), want)
	}
	for _, sub := range append([]Dir{".."}, append(allDirs, ".")...) {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(r.Path(), string(sub)), &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode != unix.S_IFDIR|0o700 || st.Uid != 0 {
			t.Errorf("%s: mode %o, uid %d", sub, st.Mode, st.Uid)
		}
	}
	again, err := Open(Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	createAt(t, dir)
}

func TestOpenToleratesStrangersBeside(t *testing.T) {
	dir := bpftest.TempBPFFS(t)
	asNobody(t, dir, "mkdir", "-m", "777", "others")
	r := createAt(t, dir)
	if err := os.Mkdir(filepath.Join(r.Path(), "../v2"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(r.Path(), "later"), 0o755); err != nil {
		t.Fatal(err)
	}
	createAt(t, dir)
}

func TestNotABPFFS(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, file, filepath.Join(dir, "missing")} {
		for _, open := range []func(Options) (*Root, error){Open, Create} {
			_, err := open(Options{Path: path})
			wantFault(t, err, ErrNoBPFFS, path, "mount -t bpf bpf "+path)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("something was made: %v", entries)
	}
}

func TestReadOnlyBPFFS(t *testing.T) {
	dir := bpftest.TempBPFFS(t)
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	_, err := Create(Options{Path: dir})
	wantFault(t, err, ErrReadOnly, dir)
	remount(0)
	createAt(t, dir)
	remount(unix.MS_RDONLY)
	_, err = Create(Options{Path: dir})
	wantFault(t, err, ErrReadOnly, dir)
	r, err := Open(Options{Path: dir})
	if err != nil {
		t.Fatalf("reading a read-only bpffs: %v", err)
	}
	defer r.Close()
	_, err = r.Stage()
	wantError(t, err, unix.EROFS)
	_, err = r.Lock(t.Context(), childOwner)
	wantError(t, err, unix.EROFS)
}

// asNobody runs a command as somebody without rights, inside dir.
func asNobody(t *testing.T, dir string, args ...string) {
	t.Helper()
	// t.TempDir is private to root.
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v as nobody: %v: %s", args, err, out)
	}
}

func TestHostileDirectories(t *testing.T) {
	const nobody = "uid 65534"
	sh := func(script string) []string { return []string{"sh", "-c", script} }
	root := func(t *testing.T, dir, script string) {
		t.Helper()
		cmd := exec.Command("sh", "-c", script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for name, tt := range map[string]struct {
		nobody string // what somebody without rights does in the fresh bpffs
		root   string // what root does after that
		object string
		parts  []string
	}{
		"directory":           {nobody: "mkdir -m 755 linkpin", object: "linkpin", parts: []string{nobody, "0755"}},
		"same mode":           {nobody: "mkdir -m 700 linkpin", object: "linkpin", parts: []string{nobody, "0700"}},
		"no mode at all":      {nobody: "mkdir -m 0 linkpin", object: "linkpin", parts: []string{nobody, "0000"}},
		"v1 in their own":     {nobody: "mkdir -m 777 linkpin; mkdir -m 700 linkpin/v1", object: "linkpin", parts: []string{nobody}},
		"root's v1 in theirs": {nobody: "mkdir -m 777 linkpin", root: "mkdir -m 700 linkpin/v1", object: "linkpin", parts: []string{nobody}},
		"dangling symlink":    {nobody: "ln -s nowhere linkpin", object: "linkpin", parts: []string{"symbolic link", nobody}},
		"symlink to theirs":   {nobody: "mkdir -m 700 x; ln -s x linkpin", object: "linkpin", parts: []string{"symbolic link", nobody}},
		"symlink to root's":   {root: "mkdir -m 700 x", nobody: "ln -s x linkpin", object: "linkpin", parts: []string{"symbolic link", nobody}},
		"root's symlink":      {root: "mkdir -m 700 x; ln -s x linkpin", object: "linkpin", parts: []string{"symbolic link", "uid 0"}},
		"root's, group reads": {root: "mkdir -m 750 linkpin", object: "linkpin", parts: []string{"uid 0", "0750"}},
		"root's, sticky":      {root: "mkdir -m 1700 linkpin", object: "linkpin", parts: []string{"uid 0", "1700"}},
		"given away":          {root: "mkdir -m 700 linkpin; chown 65534 linkpin", object: "linkpin", parts: []string{nobody, "0700"}},
		"v1 open to all":      {root: "mkdir -m 700 linkpin; mkdir -m 777 linkpin/v1", object: "linkpin/v1", parts: []string{"0777"}},
		"v1 given away":       {root: "mkdir -m 700 linkpin linkpin/v1; chown 65534 linkpin/v1", object: "linkpin/v1", parts: []string{nobody}},
		"v1 a symlink":        {root: "mkdir -m 700 linkpin linkpin/x; ln -s x linkpin/v1", object: "linkpin/v1", parts: []string{"symbolic link"}},
		"another bpffs on it": {root: "mkdir -m 700 linkpin; mount -t bpf -o mode=700 bpf linkpin", object: "linkpin", parts: []string{"mounted over it"}},
		"tmpfs on v1":         {root: "mkdir -m 700 linkpin linkpin/v1; mount -t tmpfs -o mode=700 t linkpin/v1", object: "linkpin/v1", parts: []string{"mounted over it"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := bpftest.TempBPFFS(t)
			if strings.HasPrefix(tt.nobody, "ln -s x") {
				root(t, dir, tt.root)
				asNobody(t, dir, sh(tt.nobody)...)
			} else {
				if tt.nobody != "" {
					asNobody(t, dir, sh(tt.nobody)...)
				}
				if tt.root != "" {
					root(t, dir, tt.root)
				}
			}
			before := listing(t, dir)
			for _, open := range []func(Options) (*Root, error){Open, Create} {
				_, err := open(Options{Path: dir})
				wantFault(t, err, ErrForeign, append(tt.parts, filepath.Join(dir, tt.object)+":")...)
			}
			if after := listing(t, dir); after != before {
				t.Errorf("changed from\n%s\nto\n%s", before, after)
			}
		})
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("ls", "-lRA", "--time-style=+", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// A mount that lets others rename what is root's is no place for state.
func TestHostileMount(t *testing.T) {
	dir := bpftest.TempBPFFS(t)
	createAt(t, dir)
	for _, tt := range []struct {
		mode os.FileMode
		uid  int
		ok   bool
	}{
		{0o777, 0, false}, {0o770, 0, false}, {0o777 | os.ModeSticky, 0, true}, {0o755, 0, true}, {0o700, 0, true},
		{0o700, 65534, false}, {0o777 | os.ModeSticky, 65534, false},
	} {
		if err := errors.Join(os.Chown(dir, tt.uid, -1), os.Chmod(dir, tt.mode)); err != nil {
			t.Fatal(err)
		}
		r, err := Open(Options{Path: dir})
		if tt.ok != (err == nil) {
			t.Errorf("mount with mode %v of uid %d: %v", tt.mode, tt.uid, err)
		}
		if err == nil {
			r.Close()
		}
	}
}

func TestUmaskThatStripsOwner(t *testing.T) {
	dir := bpftest.TempBPFFS(t)
	out, err := childCommand(t, "umask", dir).Output()
	if err != nil || !strings.Contains(string(out), "umask") || !strings.Contains(string(out), "true") {
		t.Errorf("Create under umask 0277: %s, %v", out, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "linkpin")); err == nil {
		t.Error("something was left behind")
	}
}

func TestProcOfSomebodyElse(t *testing.T) {
	dir := bpftest.TempBPFFS(t)
	_, err := Create(Options{Path: dir, Proc: t.TempDir()})
	var f *fault.Error
	if !errors.As(err, &f) || !strings.Contains(err.Error(), "procfs") {
		t.Errorf("without procfs: %v", err)
	}
}

// Sixteen processes find an empty bpffs at the same time.
func TestCreateAtOnce(t *testing.T) {
	dir := bpftest.TempBPFFS(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var all []*exec.Cmd
	for range 16 {
		cmd := childCommand(t, "create", dir)
		cmd.Stdin = read
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
	}
	read.Close()
	write.Close()
	for _, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// Somebody is faster, between the look and the mkdir.
func TestCreateLosesTheRace(t *testing.T) {
	dir := bpftest.TempBPFFS(t)
	createAt(t, dir)
	asNobody(t, dir, "mkdir", "-m", "700", "theirs")
	at, err := openMount(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(t, at)
	fd, err := makeDir(at, "linkpin", filepath.Join(dir, "linkpin"))
	if err != nil {
		t.Fatalf("to another linkpin: %v", err)
	}
	closeFD(t, fd)
	_, err = makeDir(at, "theirs", filepath.Join(dir, "theirs"))
	wantFault(t, err, ErrForeign)
	if _, err := os.Lstat(filepath.Join(dir, "theirs")); err != nil {
		t.Errorf("the directory of somebody else was removed: %v", err)
	}
}

func TestDescriptorsAreCloseOnExec(t *testing.T) {
	r := newRoot(t)
	l, s := lock(t, r, childOwner), stage(t, r, "p")
	for _, fd := range []int{r.fd, l.fd, s.fd} {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d: flags %#x, %v", fd, flags, err)
		}
	}
}
