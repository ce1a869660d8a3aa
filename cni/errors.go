// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// Error codes of the plugin's own (CNI spec, "Error": 100 and above).
const (
	CodeRefused     uint = 100 // a policy with onError: deny can't be attached
	CodeNoPolicies  uint = 101 // the applied set is missing or damaged
	CodeUnavailable uint = 102 // bpffs or a kernel feature is missing
	CodeDrift       uint = 103 // CHECK: a link is missing, severed, or holds another program
)

// codeNotAvailable is the spec's code for a plugin that can't serve ADD (CNI spec 1.1,
// "STATUS").
const codeNotAvailable uint = 50

// cniError gives err the code that a runtime acts on.
func cniError(err error) error {
	var already *types.Error
	if err == nil || errors.As(err, &already) {
		return err
	}
	code := CodeRefused
	switch {
	case errors.Is(err, pin.ErrDeadline), errors.Is(err, pin.ErrBusy):
		code = types.ErrTryAgainLater
	case errors.Is(err, target.ErrGone):
		code = types.ErrUnknownContainer
	case errors.Is(err, applied.ErrMissing), errors.Is(err, applied.ErrDamaged):
		code = CodeNoPolicies
	case errors.Is(err, pin.ErrNoBPFFS), errors.Is(err, pin.ErrReadOnly), errors.Is(err, pin.ErrForeign),
		errors.Is(err, attach.ErrUnsupported), errors.Is(err, load.ErrUnsupported):
		code = CodeUnavailable
	}
	return types.NewError(code, "linkpin: "+fault.OneLine(err.Error()), "")
}
