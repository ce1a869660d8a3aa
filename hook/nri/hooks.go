// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/nri/pkg/api"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
)

// The stages at which the hook is called.
const (
	createRuntime = "createRuntime"
	prestart      = "prestart" // the deprecated name of the same moment
	poststop      = "poststop"
)

// hooks returns the hooks as they are in the specification of a container.
func hooks(path string, caller specs.Caller) *api.Hooks {
	hook := func(stage string) []*api.Hook {
		return []*api.Hook{{
			Path:    path,
			Args:    []string{filepath.Base(path), stage, "--caller", string(caller)},
			Timeout: api.Int(int(change.HookTimeout.Seconds())),
		}}
	}
	return &api.Hooks{CreateRuntime: hook(createRuntime), Poststop: hook(poststop)}
}

// missing returns those hooks of want that a container does not have yet, nil if it
// has all. A runtime handler with a base_runtime_spec may have brought them.
func missing(have, want *api.Hooks) *api.Hooks {
	m := &api.Hooks{}
	// A container that calls linkpin at prestart is served at the same moment.
	if !calls(append(slices.Clone(have.GetCreateRuntime()), have.GetPrestart()...), want.CreateRuntime[0], createRuntime, prestart) {
		m.CreateRuntime = want.CreateRuntime
	}
	if !calls(have.GetPoststop(), want.Poststop[0], poststop) {
		m.Poststop = want.Poststop
	}
	return m.Hooks()
}

// calls reports whether one of the hooks calls the same program as want at one of
// the stages, on behalf of the same caller and about all policies. The hook of a CDI
// device does not count: it asks for the policies of that device and no others.
func calls(have []*api.Hook, want *api.Hook, stages ...string) bool {
	caller := want.GetArgs()[3]
	return slices.ContainsFunc(have, func(h *api.Hook) bool {
		if filepath.Base(h.GetPath()) != filepath.Base(want.GetPath()) || len(h.GetArgs()) == 0 {
			return false
		}
		args := h.GetArgs()[1:]
		stage := slices.ContainsFunc(args, func(a string) bool { return slices.Contains(stages, a) })
		narrowed := slices.ContainsFunc(args, func(a string) bool { return a == "--policy" || strings.HasPrefix(a, "--policy=") })
		i := slices.Index(args, "--caller")
		named := slices.Contains(args, "--caller="+caller) || i >= 0 && i+1 < len(args) && args[i+1] == caller
		return stage && named && !narrowed
	})
}
