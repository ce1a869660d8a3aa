// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/specs"
)

// Link is an open descriptor of a link.
type Link struct {
	raw  rawLink
	prog *ebpf.Program // what was attached, if it was by us; may be closed
	mode specs.XDPMode
}

// OpenPinned opens a pinned link. fs.ErrNotExist if nothing is there; another error
// if it is no link. The caller must Close it.
func OpenPinned(path string) (*Link, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return nil, fmt.Errorf("opening pinned link %s: %w", path, err)
	}
	return wrapLink(l)
}

// Pin adds a pin in bpffs; fs.ErrExist if the path is taken. Other pins of the
// link stay (link.Link.Pin would move the first one).
func (l *Link) Pin(path string) error {
	if err := objPin(l.raw, path); err != nil {
		return &os.PathError{Op: "pin link", Path: path, Err: err}
	}
	return nil
}

// Detach takes the program off at once, whoever else holds the link or its pins
// (BPF_LINK_DETACH). The link is severed then.
func (l *Link) Detach() error {
	if err := l.raw.Detach(); err != nil {
		return fmt.Errorf("detaching link: %w", err)
	}
	return nil
}

// Close closes the descriptor. It detaches the program if the link is not pinned;
// that takes milliseconds for interface links, which wait for a grace period.
func (l *Link) Close() error { return l.raw.Close() }

// FD returns the descriptor, which stays the Link's.
func (l *Link) FD() int { return l.raw.FD() }

// Mode returns where a new XDP link runs: native or generic. It is empty for other
// links, and for those that were opened from a pin: the kernel does not tell.
func (l *Link) Mode() specs.XDPMode { return l.mode }
