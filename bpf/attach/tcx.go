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

// attachTCX makes a TCX link, behind the programs that are there. It is called in
// the device's namespace.
func attachTCX(prog *ebpf.Program, at ebpf.AttachType, dev *target.Device) (*Link, error) {
	l, err := link.AttachTCX(link.TCXOptions{Interface: dev.Index, Program: prog, Attach: at})
	if err == nil {
		return wrapLink(l)
	}
	switch {
	case errors.Is(err, unix.EEXIST):
		return nil, remedy(fmt.Errorf("the same program %w (%w)", ErrExist, err),
			"one loaded program can stand on a hook once: load another copy, or leave one of the two attachments out")
	case errors.Is(err, unix.ERANGE):
		// bpf_mprog_max in include/linux/bpf_mprog.h
		return nil, remedy(fmt.Errorf("it has 63 programs and %w (%w)", ErrFull, err), "see them with: bpftool net show dev "+dev.Name)
	case errors.Is(err, unix.ENODEV):
		return nil, fmt.Errorf("the device %w (%w)", target.ErrGone, err)
	}
	return nil, err
}
