// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// machineEnv tells the first process of a machine what it is.
const machineEnv = "LINKPIN_THIEVES_MACHINE"

// machine is a set of namespaces that looks like a host with cgroup v2, on which
// nothing is pinned and nothing is configured; like the machines of package
// integration, of which it is the smaller half.
type machine struct {
	parent string // cgroup below which its container is: "/linkpin-thieves-…"
	init   *exec.Cmd
	hold   io.Closer // the machine ends when it is closed
}

// machineCgroup is how the names of this process's machines' cgroups begin.
var machineCgroup = fmt.Sprintf("linkpin-thieves-%08x-", rand.Uint32())

const cgroup2 = "/sys/fs/cgroup"

func newMachine() (*machine, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), machineEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a machine: %w", err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		in.Close()
		_ = cmd.Wait() // the message says more
		return nil, fmt.Errorf("starting a machine: %s", strings.TrimSpace(stderr.String()))
	}
	return &machine{parent: fmt.Sprint("/", machineCgroup, cmd.Process.Pid), init: cmd, hold: in}, nil
}

// Enter moves the calling goroutine's thread into the machine. The thread ends with
// the goroutine.
func (m *machine) Enter() error {
	runtime.LockOSThread()
	// A thread that shares its root and working directory with others can't
	// change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	// All are opened before the first is entered: /proc is another one then.
	for _, name := range []string{"net", "ipc", "uts", "pid", "mnt"} {
		f, err := os.Open(filepath.Join("/proc", strconv.Itoa(m.init.Process.Pid), "ns", name))
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	for _, f := range files {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("setns %s: %w", f.Name(), err)
		}
	}
	return nil
}

// Close ends the machine and all its processes, and removes its cgroups. It may be
// called inside as well as outside.
func (m *machine) Close() error {
	m.hold.Close()
	_ = m.init.Wait() // killed or not, it has ended
	var errs []error
	for _, root := range []string{cgroup2, built.cgroups} {
		errs = append(errs, removeCgroups(filepath.Join(root, m.parent)))
	}
	return errors.Join(errs...)
}

// removeCgroups removes a cgroup and its descendants. Their processes are dead,
// but the kernel takes a moment to let go of them.
func removeCgroups(dir string) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		var dirs []string
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // a directory may vanish under us
		})
		if err != nil {
			return err
		}
		var last error
		for _, dir := range slices.Backward(dirs) {
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
				last = &os.PathError{Op: "rmdir", Path: dir, Err: err}
			}
		}
		if last == nil || time.Now().After(deadline) {
			return last
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// machineMain is the first process of a machine. It sets up the mounts, says so
// with an empty line, and reaps orphans until its standard input ends.
func machineMain() int {
	if err := setUpMachine(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // the end, whatever its reason
		close(ended)
	}()
	fmt.Println()
	for {
		select {
		case <-ended:
			return 0 // the kernel kills everybody else in the process namespace
		case <-children:
			for {
				if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}
}

func setUpMachine() error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	for _, dir := range []string{"/run", "/var/lib"} {
		if err := mount("tmpfs", dir, "tmpfs", unix.MS_NODEV, "mode=0755"); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/run/etc/upper", "/run/etc/work"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work"); err != nil {
		return err
	}
	if err := os.RemoveAll("/etc/linkpin"); err != nil {
		return err
	}
	// Not stacked on the host's: linkpin reports that.
	for unix.Unmount("/sys/fs/bpf", unix.MNT_DETACH) == nil {
	}
	if err := mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil {
		return err
	}
	// Lazily: takes a whole tree of v1 hierarchies along.
	if err := unix.Unmount(cgroup2, unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	if err := mount("cgroup2", cgroup2, "cgroup2", 0, ""); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	return netlink.LinkSetUp(lo)
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", fstype, target, err)
	}
	return nil
}
