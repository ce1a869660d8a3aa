// SPDX-License-Identifier: Apache-2.0

// Package containerd puts containers under linkpin's policies for programs that
// use containerd's Go client themselves. It changes the container's OCI
// specification and does nothing else: containerd needs no configuration, and the
// runtime calls linkpin-hook as it does for everybody.
//
// Containers of Kubernetes need none of it; `linkpin install containerd` covers
// them.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	rspec "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// DefaultHook is where `make install` and packages put linkpin-hook. It is never
// looked for in PATH: whoever can change that would choose what runs as root.
const DefaultHook = "/usr/local/bin/linkpin-hook"

// MinTimeout is the shortest timeout of the hook that is accepted. A runtime that
// kills it before its own deadlines have passed leaves its cleaning up to
// `linkpin gc`.
const MinTimeout = change.HookTimeoutMin

var (
	// ErrName means a name that no policy can have.
	ErrName = errors.New("is not the name of a policy")
	// ErrTooMany means more names than the annotation may hold.
	ErrTooMany = errors.New("asks for too many policies")
	// ErrOption means an option that no hook can be called with.
	ErrOption = errors.New("can't be used for the hook")
)

// Options say how the runtime calls linkpin-hook. The zero value is ready for use.
type Options struct {
	// Hook is the absolute path of linkpin-hook on the machine on which the container
	// will run. Empty: DefaultHook. It need not exist yet.
	Hook string
	// Timeout is when the runtime kills the hook, in whole seconds (a part of one counts
	// as one), MinTimeout at least. Zero: change.HookTimeout.
	Timeout time.Duration
}

// WithPolicies is Options{}.WithPolicies.
func WithPolicies(names ...string) oci.SpecOpts {
	return Options{}.WithPolicies(names...)
}

// WithPolicies makes the runtime attach policies before the container's first
// instruction, and retire them after its last: those named here, which must say
// optIn and must be applied on the machine (`linkpin policy apply`), and those that
// select the container by themselves. Without names these alone.
//
// It adds the names to the annotation linkpin.io/policies, after those that are
// there, and one hook each at createRuntime and poststop; a second call adds names
// but no second hook. Apply it after options that replace annotations or hooks
// (oci.WithSpecFromFile, oci.WithSpecFromBytes).
//
// The hook is called with --caller none: policies may select such a container by
// its annotations, by its caller, or with all. Pod, namespace and image are for
// containers whose runtime vouches for these, so annotations with the keys of
// Kubernetes mean nothing here.
//
// The error is a *fault.Error and leaves the specification as it was. A policy that
// can't be attached is not its business: then client.Container.NewTask fails with
// linkpin's message, and the container does not start (onError: deny).
func (o Options) WithPolicies(names ...string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		path, timeout, err := o.hook()
		if err != nil {
			return err
		}
		annotation, err := merge(s.Annotations[specs.OptInAnnotation], names)
		if err != nil {
			return err
		}
		// Clones: what a program makes all its specifications from may be shared.
		if annotation != "" {
			s.Annotations = maps.Clone(s.Annotations)
			if s.Annotations == nil {
				s.Annotations = map[string]string{}
			}
			s.Annotations[specs.OptInAnnotation] = annotation
		}
		var hooks rspec.Hooks
		if s.Hooks != nil {
			hooks = *s.Hooks
		}
		hooks.CreateRuntime = add(hooks.CreateRuntime, path, "createRuntime", timeout)
		hooks.Poststop = add(hooks.Poststop, path, "poststop", timeout)
		s.Hooks = &hooks
		return nil
	}
}

// hook returns path and timeout (in seconds) of the hook.
func (o Options) hook() (string, int, error) {
	path, timeout := o.Hook, o.Timeout
	if path == "" {
		path = DefaultHook
	}
	if timeout == 0 {
		timeout = change.HookTimeout
	}
	switch {
	case !filepath.IsAbs(path) || strings.ContainsRune(path, 0):
		return "", 0, fault.New("hook "+strconv.Quote(path), fmt.Errorf("its path %w: it is not absolute", ErrOption),
			"give the path of linkpin-hook on the machine that runs the container, such as "+DefaultHook)
	case timeout < MinTimeout:
		return "", 0, fault.New("hook "+path, fmt.Errorf("a timeout of %s %w: it may need longer than that", timeout, ErrOption),
			fmt.Sprintf("give %s or more, or none for %s", MinTimeout, change.HookTimeout))
	}
	return filepath.Clean(path), int((timeout + time.Second - 1) / time.Second), nil
}

// merge appends to the names in an annotation those that it lacks. What is there
// stays as it was written, also if it is wrong: the hook says what about it is.
func merge(annotation string, names []string) (string, error) {
	var have []string
	if strings.TrimSpace(annotation) != "" {
		for name := range strings.SplitSeq(annotation, ",") {
			have = append(have, strings.TrimSpace(name))
		}
	}
	merged := have
	for _, name := range names {
		if !specs.ValidName(name) {
			return "", fault.New("policy "+strconv.Quote(name), ErrName,
				"use the name in the policy's metadata: lower-case letters, digits and hyphens, 63 at most").WithExit(fault.ExitUsage)
		}
		if !slices.Contains(merged, name) {
			merged = append(merged, name)
		}
	}
	if len(merged) == len(have) {
		return annotation, nil
	}
	added := strings.Join(merged[len(have):], ",")
	if len(have) > 0 {
		added = annotation + "," + added
	}
	if len(merged) > specs.MaxOptInNames || len(added) > specs.MaxOptIn {
		return "", fault.New("annotation "+specs.OptInAnnotation,
			fmt.Errorf("%w: %d names in %d bytes, of %d and %d", ErrTooMany, len(merged), len(added), specs.MaxOptInNames, specs.MaxOptIn),
			"put what belongs together into one policy")
	}
	return added, nil
}

// add appends our hook unless it is there; then it gets the timeout. Hooks of
// linkpin with other arguments belong to others: the second call for a container
// finds everything in place.
func add(hooks []rspec.Hook, path, stage string, timeout int) []rspec.Hook {
	ours := rspec.Hook{
		Path:    path,
		Args:    []string{"linkpin-hook", stage, "--caller", string(specs.CallerNone)},
		Timeout: &timeout,
	}
	hooks = slices.Clone(hooks)
	i := slices.IndexFunc(hooks, func(h rspec.Hook) bool {
		return filepath.Clean(h.Path) == path && slices.Equal(h.Args, ours.Args)
	})
	if i < 0 {
		return append(hooks, ours)
	}
	hooks[i].Timeout = &timeout
	return hooks
}
