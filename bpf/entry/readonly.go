// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs/fault"
)

// pinnedInfo reads a recorded link. In a bpffs that is mounted read-only the kernel
// opens no link by its pin: BPF_OBJ_GET says EROFS, and takes BPF_F_RDONLY for maps only.
// The recorded id leads to it then. Which link the pin holds remains unseen; it can't be
// changed there either.
func pinnedInfo(e *pin.Entry, row pin.ProgramRecord) (attach.Info, error) {
	info, err := linkInfo(e.LinkPath(row.Name))
	if !errors.Is(err, unix.EROFS) {
		return info, err
	}
	if !slices.Contains(e.Links(), row.Name) {
		return attach.Info{}, fmt.Errorf("pin of link %d: %w", row.LinkID, fs.ErrNotExist)
	}
	l, byID := attach.OpenID(row.LinkID)
	if byID != nil {
		return attach.Info{}, fmt.Errorf("%w; %w", err, byID)
	}
	defer l.Close()
	return l.Info()
}

// checkWritable is asked before anything is mended: it fails in a bpffs that is mounted
// read-only, once and in plain words instead of at every step.
func (s *Session) checkWritable() error {
	readOnly, err := s.Root.ReadOnly()
	if err == nil && readOnly {
		return fault.New(s.Root.Path(), pin.ErrReadOnly, readOnlyRemedy(s))
	}
	return err
}

func readOnlyRemedy(s *Session) string {
	return "mount -o remount,rw the bpffs that holds " + s.Root.Path()
}
