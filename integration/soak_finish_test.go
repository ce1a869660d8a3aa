// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	// The kernel frees links and programs a little later. It gives no id twice.
	deadline := time.Now().Add(10 * time.Second)
	for {
		links, programs := s.survivors()
		if len(links)+len(programs) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the kernel still has links %v and programs %v", links, programs)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// survivors returns those links and programs of this run that still exist.
func (s *soak) survivors() (links, programs []uint32) {
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
	return links, programs
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
