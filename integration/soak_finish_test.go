// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// finish judges what is left: little before a gc, because every call of hook and plugin
// sweeps a few entries, and nothing after it.
func (s *soak) finish() error {
	before, err := s.entries()
	if err != nil {
		return err
	}
	// A third of the containers was killed, so that without sweeping there would be as
	// many entries.
	if bound := max(s.total/6, 40); before > bound {
		return fmt.Errorf("%d entries are left without a gc; a node that sweeps has at most %d", before, bound)
	}
	if out, err := exec.Command("linkpin", "verify").CombinedOutput(); err != nil {
		return fmt.Errorf("linkpin verify: %w: %s", err, out)
	}
	if out, err := exec.Command("linkpin", "gc", "--wait=5s").CombinedOutput(); err != nil {
		return fmt.Errorf("linkpin gc: %w: %s", err, out)
	}
	if err := s.nothingLeft(); err != nil {
		return err
	}
	s.report(before)
	return nil
}

// entries counts what stands in the state tree.
func (s *soak) entries() (int, error) {
	n := 0
	for _, dir := range []string{"containers", "sandboxes", "retired", "staging", "netns"} {
		names, err := os.ReadDir(filepath.Join(s.state, dir))
		if err != nil {
			return 0, err
		}
		n += len(names)
	}
	return n, nil
}

func (s *soak) nothingLeft() error {
	left, err := s.entries()
	if err != nil {
		return err
	}
	if left > 0 {
		out, _ := exec.Command("find", s.state).Output() // for the message only
		return fmt.Errorf("%d entries are left after a gc:\n%s", left, out)
	}
	var st unix.Stat_t
	if err := unix.Stat(s.state, &st); err != nil {
		return err
	}
	locks, err := readLocks(st.Dev)
	if err != nil {
		return err
	}
	if len(locks) > 0 {
		return fmt.Errorf("locks are left: %v", locks)
	}
	if len(s.links) == 0 || len(s.programs) == 0 {
		return errors.New("no link was ever seen")
	}
	if s.total >= soakAlone {
		for _, victim := range soakVictims {
			if _, ok := s.killed.Load(victim); !ok {
				return fmt.Errorf("nobody was killed as %q", victim)
			}
		}
	}
	// The kernel frees links and programs a little later. It gives no id twice.
	deadline := time.Now().Add(10 * time.Second)
	for {
		links, programs, err := s.survivors()
		if err != nil {
			return err
		}
		if len(links)+len(programs) == 0 {
			return s.noNamespaces()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the kernel still has links %v and programs %v", links, programs)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// survivors returns the links and programs of this run that still exist: those that
// were seen and, where nobody else can be at work with the same programs, all others that
// are called like them and were not there before.
func (s *soak) survivors() (links, programs []uint32, err error) {
	for id := range s.links {
		if l, err := link.NewFromID(link.ID(id)); err == nil {
			l.Close()
			links = append(links, id)
		}
	}
	for id := range s.programs {
		if p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id)); err == nil {
			p.Close()
			programs = append(programs, id)
		}
	}
	if s.total < soakAlone {
		return links, programs, nil
	}
	now, err := allPrograms(func(name string) bool { return s.names[name] })
	for id := range now {
		if !s.before[id] && !s.programs[id] {
			programs = append(programs, id)
		}
	}
	return links, programs, err
}

// soakAlone is from how many containers on a soak is taken for one that has the kernel
// for itself (`make soak`).
const soakAlone = 1000

// allPrograms returns the ids of the kernel's programs whose name is wanted.
func allPrograms(want func(name string) bool) (map[uint32]bool, error) {
	ids := map[uint32]bool{}
	id := ebpf.ProgramID(0)
	for {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return ids, nil
		}
		if err != nil {
			return nil, err
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // gone since
		}
		if info, err := p.Info(); err == nil && want(info.Name) {
			ids[uint32(id)] = true
		}
		p.Close()
	}
}

// noNamespaces fails if a network namespace or an interface of a container is left.
func (s *soak) noNamespaces() error {
	names, err := os.ReadDir("/run/netns")
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("%d network namespaces are left", len(names))
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range interfaces {
		if strings.HasPrefix(i.Name, "soak") {
			return fmt.Errorf("interface %s is left", i.Name)
		}
	}
	return nil
}

// report prints what was done, and what a start took at the beginning and at the end.
func (s *soak) report(before int) {
	fmt.Printf("%d containers, %d of them said what they should; %d entries at once at most, %d at the end without a gc, 0 after it\n",
		s.total, s.started.Load(), s.peak, before)
	s.killed.Range(func(victim, n any) bool {
		fmt.Printf("killed: %s %d\n", victim, n.(*atomic.Int64).Load())
		return true
	})
	if tenth := len(s.times) / 10; tenth > 0 {
		first, last := median(s.times[:tenth]), median(s.times[len(s.times)-tenth:])
		fmt.Printf("start of a container, medians: the first tenth %v, the last tenth %v, ratio %.2f\n",
			first.Round(time.Microsecond), last.Round(time.Microsecond), float64(last)/float64(first))
	}
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
