// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
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

// cgroupMode is a layout of cgroup mounts that hosts have.
type cgroupMode string

const (
	hybrid  cgroupMode = "hybrid"  // v1 controllers, cgroup2 on /sys/fs/cgroup/unified
	unified cgroupMode = "unified" // cgroup2 on /sys/fs/cgroup and no v1 hierarchy
)

// mount returns where a machine of that mode has cgroup2.
func (m cgroupMode) mount() string {
	if m == hybrid {
		return "/sys/fs/cgroup/unified"
	}
	return "/sys/fs/cgroup"
}

// machineEnv carries the cgroupMode to the first process of a machine.
const machineEnv = "LINKPIN_INTEGRATION_MACHINE"

// machine is a set of namespaces that looks to programs inside like a host that
// has just been installed: nothing is pinned, nothing is configured, /run is
// empty. It ends, with all its processes, mounts and pins, when Close is called
// or this process dies.
type machine struct {
	mode   cgroupMode
	parent string // cgroup below which all containers of the machine are, as cgroupsPath has it: "/linkpin-it-…"
	init   *exec.Cmd
	hold   io.Closer // the machine ends when it is closed
}

// newMachine starts a machine.
func newMachine(mode cgroupMode) (*machine, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), machineEnv+"="+string(mode))
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
	parent := fmt.Sprint("/", machineCgroup, cmd.Process.Pid)
	return &machine{mode: mode, parent: parent, init: cmd, hold: in}, nil
}

// machineCgroup is how the names of this process's machines' cgroups begin. Not
// with the pid: others may run the tests at the same time in a process namespace
// of their own.
var machineCgroup = fmt.Sprintf("linkpin-it-%08x-", rand.Uint32())

// Enter moves the calling goroutine's thread into the machine: from now on, what
// this goroutine opens, and every program it starts, is inside. The thread ends
// with the goroutine.
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

// Close ends the machine and removes the cgroups of its containers. It must be
// called by the goroutine that entered it, if any did.
func (m *machine) Close() error {
	// Inside, this process is not in /proc, but the machine's first is.
	mounts, err := cgroupMounts("1")
	if err != nil {
		return err
	}
	m.hold.Close()
	_ = m.init.Wait() // killed or not, it has ended
	var errs []error
	for _, mount := range mounts {
		errs = append(errs, removeCgroups(filepath.Join(mount, m.parent)))
	}
	return errors.Join(errs...)
}

// cgroupMounts returns the mount points of all cgroup hierarchies, v1 and v2, that
// a process sees.
func cgroupMounts(pid string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join("/proc", pid, "mountinfo"))
	if err != nil {
		return nil, err
	}
	var mounts []string
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if len(fields) > 4 && fields[3] == "/" && strings.HasPrefix(after, "cgroup") {
			mounts = append(mounts, fields[4])
		}
	}
	return mounts, nil
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
		time.Sleep(10 * time.Millisecond)
	}
}

// machineMain is the first process of a machine. It sets up the mounts, says so
// with an empty line, and then is the system log (into /run/messages) and reaps
// orphans until its standard input ends.
func machineMain(mode cgroupMode) int {
	if err := setUpMachine(mode); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := logSystem(); err != nil {
		fmt.Fprintln(os.Stderr, "system log:", err)
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

// logSystem appends what programs say to the system log to /run/messages.
func logSystem() error {
	// The last place where a program looks (log/syslog). /dev is the host's.
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/run/log", Net: "unixgram"})
	if err != nil {
		return err
	}
	f, err := os.Create("/run/messages")
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 8192)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			fmt.Fprintf(f, "%s\n", strings.TrimSpace(string(buf[:n])))
		}
	}()
	return nil
}

func setUpMachine(mode cgroupMode) error {
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
	if err := ownFiles(); err != nil {
		return err
	}
	// Not stacked on the host's: linkpin reports that.
	for unix.Unmount("/sys/fs/bpf", unix.MNT_DETACH) == nil {
	}
	if err := mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil {
		return err
	}
	if err := setUpCgroups(mode); err != nil {
		return fmt.Errorf("%s cgroups: %w", mode, err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("raising lo: %w", err)
	}
	return unix.Sethostname([]byte("linkpin-" + string(mode)))
}

// ownFiles lets the machine change what installers and daemons change: in memory,
// over the host's.
func ownFiles() error {
	for name, dir := range map[string]string{
		"etc": "/etc", "share": "/usr/share/containers", "local": "/usr/local", "cni": "/usr/lib/cni", "opt": "/opt",
	} {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			continue
		}
		upper, work := filepath.Join("/run", name, "upper"), filepath.Join("/run", name, "work")
		for _, d := range []string{upper, work} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		if err := mount("overlay", dir, "overlay", 0, "lowerdir="+dir+",upperdir="+upper+",workdir="+work); err != nil {
			return err
		}
	}
	return os.RemoveAll("/etc/linkpin")
}

// setUpCgroups gives the machine the cgroup mounts of its mode, whichever the
// host has.
func setUpCgroups(mode cgroupMode) error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil {
		return err
	}
	host := hybrid
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		host = unified
	}
	if host == mode {
		return nil
	}
	// Lazily: takes the whole tree of v1 hierarchies along.
	if err := unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	if mode == unified {
		return mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, "")
	}
	if err := mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	// runc insists on the v1 devices controller; the rest it can do without.
	for name, args := range map[string][2]string{
		"unified": {"cgroup2", ""}, "devices": {"cgroup", "devices"}, "systemd": {"cgroup", "none,name=systemd"},
	} {
		dir := filepath.Join("/sys/fs/cgroup", name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := mount(args[0], dir, args[0], 0, args[1]); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", fstype, target, err)
	}
	return nil
}
