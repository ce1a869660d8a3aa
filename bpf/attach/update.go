// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// OpenID opens a link by the kernel's id, whether it is pinned or not; fs.ErrNotExist
// if there is none. The caller must Close it.
func OpenID(id uint32) (*Link, error) {
	l, err := link.NewFromID(link.ID(id))
	if err != nil {
		return nil, fmt.Errorf("opening link %d: %w", id, err)
	}
	return wrapLink(l)
}

// Update puts another program into a live link, without a moment in which there is
// none. target.ErrGone if the link is severed; netfilter links can't be updated.
func (l *Link) Update(prog *ebpf.Program) error {
	err := l.raw.Update(prog)
	switch {
	case errors.Is(err, unix.ENOLINK):
		return fmt.Errorf("updating link: its target %w", target.ErrGone)
	case err != nil:
		return fmt.Errorf("updating link: %w", err)
	}
	l.prog = prog
	return nil
}

var (
	// ErrForeign means that a link holds another program than was expected.
	ErrForeign = errors.New("holds another program than it was given")
	// ErrFixed means a kind of link whose program the kernel never exchanges.
	ErrFixed = errors.New("can't be given another program")
)

// Replace puts a program into a live link in place of the one that it is expected to
// hold, in one step and without a moment in which there is none (BPF_LINK_UPDATE with
// BPF_F_REPLACE). target.ErrGone if the link is severed, ErrForeign if it holds another
// program than old, ErrFixed for links of netfilter and of tracing programs.
func (l *Link) Replace(prog, old *ebpf.Program) error {
	err := linkReplace(l.raw.FD(), prog.FD(), old.FD())
	switch {
	case errors.Is(err, unix.ENOLINK):
		return fmt.Errorf("updating link: its target %w", target.ErrGone)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL) && l.fixed():
		return fmt.Errorf("updating link: a link of its kind %w: %w", ErrFixed, err)
	case errors.Is(err, unix.EPERM):
		// The kernel's word for an unexpected program, and for want of privileges.
		if info, other := l.Info(); other == nil && !isProgram(old, info.ProgramID) {
			return fmt.Errorf("updating link: it %w: program %d (%s)", ErrForeign, info.ProgramID, info.ProgramTag)
		}
	}
	if err != nil {
		return fmt.Errorf("updating link: %w", err)
	}
	l.prog = prog
	return nil
}

// fixed reports whether the kernel has no update for links of this kind: it tells by
// EINVAL, too (link_update in kernel/bpf/syscall.c).
func (l *Link) fixed() bool {
	info, err := l.Info()
	return err == nil && (info.State == Unknown || info.Hook.Target() == specs.TargetKernel)
}

func isProgram(p *ebpf.Program, id uint32) bool {
	info, err := readProgram(p.FD())
	return err == nil && info.id == id
}
