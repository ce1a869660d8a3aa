// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"context"
	"errors"
	"path/filepath"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs/fault"
)

// Run does what the stage asks for. An error at createRuntime or prestart means
// that the container must not start, and that nothing of it stays attached.
func (h *Hook) Run(ctx context.Context) error {
	st, err := readState(h.State, stateTimeout)
	if err != nil {
		return err
	}
	rootless, err := h.rootless()
	if err != nil {
		return err
	}
	switch h.Stage {
	case CreateRuntime, Prestart:
		if rootless {
			return h.createRootless(st)
		}
		bundle, err := resolveBundle(st)
		if err != nil {
			return err
		}
		return h.create(ctx, st, bundle)
	case Poststop:
		if rootless {
			return nil // nothing was attached
		}
		return h.end(ctx, st)
	}
	return fault.Newf("stage "+string(h.Stage), "is not one at which linkpin works",
		"call it at createRuntime or prestart, and at poststop").WithExit(fault.ExitUsage)
}

// create selects the container's policies and attaches them.
func (h *Hook) create(ctx context.Context, st *oci.State, bundle string) error {
	switch {
	case st.Pid <= 0:
		return stateError("has no pid", nil)
	case st.Status == oci.StateRunning:
		// As at poststart. A container that is restored may be "stopped".
		return fault.New("container "+st.ID, ErrTooLate, "configure the hook at createRuntime, not at poststart")
	}
	id, err := identify(h.Caller, st)
	if err != nil {
		return err
	}
	id.Requests = h.Requests
	selection := entry.Selection{Applied: h.Applied, Exempt: h.Exempt, Object: "container " + st.ID, Warn: h.Warn}
	if h.Caller.HasPods() && len(h.Requests) == 0 {
		selection.Pod = func() (map[string]string, error) { return h.podAnnotations(ctx, st.Pid) }
	}
	set, chosen, err := selection.Choose(id)
	switch {
	case err != nil:
		return err
	case set == nil:
		return h.disinherit(ctx, st, bundle)
	}
	defer set.Close()
	c := &creation{Hook: h, set: set, chosen: chosen, state: st, bundle: bundle, id: id}
	return c.run(ctx)
}

// disinherit makes sure that a container without policies is not under those of a
// container that was in its cgroup before. It sweeps, as every invocation does.
func (h *Hook) disinherit(ctx context.Context, st *oci.State, bundle string) error {
	root, err := pin.Open(h.BPFFS)
	if err != nil {
		return nil // nothing is recorded, or nobody can tell
	}
	defer root.Close()
	s := &entry.Session{Root: root, Roots: h.Roots, By: pin.ByHook, Warn: h.Warn}
	defer s.Sweep(ctx)
	key := pin.ContainerKey(st.ID, bundle)
	retired, err := root.RetiredCount()
	if err != nil {
		h.warn(err) // it keeps nobody from starting who wants nothing of it
		return nil
	}
	if places, err := root.Entries(pin.Container(key)); err != nil || retired+len(places) == 0 {
		h.warn(err)
		return nil
	}
	start, err := target.StartTime(h.Roots, st.Pid)
	if err != nil {
		h.warn(err)
		return nil
	}
	cgroup, err := target.CgroupOfPID(h.Roots, st.Pid)
	if err != nil {
		return nil // it has none of its own that anything could be attached to
	}
	defer cgroup.Close()
	return s.Disinherit(ctx, key, &entry.Subject{PID: st.Pid, Start: start, Cgroup: cgroup})
}

// podAnnotations returns what linkpin-cni has recorded of the annotations of the pod
// in whose network namespace a process is: runtimes hand over a pod's annotations to
// CNI, and to the hook only those on allow-lists (containerd).
func (h *Hook) podAnnotations(ctx context.Context, pid int) (map[string]string, error) {
	root, err := pin.Open(h.BPFFS)
	if errors.Is(err, pin.ErrNoState) || errors.Is(err, pin.ErrNoBPFFS) {
		return nil, nil // nothing is recorded
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	ns, err := target.NetnsOfPID(h.Roots, pid)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	s := &entry.Session{Root: root, Roots: h.Roots, By: pin.ByHook, Warn: h.Warn}
	ctx, cancel := context.WithTimeout(ctx, entry.LoadTimeout)
	defer cancel()
	return s.PodAnnotations(ctx, ns)
}

// end retires what is recorded for the container, if it has really ended.
func (h *Hook) end(ctx context.Context, st *oci.State) error {
	root, err := pin.Open(h.BPFFS)
	if errors.Is(err, pin.ErrNoState) || errors.Is(err, pin.ErrNoBPFFS) {
		return nil // nothing is recorded, so nothing is attached
	}
	if err != nil {
		return err
	}
	defer root.Close()
	s := &entry.Session{Root: root, Roots: h.Roots, By: pin.ByHook, Warn: h.Warn}
	bundle, resolveErr := resolveBundle(st)
	found := false
	if resolveErr == nil {
		found, err = s.EndContainer(ctx, pin.ContainerKey(st.ID, bundle))
	}
	if !found && err == nil && bundle != filepath.Clean(st.Bundle) {
		// The bundle is gone by now, or a symbolic link on the way to it leads
		// elsewhere. The id will do: only what has really ended is retired.
		err = s.EndContainers(ctx, st.ID)
	}
	s.Sweep(ctx)
	return err
}
