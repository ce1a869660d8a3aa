// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs/change"
)

// checkKernel looks at what does not depend on the kinds of links.
func (d *doctor) checkKernel() {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		d.bad(change.Fail, "kernel", os.NewSyscallError("uname", err), "")
		return
	}
	d.ok("kernel", "%s %s", unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]))
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		d.bad(change.Warn, "kernel types", err, "objects that are relocated to the running kernel (CO-RE) can't be used: enable CONFIG_DEBUG_INFO_BTF")
		return
	}
	d.ok("kernel types", "/sys/kernel/btf/vmlinux is there")
}

// checkCapabilities looks for what bpf(2), setns(2) and the checks of owners need.
func (d *doctor) checkCapabilities() {
	const what = "capabilities"
	have, err := effective(filepath.Join(d.roots.proc, "self/status"))
	if err != nil {
		d.bad(change.Fail, what, err, "")
		return
	}
	var missing []string
	for _, c := range []struct {
		name    string
		bit     uint
		instead uint // implies it
	}{
		{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN, unix.CAP_SYS_ADMIN},
		{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, unix.CAP_NET_ADMIN},
		{"CAP_BPF", unix.CAP_BPF, unix.CAP_SYS_ADMIN},
		{"CAP_PERFMON", unix.CAP_PERFMON, unix.CAP_SYS_ADMIN},
	} {
		if have&(1<<c.bit|1<<c.instead) == 0 {
			missing = append(missing, c.name)
		}
	}
	switch {
	case os.Geteuid() != 0:
		d.bad(change.Fail, what, fmt.Errorf("running as uid %d", os.Geteuid()), "linkpin must run as root")
	case len(missing) > 0:
		d.bad(change.Fail, what, errors.New("without "+strings.Join(missing, ", ")), "linkpin must run as root with all capabilities")
	default:
		d.ok(what, "root, with all that are needed")
	}
}

// effective returns the effective capabilities from /proc/PID/status.
func effective(path string) (uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(data) {
		if hex, ok := strings.CutPrefix(string(line), "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, errors.New(path + " does not say which there are")
}

func (d *doctor) checkBPFFS() {
	const what = "bpffs"
	root, err := pin.Open(d.roots.pins())
	switch {
	case errors.Is(err, pin.ErrNoState):
		d.ok(what, "%s, nothing stored yet", d.roots.bpffs)
	case err != nil:
		d.bad(change.Fail, what, err, "")
		return
	default:
		d.ok(what, "%s", root.Path())
		d.warn(root.Close())
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(d.roots.bpffs, &fs); err == nil && fs.Flags&unix.ST_RDONLY != 0 {
		d.bad(change.Fail, what, pin.ErrReadOnly, "mount -o remount,rw "+d.roots.bpffs)
	}
	if err := pin.CheckStacked(d.roots.pins()); err != nil {
		d.bad(change.Warn, what, err, "")
	}
}

// checkCgroup2 returns where cgroup2 is mounted, "" if it is not.
func (d *doctor) checkCgroup2() string {
	const what = "cgroup2"
	v2, v1, err := cgroupMounts(filepath.Join(d.roots.proc, "self/mountinfo"))
	switch {
	case err != nil:
		d.bad(change.Fail, what, err, "")
	case v2 == "":
		d.bad(change.Fail, what, errors.New("is not mounted"),
			"boot with systemd.unified_cgroup_hierarchy=1, or mount it: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified")
	case v1:
		d.ok(what, "%s, beside cgroup v1 (hybrid)", v2)
	default:
		d.ok(what, "%s", v2)
	}
	return v2
}

// cgroupMounts finds cgroup2, mounted from its root, and whether there is cgroup v1.
func cgroupMounts(mountinfo string) (v2 string, v1 bool, err error) {
	f, err := os.Open(mountinfo)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		before, after, _ := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		kind, _, _ := strings.Cut(after, " ")
		switch {
		case len(fields) < 5:
		case kind == "cgroup":
			v1 = true
		case kind == "cgroup2" && fields[3] == "/" && v2 == "":
			v2 = unescapeMount.Replace(fields[4])
		}
	}
	return v2, v1, s.Err()
}

// unescapeMount undoes what the kernel does to paths in mountinfo.
var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
