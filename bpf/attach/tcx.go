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

const tcxLink = "tcx link"

// loopback is the ifindex of lo in every network namespace.
const loopback = 1

// refusesTCX reports errors that a kernel without TCX links may answer with.
func refusesTCX(err error) bool {
	return errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, enotsupp) || errors.Is(err, unix.EOPNOTSUPP) ||
		errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)
}

// lacksTCX asks the kernel whether it has TCX, whatever its release says: one that
// does not know the attach type, or was built without, answers EINVAL. Any other
// answer, also that we may not ask, is no reason to do without. Tests replace it.
var lacksTCX = func() bool {
	_, _, err := progQuery(loopback, uint32(ebpf.AttachTCXIngress), 0)
	return errors.Is(err, unix.EINVAL)
}

// WithoutTCX reports whether Attach failed because the kernel has no TCX links:
// where the policy allows it, a Filter can stand in.
func WithoutTCX(err error) bool {
	var u *UnsupportedError
	return errors.As(err, &u) && u.Feature == tcxLink
}
