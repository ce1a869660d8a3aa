// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// attachKernel makes a link to the function, tracepoint or LSM hook for which the
// program was loaded. The program then runs for everybody on the machine. Such a link
// has no target that could go away: it lives as long as somebody holds it, and can't
// be detached or updated.
func attachKernel(prog *ebpf.Program, at ebpf.AttachType) (*Link, error) {
	var l link.Link
	var err error
	if at == ebpf.AttachLSMMac {
		if err := lsmRuns(); err != nil {
			return nil, err
		}
		l, err = link.AttachLSM(link.LSMOptions{Program: prog})
	} else {
		l, err = link.AttachTracing(link.TracingOptions{Program: prog, AttachType: at})
	}
	switch {
	case err == nil:
		return wrapLink(l)
	case errors.Is(err, unix.E2BIG):
		// BPF_MAX_TRAMP_LINKS, include/linux/bpf.h
		return nil, remedy(fmt.Errorf("the function has 38 programs and %w (%w)", ErrFull, err), "see them with: bpftool link show")
	case errors.Is(err, unix.EBUSY):
		return nil, remedy(fmt.Errorf("the function is patched by something else, and %w (%w)", ErrBusy, err),
			"see who uses it: /sys/kernel/debug/tracing/enabled_functions")
	case errors.Is(err, unix.EPERM):
		return nil, remedy(err, "linkpin needs CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN)")
	}
	return nil, err
}
