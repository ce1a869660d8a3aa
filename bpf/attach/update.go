// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/target"
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
