// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/specs"
)

var (
	// ErrUnsupported means that the kernel has no such link; see UnsupportedError.
	ErrUnsupported = errors.New("not supported by this kernel")
	// ErrBusy means that somebody else's program keeps ours off: the only slot is
	// taken, or a program was attached so that it excludes others.
	ErrBusy = errors.New("is occupied")
	// ErrExist means that the same program is at the same hook already.
	ErrExist = errors.New("is attached there already")
	// ErrFull means that the hook takes no more programs, whoever's they are.
	ErrFull = errors.New("takes no more programs")
)

// UnsupportedError says which link the kernel lacks.
type UnsupportedError struct {
	Feature string        // "tcx link"
	Since   hooks.Version // first kernel that has it
	Have    hooks.Version // this kernel; zero if it could not be told
	Err     error         // what the kernel said
}

// Error names the feature and the kernel it needs.
func (e *UnsupportedError) Error() string {
	why := "requires >= " + e.Since.String()
	switch {
	case !e.Have.Less(e.Since):
		why = "it is built without it"
	case e.Have != hooks.Version{}:
		why += ", this is " + e.Have.String()
	}
	return fmt.Sprintf("%s: %v (%s)", e.Feature, ErrUnsupported, why)
}

// Is makes errors.Is(err, ErrUnsupported) true.
func (e *UnsupportedError) Is(target error) bool { return target == ErrUnsupported }

// Unwrap returns what the kernel said.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// enotsupp is the kernel's own ENOTSUPP, which has no name outside it.
const enotsupp = unix.Errno(524)

// kernelRelease is replaced in tests.
var kernelRelease = func() (hooks.Version, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return hooks.Version{}, err
	}
	var v hooks.Version
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &v.Major, &v.Minor)
	return v, err
}

// unsupported returns an error if that is what err means, and nil if not. Nothing is
// probed ahead, since each probe costs what an attachment costs. EINVAL is
// what a kernel says to a link or attach type it does not know, but it has other
// reasons, so that it counts only on a kernel that is too old.
func unsupported(h specs.Hook, err error) *UnsupportedError {
	have, unknown := kernelRelease()
	u := &UnsupportedError{Feature: feature(h), Since: hooks.Since(h), Have: have, Err: err}
	if feature(h) == tcxLink {
		if refusesTCX(err) && lacksTCX() {
			return u
		}
		return nil
	}
	switch {
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, enotsupp), errors.Is(err, unix.EOPNOTSUPP):
		return u
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		if unknown == nil && have.Less(u.Since) {
			return u
		}
	}
	return nil
}

// feature names the kind of link, or the attach type where that came later.
func feature(h specs.Hook) string {
	switch h {
	case specs.HookTCXIngress, specs.HookTCXEgress:
		return tcxLink
	case specs.HookSKLookup, specs.HookFlowDissector:
		return string(h) + " network namespace link"
	}
	if h.Target() == specs.TargetCgroup && hooks.Since(h) == (hooks.Version{Major: 5, Minor: 7}) {
		return "cgroup link"
	}
	return string(h) + " link"
}

// remedied is an error with what the user can do about it.
type remedied struct {
	error
	remedy string
}

func (r *remedied) Unwrap() error { return r.error }

func remedy(err error, text string) error { return &remedied{err, text} }
