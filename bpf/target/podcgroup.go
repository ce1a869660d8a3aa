// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/fault"
)

// maxDepth bounds the way from a cgroup up to the root, in steps.
const maxDepth = 256

// PodCgroup opens the cgroup of a pod as a runtime names it to CNI plugins, by the
// capability cgroupPath: a path below the root of the hierarchy
// ("/kubepods/burstable/pod4711"), or a slice of systemd, with its directories or
// without ("kubepods-burstable-pod4711.slice"). The caller must Close it.
//
// It is never the root cgroup, nor our own, nor one above ours (ErrForbidden), and
// it is on cgroup2. ErrGone if there is no such cgroup. Symbolic links and ".." are
// refused.
func PodCgroup(r Roots, name string) (*Cgroup, error) {
	object := fmt.Sprintf("cgroup %.300q of the pod", name)
	dir, err := podCgroupName(name)
	if err != nil {
		return nil, fault.New(object, err, "the runtime gives it as runtimeConfig.cgroupPath").WithExit(fault.ExitInput)
	}
	own, err := r.cgroupName("self")
	if err != nil {
		return nil, fault.New("our own cgroup", err, "")
	}
	const remedy = "give each pod a cgroup of its own (cgroup_parent of its sandbox)"
	if dir == "/" {
		return nil, fault.New(object, fmt.Errorf("it is the root cgroup, which %w", ErrForbidden), remedy)
	}
	if own != "" && isAncestor(dir, own) {
		return nil, fault.New(object, fmt.Errorf("it is linkpin's own cgroup or above it and %w", ErrForbidden), remedy)
	}
	var cg *Cgroup
	var tried error
	seen := false
	err = r.cgroup2Mounts(func(m mount) bool {
		seen = true
		rest, _, err := below(m.root, dir)
		if err == nil {
			cg, err = openBeneath(m.point, rest)
		}
		if err != nil && !errors.Is(err, errNotBelow) {
			tried = err
		}
		return err == nil
	})
	switch {
	case err != nil:
		return nil, fault.New(object, err, "")
	case cg != nil:
		return cg, nil
	case !seen:
		return nil, noCgroup2(object)
	case errors.Is(tried, ErrGone):
		return nil, fault.New(object, tried, "the kubelet has to make it, on cgroup v2, before the runtime makes the pod")
	case tried != nil:
		return nil, fault.New(object, tried, "")
	}
	return nil, fault.New(object, fmt.Errorf("it is not below any cgroup2 mount: %w", ErrNoCgroup2), "mount cgroup2 where linkpin runs").WithExit(fault.ExitUnavailable)
}

// podCgroupName returns the path of a pod's cgroup below the root. Of a slice the
// name alone says where it is, whatever directories stand before it: runtimes pass
// on no more than that (containerd: getCgroupsPath, CRI-O:
// convertCgroupFsNameToSystemd).
func podCgroupName(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("its name is empty")
	case len(name) >= unix.PathMax:
		return "", fmt.Errorf("its name is longer than %d bytes", unix.PathMax)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", errors.New("its name has control characters")
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(name, "/"), "/") {
		if part == ".." || part == "." {
			return "", fmt.Errorf("its name has %q in it", part)
		}
	}
	if base := path.Base(name); strings.HasSuffix(base, sliceSuffix) {
		return expandSlice(base)
	}
	return path.Clean("/" + name), nil
}

const sliceSuffix = ".slice"

// expandSlice returns where systemd has a slice: a dash in a name stands for a level
// (systemd.slice(5)), "a-b.slice" is /a.slice/a-b.slice.
func expandSlice(name string) (string, error) {
	stem := strings.TrimSuffix(name, sliceSuffix)
	if stem == "-" {
		return "/", nil
	}
	var dir, prefix strings.Builder
	for part := range strings.SplitSeq(stem, "-") {
		if part == "" {
			return "", fmt.Errorf("%q is not the name of a slice", name)
		}
		dir.WriteString("/" + prefix.String() + part + sliceSuffix)
		prefix.WriteString(part + "-")
	}
	return dir.String(), nil
}

// openBeneath opens a cgroup by its way down from a mount point.
func openBeneath(point, rest string) (*Cgroup, error) {
	top, err := unix.Open(point, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, goneIf(&os.PathError{Op: "open", Path: point, Err: err})
	}
	defer unix.Close(top)
	dir := filepath.Join(point, rest)
	fd, err := unix.Openat2(top, rest, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil, goneIf(&os.PathError{Op: "open", Path: dir, Err: err})
	}
	c := &Cgroup{Path: dir, Dir: os.NewFile(uintptr(fd), dir)}
	if err := c.identify(); err != nil {
		c.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return c, nil
}

// Contains reports whether d is c or below it. It goes by the directories' ids, not
// by their paths: a cgroup may be seen through several mounts.
func (c *Cgroup) Contains(d *Cgroup) (bool, error) {
	var want unix.Stat_t
	if err := unix.Fstat(int(c.Dir.Fd()), &want); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	at, err := unix.Openat(int(d.Dir.Fd()), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for range maxDepth {
		if err != nil {
			return false, fault.New("cgroup "+d.Path, goneIf(os.NewSyscallError("openat", err)), "")
		}
		var st unix.Stat_t
		if err := unix.Fstat(at, &st); err != nil {
			unix.Close(at)
			return false, os.NewSyscallError("fstat", err)
		}
		// Above the root of a mount is another file system.
		if found := st.Dev == want.Dev && st.Ino == want.Ino; found || st.Dev != want.Dev || st.Ino == 1 {
			unix.Close(at)
			return found, nil
		}
		up, e := unix.Openat(at, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(at)
		at, err = up, e
	}
	unix.Close(at)
	return false, nil
}
