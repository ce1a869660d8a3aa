// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// maxProcs bounds what is read of cgroup.procs, in bytes: more than half a million
// processes.
const maxProcs = 4 << 20

const ownCgroupRemedy = "start the container in a cgroup of its own (not with cgroups disabled, and not on a cgroup v1 hierarchy alone)"

// CgroupOfPID returns the cgroup v2 directory that holds a container's process. The
// caller must Close it.
//
// It is never the root cgroup, nor our own, nor one above ours (ErrForbidden). It
// is on cgroup2 and its cgroup.procs names the pid (ErrMismatch if not), and the
// process was the same before and after (ErrGone). Where crun with systemd has put
// the process into a sub-cgroup "container" of the container's scope, it is the
// scope, so that nothing of the container is left out.
func CgroupOfPID(r Roots, pid int) (*Cgroup, error) {
	start, err := StartTime(r, pid)
	if err != nil {
		return nil, err
	}
	if pid == 1 {
		return nil, fault.New(pidName(pid), fmt.Errorf("the cgroup of the host's init process %w", ErrForbidden), "")
	}
	cg, err := cgroupOf(r, pid)
	// Also after a failure: if the process is gone, that was the reason.
	if gone := stillThere(r, pid, start); gone != nil {
		if cg != nil {
			cg.Close()
		}
		return nil, gone
	}
	return cg, err
}

func cgroupOf(r Roots, pid int) (*Cgroup, error) {
	name, err := r.cgroupName(strconv.Itoa(pid))
	if err != nil {
		return nil, fault.New(pidName(pid), err, "")
	}
	if name == "" {
		return nil, noCgroup2(pidName(pid))
	}
	own, err := r.cgroupName("self")
	if err != nil {
		return nil, fault.New("our own cgroup", err, "")
	}
	if name == "/" {
		return nil, fault.New(pidName(pid), fmt.Errorf("is in the root cgroup, which %w", ErrForbidden), ownCgroupRemedy)
	}
	if isAncestor(name, own) {
		return nil, fault.New(pidName(pid), fmt.Errorf("is in cgroup %s, which is linkpin's own or above it and %w", name, ErrForbidden), ownCgroupRemedy)
	}

	var cg *Cgroup
	var tried error
	seen := false
	err = r.cgroup2Mounts(func(m mount) bool {
		seen = true
		c, err := openBelow(m, name, pid)
		if err != nil {
			if !errors.Is(err, errNotBelow) {
				tried = err
			}
			return false
		}
		cg = c
		if scope := crunScope(name); scope != "" && !isAncestor(scope, own) {
			cg, err = walkUp(m, c, scope)
			tried = err
		}
		return true
	})
	switch {
	case err != nil:
		err = fault.New(pidName(pid), err, "")
	case cg != nil:
		return cg, nil
	case !seen:
		err = noCgroup2(pidName(pid))
	case tried != nil:
		err = fault.New(pidName(pid), tried, "")
	default:
		err = fault.New(pidName(pid), fmt.Errorf("its cgroup %s is not below any cgroup2 mount: %w", name, ErrNoCgroup2),
			"mount cgroup2 where linkpin runs").WithExit(fault.ExitUnavailable)
	}
	return nil, err
}

func noCgroup2(object string) error {
	return fault.New(object, fmt.Errorf("%w: this host has cgroup v1 only, and its cgroups take no links", ErrNoCgroup2),
		"mount cgroup2 (boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2)").WithExit(fault.ExitUnavailable)
}

// cgroupName returns the path on the "0::" line of /proc/PID/cgroup (cgroups(7)),
// and "" if there is no such line. A dead cgroup's path ends with " (deleted)", but
// only a process that has ended can be in one, so that the text of a living
// process's path is always its name.
func (r Roots) cgroupName(pid string) (string, error) {
	data, err := readProc(r.proc(pid, "cgroup"))
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(data) {
		if name, ok := bytes.CutPrefix(line, []byte("0::")); ok {
			name = bytes.TrimSuffix(name, []byte("\n"))
			if len(name) == 0 || name[0] != '/' {
				return "", fmt.Errorf("its /proc/PID/cgroup can't be understood: %q", line)
			}
			return string(name), nil
		}
	}
	return "", nil
}

// openBelow opens cgroup name through mount m and checks that pid is in it.
func openBelow(m mount, name string, pid int) (*Cgroup, error) {
	rest, _, err := below(m.root, name)
	if err != nil {
		return nil, err
	}
	c, err := openDir(filepath.Join(m.point, rest))
	if err != nil {
		return nil, err
	}
	if err := c.checkContains(pid); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// openDir opens a cgroup v2 directory that is not the root.
func openDir(dir string) (*Cgroup, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, goneIf(err)
	}
	c := &Cgroup{Path: dir, Dir: f}
	if err := c.identify(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return c, nil
}

// identify checks the file system and reads the id. A cgroup link reports
// cgroup_id(), which is the inode number of the directory (kernel 5.5, 64 bit).
func (c *Cgroup) identify() error {
	fd := int(c.Dir.Fd())
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("%w: it is not on cgroup2", ErrMismatch)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	c.ID = st.Ino
	// Every cgroup but the root has this file (CFTYPE_NOT_ON_ROOT), also in a
	// cgroup namespace whose own root is called "/".
	if err := unix.Faccessat(fd, "cgroup.events", unix.F_OK, 0); err != nil {
		if errors.Is(err, unix.ENOENT) && isRoot(st) {
			return fmt.Errorf("the root cgroup %w", ErrForbidden)
		}
		return goneIf(os.NewSyscallError("faccessat", err))
	}
	return nil
}

// isRoot tells the root from a cgroup that was removed after it was opened: only
// the latter has no links left, and only the former has inode 1.
func isRoot(st unix.Stat_t) bool { return st.Nlink > 0 && st.Ino == 1 }

// checkContains reads cgroup.procs, or cgroup.threads where the cgroup is a threaded
// one, until it finds pid.
func (c *Cgroup) checkContains(pid int) error {
	found, err := c.lists("cgroup.procs", pid)
	if errors.Is(err, unix.EOPNOTSUPP) {
		found, err = c.lists("cgroup.threads", pid)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.Path, goneIf(err))
	}
	if !found {
		return fmt.Errorf("cgroup %s, which does not hold the process, %w", c.Path, ErrMismatch)
	}
	return nil
}

func (c *Cgroup) lists(file string, pid int) (bool, error) {
	f, err := c.open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	limited := &io.LimitedReader{R: f, N: maxProcs}
	s := bufio.NewScanner(limited)
	want := strconv.AppendInt(nil, int64(pid), 10)
	for s.Scan() {
		if bytes.Equal(s.Bytes(), want) {
			return true, nil
		}
	}
	if err := s.Err(); err != nil {
		return false, err
	}
	if limited.N <= 0 {
		return false, fmt.Errorf("%s is longer than %d bytes", file, maxProcs)
	}
	return false, nil
}

func (c *Cgroup) open(file string) (*os.File, error) {
	fd, err := unix.Openat(int(c.Dir.Fd()), file, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Join(c.Path, file), Err: err}
	}
	return os.NewFile(uintptr(fd), file), nil
}

// crunScope returns the scope above name if name is the sub-cgroup that crun makes
// under systemd ("run.oci.systemd.subgroup", default "container"), and "" if not.
// Scopes of logins and of init are nobody's container.
func crunScope(name string) string {
	scope, leaf := path.Split(name)
	scope = strings.TrimSuffix(scope, "/")
	base := path.Base(scope)
	if leaf != "container" || !strings.HasSuffix(base, ".scope") || len(base) == len(".scope") ||
		base == "init.scope" || strings.HasPrefix(base, "session-") {
		return ""
	}
	return scope
}

// walkUp replaces c by cgroup scope, its parent, if m shows it. It closes c then.
func walkUp(m mount, c *Cgroup, scope string) (*Cgroup, error) {
	rest, _, err := below(m.root, scope)
	if err != nil {
		return c, nil // m begins below the scope: c is all we can reach
	}
	defer c.Close()
	fd, err := unix.Openat(int(c.Dir.Fd()), "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, goneIf(&os.PathError{Op: "open", Path: c.Path + "/..", Err: err})
	}
	dir := filepath.Join(m.point, rest)
	up := &Cgroup{Path: dir, Dir: os.NewFile(uintptr(fd), dir)}
	if err := up.identify(); err != nil {
		up.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return up, nil
}

// OpenCgroup opens a cgroup that was recorded with its id; ErrGone if it is gone or
// if another one is at its path. The caller must Close it.
func OpenCgroup(path string, id uint64) (*Cgroup, error) {
	if !filepath.IsAbs(path) {
		return nil, fault.New("cgroup "+path, errors.New("its path is not absolute"), "").WithExit(fault.ExitInput)
	}
	c, err := openDir(path)
	if err != nil {
		return nil, fault.New("cgroup "+path, err, "")
	}
	if c.ID != id {
		c.Close()
		return nil, fault.New("cgroup "+path, fmt.Errorf("has id %d, not %d: the recorded one %w", c.ID, id, ErrGone), "")
	}
	return c, nil
}

// Populated reports whether any process is in the cgroup or below it
// (cgroup.events). ErrGone if the cgroup was removed.
func (c *Cgroup) Populated() (bool, error) {
	object := "cgroup " + c.Path
	f, err := c.open("cgroup.events")
	if err != nil {
		return false, fault.New(object, goneIf(err), "")
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return false, fault.New(object, goneIf(err), "")
	}
	for line := range strings.Lines(string(data)) {
		switch strings.TrimSpace(line) {
		case "populated 0":
			return false, nil
		case "populated 1":
			return true, nil
		}
	}
	return false, fault.Newf(object, "its cgroup.events does not say whether it is populated", "")
}

// Close closes the directory.
func (c *Cgroup) Close() error { return c.Dir.Close() }
