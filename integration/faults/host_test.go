// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host is where linkpin's programs run: mounts, a bpffs, policies and a network
// namespace of its own, and a cgroup below which its containers are. It belongs to
// the goroutine that made it, which is on a thread of its own; what this goroutine
// opens and starts is inside.
type host struct {
	mark   string // begins the names of all its programs and of their maps
	cgroup string // path in the file system
	runs   int
	veths  int

	oldPolicies, newPolicies string // what `linkpin policy list` says of the two sets
	using                    string // the set of policies that is in effect
	base                     ids    // what the kernel had when the current run began
	awaited                  []awaited
	vanishing                time.Duration // how long the kernel may take to free something
}

const (
	policiesDir = "/etc/linkpin/policies.d" // the policies that are in effect
	otherDir    = "/etc/linkpin/other.d"    // those that stage "policy apply" puts into effect
	stateDir    = "/sys/fs/bpf/linkpin"
	appliedDir  = "/var/lib/linkpin"
	savedDir    = "/var/lib/linkpin-saved" // copies of appliedDir, one for each set
)

// newHost makes a host. The goroutine must end without having unlocked its thread,
// which takes the namespaces along, and call close before.
func newHost() (*host, error) {
	runtime.LockOSThread()
	h := &host{mark: fmt.Sprintf("f%05x", rand.Uint32N(1<<20)), vanishing: vanishing}
	// A thread that shares its root and working directory can't change its mounts.
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	if err := h.mounts(); err != nil {
		return nil, err
	}
	root, err := cgroup2Mount()
	if err != nil {
		return nil, err
	}
	h.cgroup = filepath.Join(root, "linkpin-faults-"+h.mark)
	if err := os.Mkdir(h.cgroup, 0o755); err != nil {
		return nil, err
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err == nil {
		err = h.use("policies")
	}
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *host) mounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	// Not stacked on another one: linkpin reports that.
	for unix.Unmount("/sys/fs/bpf", unix.MNT_DETACH) == nil {
	}
	for _, m := range []struct{ kind, dir, data string }{
		{"tmpfs", "/run", "mode=0755"}, {"tmpfs", "/var/lib", "mode=0755"}, {"bpf", "/sys/fs/bpf", ""},
	} {
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mounting %s: %w", m.dir, err)
		}
	}
	// Nothing but cgroup2: the hierarchies of version 1 would have to be tidied up, too.
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil {
		return err
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		if err := unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH); err != nil {
			return os.NewSyscallError("umount", err)
		}
		if err := unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
			return fmt.Errorf("mounting /sys/fs/cgroup: %w", err)
		}
	}
	for _, d := range []string{"/run/etc/upper", "/run/etc/work"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work"); err != nil {
		return fmt.Errorf("mounting /etc: %w", err)
	}
	return errors.Join(os.RemoveAll("/etc/linkpin"), os.Mkdir(savedDir, 0o700))
}

// linkpin runs the command line tool, which must succeed.
func (h *host) linkpin(args ...string) (stdout string, err error) {
	var out, stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(built.bin, "linkpin"), args...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("linkpin %s: %w: %s%s", strings.Join(args, " "), err, &out, &stderr)
	}
	return out.String(), nil
}

func (h *host) exec(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// close removes the host's cgroup. Everything else goes with its thread.
func (h *host) close() error {
	if h.cgroup == "" {
		return nil
	}
	return removeCgroup(h.cgroup)
}

// removeCgroup kills what is in a cgroup and removes it with its children. The
// kernel lets go of killed processes a moment later.
func removeCgroup(dir string) error {
	_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) // rmdir fails if it was needed
	deadline := time.Now().Add(10 * time.Second)
	for {
		children, err := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
		if err != nil {
			return err
		}
		for _, c := range children {
			if err := removeCgroup(filepath.Dir(c)); err != nil {
				return err
			}
		}
		err = unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if time.Now().After(deadline) {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		time.Sleep(time.Millisecond)
	}
}

// cgroup2Mount returns where cgroup2 is mounted.
func cgroup2Mount() (string, error) {
	data, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); len(fields) > 4 && fields[3] == "/" && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", errors.New("cgroup2 is not mounted")
}
