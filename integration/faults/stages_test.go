// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"strings"

	"github.com/linkpin/linkpin/integration/faults/tracer"
	"github.com/linkpin/linkpin/specs/fault"
)

// stage is one of the moments at which one of linkpin's programs runs. To try
// another program, add one to the table.
type stage struct {
	name string
	// policies are those in effect, a directory of testdata; "": policies.
	policies string
	// before makes what the program finds; nil: a container, and nothing attached.
	before func(*world) error
	// call is the program that the fault happens to. It is asked after before.
	call func(*world) command
	// run runs the program, if it is not to be called directly.
	run func(*world, tracer.Fault) (*outcome, error)
	// kinds are those that are tried; nil: all.
	kinds []tracer.Fault
	// after judges what is there right after the program, the container still as it
	// was. nil: nothing is asked of it.
	after func(*world, *outcome) error
	// fails: without a fault, the program has to fail.
	fails bool
	// again: a program that has failed, was killed, or has warned of what it left undone
	// is run again, without a fault. It must succeed, and after judges that run instead.
	again bool
	// teardown does what a runtime does for a container that is gone, whatever has
	// happened; nil: nothing. Afterwards, one `linkpin gc --wait=5s` must leave nothing.
	teardown func(*world, *outcome) error
}

// stages are all of them. Filters in the place of links (`tc: {fallback: clsact}`) are
// not among them: only a kernel without TCX lets a policy have one (bpf/entry,
// filterkilled_test.go, and integration/vm).
var stages = []stage{
	{
		name:     "createRuntime",
		call:     createRuntime,
		after:    startedOrNothing(byAll),
		teardown: poststopAfter(tracer.KillExit), // as runc does; crun calls nothing
	},
	{
		// A runtime that starts the container anew; nobody has collected garbage in between.
		name:     "createRuntime, repeated",
		call:     createRuntime,
		kinds:    kinds[:2],
		again:    true,
		after:    func(w *world, _ *outcome) error { return w.covered(byAll) },
		teardown: func(w *world, _ *outcome) error { return w.must(poststop(w)) },
	},
	{
		name:   "createRuntime in a pod",
		before: func(w *world) error { return w.must(cni("ADD")(w)) },
		call:   createRuntime,
		after: func(w *world, o *outcome) error {
			if o.ok() {
				return w.covered(byAll)
			}
			if o.killed() {
				return nil
			}
			return errors.Join(unpinned("containers", "retired", "staging"), w.judged(bySandbox)) // the pod's own stays
		},
		teardown: del,
	},
	{
		name:   "poststop",
		before: func(w *world) error { return errors.Join(w.must(createRuntime(w)), w.end()) },
		call:   poststop,
		again:  true,
		after:  func(*world, *outcome) error { return unpinned("containers", "staging") },
	},
	{
		name:     "ADD",
		call:     cni("ADD"),
		after:    startedOrNothing(bySandbox),
		teardown: del,
	},
	{
		name:     "CHECK",
		before:   func(w *world) error { return w.must(cni("ADD")(w)) },
		call:     cni("CHECK"),
		after:    func(w *world, _ *outcome) error { return w.covered(bySandbox) },
		teardown: del,
	},
	{
		name:   "CHECK of what was stolen",
		before: func(w *world) error { return errors.Join(w.must(cni("ADD")(w)), steal("sandboxes")) },
		call:   cni("CHECK"),
		fails:  true,
		after: func(w *world, o *outcome) error {
			if o.ok() {
				return errors.New("CHECK finds nothing amiss")
			}
			return nil
		},
		teardown: del,
	},
	{
		name:   "DEL",
		before: func(w *world) error { return w.must(cni("ADD")(w)) },
		call:   cni("DEL"),
		again:  true,
		after:  func(*world, *outcome) error { return unpinned("sandboxes", "staging") },
	},
	{
		name:   "GC",
		before: func(w *world) error { return w.must(cni("ADD")(w)) },
		call:   cni("GC"),
		again:  true,
		after:  func(*world, *outcome) error { return unpinned("sandboxes", "staging") },
	},
	{
		name:   "gc",
		before: func(w *world) error { return errors.Join(w.must(createRuntime(w)), abandon(), w.end()) },
		call:   func(*world) command { return linkpin("gc", "--wait=5s") },
		again:  true,
		after:  func(*world, *outcome) error { return unpinned() },
	},
	{
		name: "verify --repair",
		before: func(w *world) error {
			return errors.Join(w.must(createRuntime(w)), steal("containers"), steal("sandboxes"))
		},
		call: func(*world) command {
			c := linkpin("verify", "--repair", "-o", "json")
			// It can't tell of the netfilter link, on some kernels.
			c.fine = func(o *outcome) bool { return o.Exit == fault.ExitUnsure && o.noDrift() == nil }
			return c
		},
		again: true,
		after: func(w *world, _ *outcome) error { return w.covered(byAll) },
	},
	{
		name:  "policy apply",
		call:  func(*world) command { return linkpin("policy", "apply", "--dir", otherDir) },
		after: oldOrNewPolicies,
		teardown: func(w *world, _ *outcome) error {
			return w.restore()
		},
	},
	{
		name:     "createRuntime, tracing",
		policies: "tracing",
		call:     createRuntime,
		after:    startedOrNothing(byTracing),
		teardown: poststopAfter(tracer.KillExit),
	},
	{
		name:     "ADD to a pod's cgroup",
		policies: "pod",
		before:   func(w *world) error { w.pods = true; return nil },
		call:     cni("ADD"),
		after:    startedOrNothing(byPod),
		teardown: del,
	},
	{
		name:     "DEL from a pod's cgroup",
		policies: "pod",
		before:   func(w *world) error { w.pods = true; return w.must(cni("ADD")(w)) },
		call:     cni("DEL"),
		again:    true,
		after:    func(*world, *outcome) error { return unpinned("sandboxes", "staging") },
	},
	{
		name:     "update",
		policies: "update",
		before:   outdated,
		call:     func(*world) command { return linkpin("update", "both") },
		after:    updatedOrNot,
		teardown: func(w *world, _ *outcome) error { return w.use("update") },
	},
	{
		name:     "gc of an update without decision",
		policies: "update",
		before:   unfinished("bpf LINK_UPDATE"),
		call:     func(*world) command { return linkpin("gc", "--wait=5s") },
		again:    true,
		after:    updatedOrNot,
		teardown: func(w *world, _ *outcome) error { return w.use("update") },
	},
	{
		name:     "gc of a decided update",
		policies: "update",
		before:   unfinished("renameat intent"),
		call:     func(*world) command { return linkpin("gc", "--wait=5s") },
		again:    true,
		after:    updatedOrNot,
		teardown: func(w *world, _ *outcome) error { return w.use("update") },
	},
	{
		name:     "gc stopped, createRuntime of the same id",
		before:   func(w *world) error { return errors.Join(w.must(createRuntime(w)), w.end()) },
		run:      stoppedGC(sameContainer),
		kinds:    stopped,
		after:    func(w *world, _ *outcome) error { return w.covered(byAll) },
		teardown: func(w *world, _ *outcome) error { return w.must(poststop(w)) },
	},
	{
		name:     "gc stopped, poststop and createRuntime",
		before:   func(w *world) error { return errors.Join(w.must(createRuntime(w)), w.end()) },
		run:      stoppedGC(func(w *world) error { return errors.Join(w.prompt(poststop(w)), sameContainer(w)) }),
		kinds:    stopped,
		after:    func(w *world, _ *outcome) error { return w.covered(byAll) },
		teardown: func(w *world, _ *outcome) error { return w.must(poststop(w)) },
	},
	{
		name:     "gc stopped, ADD of the same id",
		before:   func(w *world) error { return errors.Join(w.must(cni("ADD")(w)), w.end()) },
		run:      stoppedGC(sameSandbox),
		kinds:    stopped,
		after:    func(w *world, _ *outcome) error { return w.covered(bySandbox) },
		teardown: del,
	},
	{
		name:     "gc stopped, DEL and ADD",
		before:   func(w *world) error { return errors.Join(w.must(cni("ADD")(w)), w.end()) },
		run:      stoppedGC(func(w *world) error { return errors.Join(w.prompt(cni("DEL")(w)), sameSandbox(w)) }),
		kinds:    stopped,
		after:    func(w *world, _ *outcome) error { return w.covered(bySandbox) },
		teardown: del,
	},
	{
		name:     "createRuntime by runc",
		run:      runc,
		kinds:    kinds[:2], // how it was killed is all that runc adds
		after:    runcCovered,
		teardown: runcDelete,
	},
}

// try makes one run, and repeats it if the machine was too slow for it.
func (h *host) try(s *stage, f tracer.Fault) (o *outcome, err error) {
	for range 5 {
		if o, err = h.tryOnce(s, f); !errors.Is(err, errOverloaded) {
			break
		}
	}
	return o, err
}

// tryOnce makes one run: a world, the program with its fault, and what is asked of them.
func (h *host) tryOnce(s *stage, f tracer.Fault) (o *outcome, err error) {
	w, err := h.newWorld(s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.end()) }()
	if s.before != nil {
		if err := s.before(w); err != nil {
			return nil, fmt.Errorf("before: %w", err)
		}
	}
	if s.run != nil {
		o, err = s.run(w, f)
	} else {
		o, err = w.run(s.call(w), f)
	}
	if err != nil {
		return o, err
	}
	err = s.judge(w, o)
	if err != nil {
		err = fmt.Errorf("%v:\n\t%w\n\tat %v", o, err, o.At)
	}
	errs := []error{err, w.end()}
	if s.teardown != nil {
		errs = append(errs, s.teardown(w, o))
	}
	errs = append(errs, w.clean(), h.await(point{s.name, f}, w))
	if err := errors.Join(errs...); err != nil {
		return o, fmt.Errorf("at %v: %w", o.At, err)
	}
	return o, nil
}

func (s *stage) judge(w *world, o *outcome) error {
	errs := []error{o.checkOutput()}
	if s.again && (!o.ok() || strings.Contains(o.stderr, ": warning: ")) {
		again, err := w.plain(o.command)
		switch {
		case err != nil:
			return errors.Join(append(errs, err)...)
		case !again.ok():
			errs = append(errs, fmt.Errorf("again: %w", again.failed()))
		}
		o = again
	}
	if s.after != nil {
		errs = append(errs, s.after(w, o))
	}
	return errors.Join(errs...)
}
