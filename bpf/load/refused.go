// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/specs"
)

// ErrUnsupported means that the running kernel has no such program type or
// attach type.
var ErrUnsupported = errors.New("is not supported by this kernel")

// RefusedError is a program that the kernel did not take.
type RefusedError struct {
	Key    string   // specs.PlanProgram.Key
	Log    []string // the verifier's lines; empty if it did not come that far
	Reason string   // one line
	Err    error    // the library's error
}

// Error gives the reason and the last lines of the verifier.
func (e *RefusedError) Error() string { return e.Reason }

// Unwrap returns the library's error.
func (e *RefusedError) Unwrap() error { return e.Err }

// logLines is how many of the verifier's last lines an error shows. The last one
// says what is wrong, the ones before it where.
const logLines = 3

// refused explains why a program was not loaded.
func refused(p *specs.PlanProgram, err error) *RefusedError {
	r := &RefusedError{Key: p.Key, Err: err}
	var v *ebpf.VerifierError
	if errors.As(err, &v) {
		r.Log = v.Log
	}
	since, last := hooks.Since(p.Hook), lastLines(r.Log)
	switch {
	case errors.Is(err, errNoTarget), p.Hook.InSection() && errors.Is(err, ebpf.ErrNotSupported):
		r.Reason = fmt.Sprintf("what its section names as %s is not in this kernel: %v", p.Hook, err)
		r.Err = fmt.Errorf("%w: %w", ErrUnsupported, err)
	case noTrampolines(p.Hook, err) && len(last) == 0:
		r.Reason = fmt.Sprintf("a program for %s, which the kernel calls from a trampoline, %v (Linux %s: %v)", p.Hook, ErrUnsupported, release(), rootErrno(err))
		r.Err = fmt.Errorf("%w: %w", ErrUnsupported, err)
	case strings.Contains(err.Error(), "bad CO-RE relocation"):
		r.Reason = "it needs a type, field or value that this kernel does not have (CO-RE): " + strings.Join(last, " | ")
	case len(last) > 0:
		r.Reason = "the verifier refuses it: " + strings.Join(last, " | ")
	case len(r.Log) > 0:
		// Verified, and refused afterwards (bpf_prog_select_runtime).
		r.Reason = fmt.Sprintf("the kernel refuses it after verification (%v): all programs of a program array must have one type, one attach type (since 6.18) and one frags setting", v.Cause)
	case errors.Is(err, unix.EPERM):
		// The library blames RLIMIT_MEMLOCK for every EPERM.
		r.Reason = fmt.Sprintf("the kernel refuses it before verification (%v): no permission, or no such programs on this machine", unix.EPERM)
	case errors.Is(err, unix.EINVAL) && kernelVersion().Less(since):
		r.Reason = fmt.Sprintf("%s needs Linux %s, this is %s: it %v", p.Hook, since, release(), ErrUnsupported)
		r.Err = fmt.Errorf("%w: %w", ErrUnsupported, err)
	case errors.Is(err, unix.EINVAL):
		r.Reason = fmt.Sprintf("the kernel refuses it before verification: %v", err)
	default:
		r.Reason = err.Error()
	}
	return r
}

// noTrampolines reports whether an error means that the kernel can't call programs
// from its functions: it is built without it, or a hypervisor's or a sandbox's kernel
// refuses it (EPERM, in spite of all capabilities).
func noTrampolines(h specs.Hook, err error) bool {
	if !h.InSection() || h == specs.HookTPBTF {
		return false
	}
	return errors.Is(err, enotsupp) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) && mayTrace()
}

// enotsupp is the kernel's own ENOTSUPP, which has no name outside it.
const enotsupp = unix.Errno(524)

// mayTrace reports whether this process has the capabilities for tracing programs:
// CAP_SYS_ADMIN, which stands for CAP_BPF and CAP_PERFMON as well.
func mayTrace() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// release is the kernel's release: "6.18.4".
func release() string {
	r, _, _ := strings.Cut(Kernel(), " ")
	return r
}

// rootErrno is what the kernel said, without what the library makes of it.
func rootErrno(err error) error {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	return err
}

// lastLines leaves out the statistics at the end of a log.
func lastLines(log []string) []string {
	var out []string
	for i := len(log) - 1; i >= 0 && len(out) < logLines; i-- {
		line := strings.Join(strings.Fields(log[i]), " ")
		if line == "" || strings.HasPrefix(line, "processed ") && len(out) == 0 {
			continue
		}
		out = append([]string{line}, out...)
	}
	return out
}

func (e *RefusedError) remedy() string {
	switch {
	case len(e.Log) > 0:
		return "`linkpin policy validate` shows more of the verifier's log"
	case errors.Is(e.Err, ErrUnsupported):
		return "use a kernel that has it, or leave the program out under programs:"
	case errors.Is(e.Err, unix.EPERM):
		return "linkpin needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, or CAP_SYS_ADMIN; name only programs for containers under programs:"
	}
	return ""
}

// explainSlot adds what EINVAL means for a program array: the kernel compares a
// program with those that use the array already (bpf_prog_map_compatible).
func explainSlot(err error) error {
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	return fmt.Errorf("%w: it must have the type, the attach type (since 6.18) and the frags setting of the programs that call it", err)
}
