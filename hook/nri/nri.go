// SPDX-License-Identifier: Apache-2.0

// Package nri is a plugin of the Node Resource Interface, by which containerd and
// CRI-O let others change what a container is made of. It puts linkpin's hooks into
// every container's specification and passes on the annotations of its pod that
// policies look at; the work is the hook's. It holds no state.
//
// A runtime goes on without a plugin that it has lost, and before NRI 0.12.5 also
// without one that has not answered in time (2 s). What the plugin can do about that
// it does: it stays up with a configuration that it can't use and refuses every
// container; it asks for requests to fail that it has not answered; and it also
// validates, because between 0.10 and 0.12.4 a runtime refuses a container whose
// validators do not answer. The rest is required_plugins in the runtime's
// configuration: see docs/nri.md.
package nri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/nri/pkg/api"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// Name is the plugin's name, as required_plugins has it.
const Name = "linkpin-nri"

// Index is the plugin's place among others. NRI calls them in this order.
const Index = "10"

var (
	// ErrNoHook means that linkpin-hook can't be run.
	ErrNoHook = errors.New("can't be run as a hook")
	// ErrConfig means a configuration that can't be used.
	ErrConfig = errors.New("can't be used")
	// ErrRuntime means a runtime whose containers linkpin does not know.
	ErrRuntime = errors.New("is not a runtime that linkpin knows")
	// ErrMissing means a container that would start without linkpin's hooks.
	ErrMissing = errors.New("would start without linkpin's hooks")
	// ErrAnnotation means an annotation that must not reach a runtime.
	ErrAnnotation = errors.New("is an annotation that runtimes obey")
)

// Plugin implements the interfaces of package stub. The zero value is ready for use;
// its methods may be called at once.
type Plugin struct {
	// File is read if the runtime sends no configuration, as it does to plugins that
	// it has not started itself. Default: DefaultFile. It may be missing.
	File string
	// NRIVersion returns the version of NRI in the runtime ("v0.12.3"); it is called
	// in Configure. nil: unknown, which is an old one.
	NRIVersion func() string
	// Applied says where the applied policies are; the zero value is the real place.
	Applied applied.Options

	mu     sync.Mutex
	hook   string       // path of linkpin-hook
	caller specs.Caller // containerd or crio
	// refuse is why no container may be created. Configure keeps it rather than
	// fail: a plugin that fails there is left out, and nobody would be refused.
	refuse error
}

// FailurePolicy is what the plugin asks of the runtime (NRI 0.12.5 and newer; others
// ignore it): a request that it does not answer fails, and it is asked again next
// time.
func FailurePolicy() *api.FailurePolicy {
	return &api.FailurePolicy{FailRequest: true, KeepConnected: true}
}

// Configure takes the configuration. Whatever is wrong with it is the error of each
// CreateContainer from then on.
func (p *Plugin) Configure(_ context.Context, config, runtime, _ string) (api.EventMask, error) {
	c, err := p.config(config)
	caller, known := callers[runtime]
	if err == nil && !known {
		err = fault.New("runtime "+runtime, ErrRuntime, "linkpin's NRI plugin works with containerd and CRI-O")
	}
	p.mu.Lock()
	p.hook, p.caller, p.refuse = c.Hook, caller, err
	p.mu.Unlock()

	var events api.EventMask
	events.Set(api.Event_CREATE_CONTAINER)
	if p.NRIVersion != nil && validates(p.NRIVersion()) {
		events.Set(api.Event_VALIDATE_CONTAINER_ADJUSTMENT)
	}
	return events, nil
}

// callers are the names that runtimes give themselves (containerd: version.Name;
// CRI-O: internal/nri).
var callers = map[string]specs.Caller{
	"containerd": specs.CallerContainerd,
	"cri-o":      specs.CallerCRIO,
}

// CreateContainer returns the hooks and annotations that are missing. On an error,
// a *fault.Error, the runtime does not create the container.
func (p *Plugin) CreateContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	want, err := p.wanted()
	if err != nil {
		return nil, nil, err
	}
	annotations, err := p.annotations(pod, c)
	if err != nil {
		return nil, nil, err
	}
	return &api.ContainerAdjustment{Hooks: missing(c.GetHooks(), want), Annotations: annotations}, nil, nil
}

// ValidateContainerAdjustment refuses a container that would start without the
// hooks. Runtimes ask validators last.
func (p *Plugin) ValidateContainerAdjustment(_ context.Context, r *api.ValidateContainerAdjustmentRequest) error {
	want, err := p.wanted()
	if err != nil {
		return err
	}
	all := (&api.Hooks{}).Append(r.GetContainer().GetHooks()).Append(r.GetAdjust().GetHooks())
	if missing(all, want) != nil {
		return fault.New("container "+r.GetContainer().GetName(), ErrMissing, "create it again; if it happens often, raise plugin_request_timeout")
	}
	return nil
}

// wanted returns the hooks that every container must have.
func (p *Plugin) wanted() (*api.Hooks, error) {
	p.mu.Lock()
	hook, caller, err := p.hook, p.caller, p.refuse
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := checkHook(hook); err != nil {
		return nil, err
	}
	return hooks(hook, caller), nil
}

// checkHook looks for linkpin-hook where the runtime will. A hook that can't be
// started fails the container later and says less.
func checkHook(path string) error {
	const remedy = "install it there, or run `linkpin install nri` again"
	switch st, err := os.Stat(path); {
	case err != nil:
		return fault.New(path, fmt.Errorf("%w: %w", ErrNoHook, err), remedy)
	case !st.Mode().IsRegular() || st.Mode()&0o111 == 0:
		return fault.New(path, fmt.Errorf("%w: it is no executable file", ErrNoHook), remedy)
	}
	return nil
}
