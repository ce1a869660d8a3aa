// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs/fault"
)

// subCgroup makes a cgroup below one that the end of the test removes.
func subCgroup(t *testing.T, elem ...string) string {
	t.Helper()
	dir := filepath.Join(elem...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// name is the path of a cgroup as /proc/PID/cgroup shows it.
func name(t *testing.T, dir string) string {
	t.Helper()
	return strings.TrimPrefix(dir, bpftest.Cgroup2Mount(t))
}

func wantCgroup(t *testing.T, r Roots, pid int, dir string) {
	t.Helper()
	c, err := CgroupOfPID(r, pid)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	if c.Path != dir || c.ID != bpftest.CgroupID(t, dir) {
		t.Errorf("cgroup %s with id %d, want %s with %d", c.Path, c.ID, dir, bpftest.CgroupID(t, dir))
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(c.Dir.Fd()), &st); err != nil || st.Ino != c.ID {
		t.Errorf("descriptor of inode %d (%v), want %d", st.Ino, err, c.ID)
	}
}

func wantNoCgroup(t *testing.T, r Roots, pid int, want error) {
	t.Helper()
	c, err := CgroupOfPID(r, pid)
	if err == nil {
		c.Close()
		t.Errorf("found %s, want: %v", c.Path, want)
		return
	}
	var f *fault.Error
	if !errors.Is(err, want) || !errors.As(err, &f) {
		t.Errorf("%v, want a fault: %v", err, want)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
}

func TestCgroupOfPID(t *testing.T) {
	dir := bpftest.Cgroup(t)
	p := bpftest.CgroupProcess(t, dir)
	deep := subCgroup(t, dir, "a b", "c (deleted)")
	q := bpftest.CgroupProcess(t, deep)
	noLeaks(t)
	wantCgroup(t, Roots{}, p.Pid, dir)
	wantCgroup(t, Roots{}, q.Pid, deep)
}

func TestCgroupOfWrongPID(t *testing.T) {
	dir := bpftest.Cgroup(t)
	noLeaks(t)
	wantNoCgroup(t, Roots{}, 0, ErrInvalidPID)
	wantNoCgroup(t, Roots{}, -7, ErrInvalidPID)
	wantNoCgroup(t, Roots{}, 1, ErrForbidden)
	wantNoCgroup(t, Roots{}, 1<<30, ErrGone)
	wantNoCgroup(t, Roots{}, os.Getpid(), ErrForbidden)

	// Pid 1 wherever it is.
	proc := newFakeProc(t)
	proc.link("1/stat")
	proc.write("1/cgroup", "0::"+name(t, dir)+"\n")
	wantNoCgroup(t, proc.roots(), 1, ErrForbidden)
}

func TestCgroupOfProcessInRoot(t *testing.T) {
	dir := bpftest.Cgroup(t)
	p := bpftest.CgroupProcess(t, dir)
	root := bpftest.Cgroup2Mount(t)
	if err := os.WriteFile(root+"/cgroup.procs", []byte(strconv.Itoa(p.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	noLeaks(t)
	wantNoCgroup(t, Roots{}, p.Pid, ErrForbidden)
	if _, err := CgroupOfPID(Roots{}, p.Pid); err == nil || !strings.Contains(err.Error(), "is in the root cgroup, which must not") {
		t.Errorf("%v, want the root cgroup named", err)
	}

	// Under another name, as a reader in a cgroup namespace would see it: then only
	// the files in it tell.
	proc := newFakeProc(t)
	proc.process(p.Pid)
	proc.write(fmt.Sprintf("%d/cgroup", p.Pid), "0::/x\n")
	proc.write("self/cgroup", "0::/y\n")
	proc.write("self/mountinfo", mountLine("/x", root))
	wantNoCgroup(t, proc.roots(), p.Pid, ErrForbidden)
}

func mountLine(root, point string) string {
	return fmt.Sprintf("41 31 0:38 %s %s rw,relatime shared:1 - cgroup2 cgroup2 rw\n", root, point)
}

func TestCgroupOfOurselves(t *testing.T) {
	dir := bpftest.Cgroup(t)
	p := bpftest.CgroupProcess(t, dir)
	noLeaks(t)
	proc := newFakeProc(t)
	proc.process(p.Pid)
	for _, c := range []struct {
		own       string
		forbidden bool
	}{
		{name(t, dir), true},
		{name(t, dir) + "/below/deeper", true},
		{name(t, dir) + "x", false},
		{"/", false},
	} {
		proc.write("self/cgroup", "1:cpu:/\n0::"+c.own+"\n")
		if c.forbidden {
			wantNoCgroup(t, proc.roots(), p.Pid, ErrForbidden)
		} else {
			wantCgroup(t, proc.roots(), p.Pid, dir)
		}
	}
}

func TestCgroupDoesNotHoldThePID(t *testing.T) {
	dir, other := bpftest.Cgroup(t), bpftest.Cgroup(t)
	p := bpftest.CgroupProcess(t, dir)
	noLeaks(t)
	proc := newFakeProc(t)
	proc.process(p.Pid)
	proc.write(fmt.Sprintf("%d/cgroup", p.Pid), "0::"+name(t, other)+"\n")
	wantNoCgroup(t, proc.roots(), p.Pid, ErrMismatch)
}

func TestCgroupOfRecycledPID(t *testing.T) {
	dir := bpftest.Cgroup(t)
	p := bpftest.CgroupProcess(t, dir)
	noLeaks(t)
	proc := newFakeProc(t)
	proc.process(p.Pid)
	proc.pipe(fmt.Sprintf("%d/stat", p.Pid), statLine(p.Pid, "old", 'S', 100), statLine(p.Pid, "new", 'S', 200))
	wantNoCgroup(t, proc.roots(), p.Pid, ErrGone)
}

func TestCgroupOfProcessThatEndsMeanwhile(t *testing.T) {
	noLeaks(t)
	proc := newFakeProc(t)
	proc.pipe("77/stat", statLine(77, "old", 'S', 100), statLine(77, "old", 'Z', 100))
	proc.write("77/cgroup", "0::/gone (deleted)\n")
	wantNoCgroup(t, proc.roots(), 77, ErrGone)
}

func TestCgroupOfZombieInRemovedCgroup(t *testing.T) {
	dir := bpftest.Cgroup(t)
	cmd := bpftest.Command(t, dir, "true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	bpftest.Eventually(t, "removing the cgroup", func() error { return unix.Rmdir(dir) })
	noLeaks(t)
	wantNoCgroup(t, Roots{}, cmd.Process.Pid, ErrGone)
}

func TestCgroupV1Only(t *testing.T) {
	dir := bpftest.Cgroup(t)
	p := bpftest.CgroupProcess(t, dir)
	noLeaks(t)
	check := func(what string, proc *fakeProc) {
		t.Helper()
		_, err := CgroupOfPID(proc.roots(), p.Pid)
		var f *fault.Error
		if !errors.Is(err, ErrNoCgroup2) || !errors.As(err, &f) || f.Remedy == "" || fault.ExitCode(err) != fault.ExitUnavailable {
			t.Errorf("%s: %v, exit code %d", what, err, fault.ExitCode(err))
		}
	}
	proc := newFakeProc(t)
	proc.process(p.Pid)
	proc.write(fmt.Sprintf("%d/cgroup", p.Pid), "9:name=systemd:/x\n4:memory:/x\n")
	check("no 0:: line", proc)

	proc = newFakeProc(t)
	proc.process(p.Pid)
	proc.write("self/mountinfo", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n")
	check("no mount", proc)

	proc.write("self/mountinfo", mountLine("/elsewhere", "/nowhere"))
	check("mount of another part", proc)
}

func TestCgroupThroughOtherMounts(t *testing.T) {
	dir := bpftest.Cgroup(t)
	in := subCgroup(t, dir, "in")
	p := bpftest.CgroupProcess(t, in)
	bind := filepath.Join(t.TempDir(), "a b")
	if err := os.Mkdir(bind, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dir, bind, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(bind, unix.MNT_DETACH) })
	hidden := t.TempDir() // something else lies over the mount
	if err := os.MkdirAll(hidden+name(t, in), 0o700); err != nil {
		t.Fatal(err)
	}
	noLeaks(t)

	proc := newFakeProc(t)
	proc.process(p.Pid)
	proc.write("self/mountinfo",
		"1 1 0:1 / / rw - ext4 /dev/x rw\n"+
			mountLine("/", hidden)+
			mountLine("/other", bpftest.Cgroup2Mount(t))+
			mountLine(name(t, dir), strings.ReplaceAll(bind, " ", `\040`)))
	wantCgroup(t, proc.roots(), p.Pid, filepath.Join(bind, "in"))

	proc.write("self/mountinfo", mountLine("/", hidden))
	wantNoCgroup(t, proc.roots(), p.Pid, ErrMismatch)
}

func TestCgroupThreaded(t *testing.T) {
	dir := bpftest.Cgroup(t)
	p := bpftest.CgroupProcess(t, dir)
	child := subCgroup(t, dir, "threaded")
	if err := os.WriteFile(child+"/cgroup.type", []byte("threaded"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(child+"/cgroup.procs", []byte(strconv.Itoa(p.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	noLeaks(t)
	wantCgroup(t, Roots{}, p.Pid, child)
}

func TestCgroupOfCrunUnderSystemd(t *testing.T) {
	dir := bpftest.Cgroup(t)
	noLeaks(t)
	for _, c := range []struct{ leaf, want string }{
		{"libpod-1.scope/container", "libpod-1.scope"},
		{"crun-1.scope/container/init.scope", "crun-1.scope/container/init.scope"},
		{"crun-2.scope/contained", "crun-2.scope/contained"},
		{"session-3.scope/container", "session-3.scope/container"},
		{"init.scope/container", "init.scope/container"},
		{".scope/container", ".scope/container"},
		{"x.slice/container", "x.slice/container"},
		{"y.scope", "y.scope"},
	} {
		p := bpftest.CgroupProcess(t, subCgroup(t, dir, c.leaf))
		wantCgroup(t, Roots{}, p.Pid, filepath.Join(dir, c.want))
	}

	// Our own cgroup in the same scope: then only the leaf is the container's.
	leaf := subCgroup(t, dir, "mine.scope", "container")
	p := bpftest.CgroupProcess(t, leaf)
	proc := newFakeProc(t)
	proc.process(p.Pid)
	proc.write("self/cgroup", "0::"+name(t, dir)+"/mine.scope/us\n")
	wantCgroup(t, proc.roots(), p.Pid, leaf)
}

func TestCgroupFileIsBounded(t *testing.T) {
	noLeaks(t)
	proc := newFakeProc(t)
	proc.write("77/stat", statLine(77, "x", 'S', 1))
	proc.write("77/cgroup", strings.Repeat("1:cpu:/"+strings.Repeat("x", 4000)+"\n", 40)+"0::/x\n")
	if _, err := CgroupOfPID(proc.roots(), 77); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("%v, want a refusal", err)
	}
	proc.write("77/cgroup", "0::x\n")
	if _, err := CgroupOfPID(proc.roots(), 77); err == nil || !strings.Contains(err.Error(), "understood") {
		t.Errorf("%v, want a refusal", err)
	}
}

func TestOpenCgroup(t *testing.T) {
	dir := bpftest.Cgroup(t)
	id := bpftest.CgroupID(t, dir)
	noLeaks(t)
	c, err := OpenCgroup(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()

	symlink := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, symlink); err != nil {
		t.Fatal(err)
	}
	root := bpftest.Cgroup2Mount(t)
	for _, bad := range []struct {
		path string
		id   uint64
		want error
	}{
		{dir, id + 1, ErrGone},
		{dir + "-gone", id, ErrGone},
		{t.TempDir(), id, ErrMismatch},
		{symlink, id, unix.ENOTDIR},
		{root, bpftest.CgroupID(t, root), ErrForbidden},
	} {
		c, err := OpenCgroup(bad.path, bad.id)
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, bad.want) {
			t.Errorf("%s with id %d: %v, want: %v", bad.path, bad.id, err, bad.want)
		}
	}
	t.Chdir(root)
	if c, err := OpenCgroup(filepath.Base(dir), id); err == nil {
		c.Close()
		t.Error("a relative path was opened")
	}
}

func TestPopulated(t *testing.T) {
	dir := bpftest.Cgroup(t)
	noLeaks(t)
	c, err := OpenCgroup(dir, bpftest.CgroupID(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if populated, err := c.Populated(); populated || err != nil {
		t.Errorf("empty: populated %v, %v", populated, err)
	}
	cmd := bpftest.Command(t, subCgroup(t, dir, "child"), "sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if populated, err := c.Populated(); !populated || err != nil {
		t.Errorf("process in a child: populated %v, %v", populated, err)
	}
	_ = cmd.Process.Kill()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Fatal(err)
	}
	bpftest.Eventually(t, "removal", func() error {
		_ = unix.Rmdir(dir + "/child")
		return unix.Rmdir(dir)
	})
	if _, err := c.Populated(); !errors.Is(err, ErrGone) {
		t.Errorf("removed: %v, want ErrGone", err)
	}
}
