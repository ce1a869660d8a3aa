// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"context"
	"errors"
	"fmt"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// Run does what the stage asks for. An error at createRuntime or prestart means
// that the container must not start, and that nothing of it stays attached.
func (h *Hook) Run(ctx context.Context) error {
	st, err := readState(h.State)
	if err != nil {
		return err
	}
	bundle, err := resolveBundle(st, h.Stage)
	if err != nil {
		return err
	}
	switch h.Stage {
	case CreateRuntime, Prestart:
		return h.create(ctx, st, bundle)
	case Poststop:
		return h.end(ctx, st, bundle)
	}
	return fault.Newf("stage "+string(h.Stage), "is not one at which linkpin works",
		"call it at createRuntime or prestart, and at poststop").WithExit(fault.ExitUsage)
}

// create selects the container's policies and attaches them.
func (h *Hook) create(ctx context.Context, st *oci.State, bundle string) error {
	if st.Pid <= 0 {
		return stateError("has no pid", nil)
	}
	id := identify(h.Caller, st)
	set, err := applied.Open(h.Applied)
	if err != nil {
		return h.withoutPolicies(id, err)
	}
	defer set.Close()
	chosen, err := choose(id, set)
	if err != nil || len(chosen) == 0 {
		return err
	}
	c := &creation{Hook: h, set: set, chosen: chosen, state: st, bundle: bundle, id: id}
	return c.run(ctx)
}

// withoutPolicies decides what happens when there is no intact applied set:
// nobody starts, but those whom the node's owner has exempted.
func (h *Hook) withoutPolicies(id specs.Identity, cause error) error {
	path := h.Exempt
	if path == "" {
		path = applied.DefaultExempt
	}
	exempt, err := applied.ReadExempt(path)
	if err != nil {
		h.warn(err)
	}
	if exempt.Match(id) {
		h.warn(fmt.Errorf("container %s starts without policies, as %s allows: %w", id.ContainerID, path, cause))
		return nil
	}
	return cause
}

// choose returns the policies that an identity gets.
func choose(id specs.Identity, set *applied.Set) ([]applied.Summary, error) {
	all := set.Policies()
	picked, err := specs.Choose(id, applied.Candidates(all))
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(picked))
	for _, c := range picked {
		names[c.Name] = true
	}
	var out []applied.Summary
	for _, p := range all {
		if names[p.Name] {
			out = append(out, p)
		}
	}
	return out, nil
}

// end retires what is recorded for the container, if it has really ended.
func (h *Hook) end(ctx context.Context, st *oci.State, bundle string) error {
	root, err := pin.Open(h.BPFFS)
	if errors.Is(err, pin.ErrNoState) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	s := &entry.Session{Root: root, Roots: h.Roots, By: pin.ByHook, Warn: h.Warn}
	err = s.EndContainer(ctx, pin.ContainerKey(st.ID, bundle))
	s.Sweep(ctx)
	return err
}
