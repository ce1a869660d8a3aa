// SPDX-License-Identifier: Apache-2.0

// Package entry brings policies to containers and takes them away again: it runs
// load → attach → publish for one entry (one policy at one container, interface
// or network namespace), keeps what is already there, undoes what fails, retires
// what has ended, and compares the record with the kernel. The OCI hook, the CNI
// plugin and the command line all do their work through it.
package entry

import (
	"context"
	"errors"
	"time"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// Deadlines of one invocation (docs/ARCHITECTURE.md, "Deadlines"). They are
// checked between bpf calls, since none of these can be interrupted.
const (
	// LoadTimeout bounds waiting for locks and loading programs.
	LoadTimeout = 5 * time.Second
	// AttachTimeout bounds attaching to interfaces: every TCX or XDP link may wait
	// for an RCU grace period behind others under RTNL.
	AttachTimeout = 30 * time.Second
)

var (
	// ErrInUse means that the id of a container or interface is recorded for
	// another one that still runs.
	ErrInUse = errors.New("is recorded for another one that still runs")
	// ErrNothing means that a policy has programs for interfaces and found none.
	ErrNothing = errors.New("has no interface that the policy's programs could be attached to")
)

// Session is the work of one invocation. All fields but Warn must be set for
// attaching; sweeping and listing need only Root and Roots.
type Session struct {
	Root  *pin.Root
	Plans Plans
	Roots target.Roots
	By    pin.Source
	// Warn takes what went wrong without ending the invocation; nil drops it.
	Warn func(error)

	read remembered

	qdiscs map[device]bool // those that this invocation made

	// step is told where an update has come to; for tests.
	step func(string)

	// Tests: in place of the constants, and of attach.Attach.
	retiredCap    int
	loadTimeout   time.Duration
	attachTimeout time.Duration
	attachLink    func(*ebpf.Program, specs.Attachment, attach.Target) (*attach.Link, error)
}

// Subject is the container, or the sandbox, that is being served. The caller owns
// Cgroup and Netns.
type Subject struct {
	Identity specs.Identity
	Bundle   string // resolved bundle path; empty in CNI
	PID      int    // 0 in CNI
	Start    target.ProcessStart
	Cgroup   *target.Cgroup // nil in CNI, or if no program needs one
	Netns    *target.Netns  // nil if no program needs one
	Sandbox  pin.Key        // of Netns; empty if Netns is nil
	// Uncovered goes into the record of the container's entry, by policy.
	Uncovered map[string][]string
	// Keep are the keys of annotations that go into the record, beside
	// specs.OptInAnnotation.
	Keep []string
	// Recheck is asked when everything is attached and nothing is published yet,
	// whether the targets are still the container's: a process may have been moved,
	// or its pid given away, since they were found. nil: there is nothing to ask.
	Recheck func() error
}

// Want is one entry that should exist.
type Want struct {
	Policy  string
	OnError specs.OnError
	Place   pin.Place
	Kind    specs.TargetKind
	// Interface is what a TargetInterface is attached to; its Netns is the
	// subject's. With TargetNetns and TargetPodCgroup it is the interface that CNI was
	// called for, which only the record names; nil in the hook.
	Interface *target.Interface
	// Cgroup is the pod's, with TargetPodCgroup; else the subject's is meant.
	Cgroup *target.Cgroup
}

// cgroup returns the cgroup that a wanted entry belongs to; nil if there is none.
func (w Want) cgroup(sub *Subject) *target.Cgroup {
	if w.Kind == specs.TargetPodCgroup {
		return w.Cgroup
	}
	return sub.Cgroup
}

// release gives a lock back; what that leaves behind is swept later.
func (s *Session) release(l *pin.Lock) { s.warn(l.Release()) }

func (s *Session) warn(err error) {
	if s.Warn != nil && err != nil {
		s.Warn(err)
	}
}

// expired returns a deadline's error between two calls into the kernel.
func expired(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return nil
}
