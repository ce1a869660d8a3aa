// SPDX-License-Identifier: Apache-2.0

// Package hook is the OCI side of linkpin: it reads a container's state as a
// runtime hands it to a hook, finds out who the container is and where it runs,
// and has the selected policies attached (createRuntime, prestart) or retired
// (poststop).
package hook

import (
	"errors"
	"io"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
)

// Stage is a stage of the container lifecycle (runtime-spec, config.md, "POSIX-platform Hooks").
type Stage string

// The stages at which linkpin is called. prestart is the deprecated name of
// createRuntime's moment; a runtime that is configured with both calls linkpin
// twice, and the second call finds everything in place.
const (
	CreateRuntime Stage = "createRuntime"
	Prestart      Stage = "prestart"
	Poststop      Stage = "poststop"
)

// Hook is one invocation. The zero value of every root means the real place; they
// are set by tests only, never from the environment or an annotation.
type Hook struct {
	Stage  Stage
	Caller specs.Caller
	// Requests are the policies that the hook's arguments name: the container gets
	// these and nothing else (see specs.Choose). They count at createRuntime only.
	Requests []string
	State    io.Reader // the container's state (runtime-spec, runtime.md, "State")
	BPFFS    pin.Options
	Roots    target.Roots
	Applied  applied.Options
	Exempt   string // default applied.DefaultExempt
	// Warn takes what went wrong without failing the hook; it may be nil.
	Warn func(error)
}

var (
	// ErrState means a state that can't be understood.
	ErrState = errors.New("is not a container state")
	// ErrTooLate means a container whose process runs already.
	ErrTooLate = errors.New("runs already: its programs would come after its first instruction")
	// ErrVM means a container that runs in a virtual machine or under a kernel of
	// its own, where programs on the host see nothing of it.
	ErrVM = errors.New("runs under a kernel of its own")
)

func (h *Hook) warn(err error) {
	if h.Warn != nil && err != nil {
		h.Warn(err)
	}
}
