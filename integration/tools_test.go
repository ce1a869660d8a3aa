// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkLine is one kernel link in words.
type linkLine struct {
	id      link.ID
	hook    string
	target  string // "cgroup=ID" or "ifindex=N"; "severed" when the kernel shows neither
	program string
	cgroup  uint64

	programID ebpf.ProgramID
}

func (l linkLine) String() string {
	return fmt.Sprintf("%s %s link=%d program=%s", l.hook, l.target, l.id, l.program)
}

// linksMain prints kernel links, one a line, as the kernel itself tells them and
// without any of linkpin's code.
//
//	links cgroup DIR     attached to the cgroup DIR
//	links dev NAME       attached to an interface of this network namespace
//	links pinned DIR     pinned below DIR, each after its path
func linksMain() {
	if err := printLinks(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "links:", err)
		os.Exit(1)
	}
}

func printLinks(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: links cgroup DIR | dev NAME | pinned DIR")
	}
	switch args[0] {
	case "cgroup":
		id, err := cgroupID(args[1])
		if err != nil {
			return err
		}
		return eachLink(func(l linkLine, _ link.Link) error {
			if l.cgroup == id {
				fmt.Println(l)
			}
			return nil
		})
	case "dev":
		return deviceLinks(args[1], func(l linkLine, _ link.Link) error {
			fmt.Println(l)
			return nil
		})
	case "pinned":
		return filepath.WalkDir(args[1], func(path string, d os.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // nothing was ever pinned, or it went while we looked
			}
			if err != nil || !strings.HasPrefix(d.Name(), "link_") {
				return err
			}
			l, err := link.LoadPinnedLink(path, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			defer l.Close()
			line, err := describe(l)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			fmt.Println(path, line)
			return nil
		})
	}
	return fmt.Errorf("unknown kind %q", args[0])
}

// eachLink calls f for every link of the kernel.
func eachLink(f func(linkLine, link.Link) error) error {
	var last link.ID
	for {
		it := &link.Iterator{ID: last}
		for it.Next() {
			last = it.ID
			line, err := describe(it.Link)
			if err == nil {
				err = f(line, it.Link)
			}
			if err != nil {
				it.Close()
				return err
			}
		}
		err := it.Err()
		it.Close()
		// A link that somebody is creating at this moment has an id already, but
		// nobody can open it.
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func describe(l link.Link) (linkLine, error) {
	info, err := l.Info()
	if err != nil {
		return linkLine{}, err
	}
	line := linkLine{id: info.ID, hook: fmt.Sprint("type", info.Type), target: "severed", program: "?", programID: info.Program}
	var ifindex uint32
	switch {
	case info.Cgroup() != nil:
		line.hook, line.cgroup = info.Cgroup().AttachType.String(), info.Cgroup().CgroupId
	case info.TCX() != nil:
		line.hook, ifindex = info.TCX().AttachType.String(), info.TCX().Ifindex
	case info.XDP() != nil:
		line.hook, ifindex = "XDP", info.XDP().Ifindex
	}
	switch {
	case line.cgroup != 0:
		line.target = "cgroup=" + strconv.FormatUint(line.cgroup, 10)
	case ifindex != 0:
		line.target = "ifindex=" + strconv.FormatUint(uint64(ifindex), 10)
	}
	if p, err := ebpf.NewProgramFromID(info.Program); err == nil {
		defer p.Close()
		if pi, err := p.Info(); err == nil {
			line.program = pi.Name
		}
	}
	return line, nil
}

// thiefMain is another root process that meddles with the programs of a cgroup.
// It exits 0 only if the kernel let it.
//
//	thief attach DIR TYPE FLAGS   BPF_PROG_ATTACH a program that allows everything;
//	                              TYPE connect4, egress or ingress, FLAGS none, override or multi
//	thief detach DIR              BPF_PROG_DETACH every program that a link attached to DIR
//	thief force DIR               BPF_LINK_DETACH every link of DIR
//	thief tcx INTERFACE           BPF_PROG_DETACH every program that a TCX link attached
func thiefMain() {
	if err := thieve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "thief:", err)
		os.Exit(1)
	}
}

func thieve(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: thief attach DIR TYPE FLAGS | detach DIR | force DIR | tcx INTERFACE")
	}
	if args[0] == "tcx" {
		return thiefTCX(args[1])
	}
	dir, err := os.Open(args[1])
	if err != nil {
		return err
	}
	defer dir.Close()
	id, err := cgroupID(args[1])
	if err != nil {
		return err
	}
	found := 0
	switch {
	case args[0] == "attach" && len(args) == 4:
		return thiefAttach(dir, args[2], args[3])
	case args[0] == "detach":
		err = eachLink(func(line linkLine, l link.Link) error {
			if line.cgroup != id {
				return nil
			}
			found++
			return thiefDetach(dir, l)
		})
	case args[0] == "force":
		err = eachLink(func(line linkLine, l link.Link) error {
			if line.cgroup != id {
				return nil
			}
			found++
			d, ok := l.(interface{ Detach() error })
			if !ok {
				return fmt.Errorf("%T can't be detached", l)
			}
			return d.Detach()
		})
	default:
		return fmt.Errorf("unknown arguments %q", args)
	}
	if err == nil && found == 0 {
		return errors.New("no link is attached to " + args[1])
	}
	return err
}

func thiefAttach(dir *os.File, hook, flags string) error {
	kinds := map[string]ebpf.ProgramSpec{
		"connect4": {Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect},
		"egress":   {Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress},
		"ingress":  {Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetIngress},
	}
	spec, ok := kinds[hook]
	if !ok {
		return fmt.Errorf("unknown type %q", hook)
	}
	bits, ok := map[string]uint32{"none": 0, "override": unix.BPF_F_ALLOW_OVERRIDE, "multi": unix.BPF_F_ALLOW_MULTI}[flags]
	if !ok {
		return fmt.Errorf("unknown flags %q", flags)
	}
	spec.Name, spec.License = "thief", "Dual BSD/GPL"
	spec.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}
	p, err := ebpf.NewProgram(&spec)
	if err != nil {
		return err
	}
	defer p.Close()
	return link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(dir.Fd()), Program: p, Attach: spec.AttachType, Flags: bits,
	})
}

func thiefDetach(dir *os.File, l link.Link) error {
	info, err := l.Info()
	if err != nil {
		return err
	}
	p, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return err
	}
	defer p.Close()
	return link.RawDetachProgram(link.RawDetachProgramOptions{
		Target: int(dir.Fd()), Program: p, Attach: ebpf.AttachType(info.Cgroup().AttachType),
	})
}

// deviceLinks calls f for every link of an interface. The kernel tells an
// interface's index, but indexes repeat in every namespace: TCX is asked in this
// namespace for its links, XDP for its program.
func deviceLinks(name string, f func(linkLine, link.Link) error) error {
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	index := dev.Attrs().Index
	ours := map[link.ID]bool{}
	for _, hook := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		result, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: hook})
		if err != nil {
			return err
		}
		for _, p := range result.Programs {
			if id, ok := p.LinkID(); ok {
				ours[id] = true
			}
		}
	}
	xdp := ebpf.ProgramID(0)
	if x := dev.Attrs().Xdp; x != nil && x.Attached {
		xdp = ebpf.ProgramID(x.ProgId)
	}
	return eachLink(func(line linkLine, l link.Link) error {
		if ours[line.id] || line.hook == "XDP" && line.target == fmt.Sprint("ifindex=", index) && line.programID == xdp {
			return f(line, l)
		}
		return nil
	})
}

func thiefTCX(name string) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	found := 0
	err = deviceLinks(name, func(line linkLine, l link.Link) error {
		if line.hook == "XDP" {
			return nil
		}
		found++
		info, err := l.Info()
		if err != nil {
			return err
		}
		p, err := ebpf.NewProgramFromID(info.Program)
		if err != nil {
			return err
		}
		defer p.Close()
		return link.RawDetachProgram(link.RawDetachProgramOptions{
			Target: ifi.Index, Program: p, Attach: ebpf.AttachType(info.TCX().AttachType),
		})
	})
	if err == nil && found == 0 {
		return errors.New("no TCX link is attached to " + name)
	}
	return err
}

func cgroupID(dir string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return st.Ino, nil
}
