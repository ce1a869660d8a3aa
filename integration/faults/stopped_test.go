// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"time"

	"github.com/linkpin/linkpin/integration/faults/tracer"
)

// stopped is what happens to a gc that others must not wait for.
var stopped = []tracer.Fault{{Action: tracer.Stop}}

// patience is how long a call may take that nobody is to hold up. Who waits for somebody
// else's lock gives up after 5 s, and fails.
const patience = 4 * time.Second

// stoppedGC runs gc, which is stopped at one of its calls, with whatever it holds. The
// others do their work meanwhile, or afterwards if it has not come to that call.
func stoppedGC(others func(*world) error) func(*world, tracer.Fault) (*outcome, error) {
	return func(w *world, f tracer.Fault) (*outcome, error) {
		done := false
		var err error
		meanwhile := func() { done, err = true, others(w) }
		o, runErr := w.runStopped(linkpin("gc", "--wait=5s"), f, meanwhile)
		if err != nil && o != nil {
			err = fmt.Errorf("while gc is stopped at %v: %w", o.At, err)
		}
		if runErr == nil && !o.ok() {
			runErr = o.failed()
		}
		if !done {
			meanwhile()
		}
		return o, errors.Join(err, runErr)
	}
}

// prompt runs a program that must succeed without waiting for anybody.
func (w *world) prompt(c command) error {
	start := time.Now()
	o, err := w.plain(c)
	switch took := time.Since(start); {
	case err != nil:
		return err
	case !o.ok():
		return o.failed()
	case took > patience:
		return fmt.Errorf("it took %v: %v", took, o)
	}
	return nil
}

// sameContainer starts a container with the id and the bundle of the one that gc takes
// away, and another one beside it, which ends.
func sameContainer(w *world) error {
	if err := w.start(); err != nil {
		return err
	}
	if err := w.prompt(createRuntime(w)); err != nil {
		return err
	}
	return errors.Join(w.judged(byAll), w.beside(func(other *world) error {
		err := other.prompt(createRuntime(other))
		if err == nil {
			err = other.judged(byAll)
		}
		return errors.Join(err, other.end(), other.prompt(poststop(other)))
	}))
}

// sameSandbox does the same for a sandbox.
func sameSandbox(w *world) error {
	if err := w.start(); err != nil {
		return err
	}
	if err := w.prompt(cni("ADD")(w)); err != nil {
		return err
	}
	return errors.Join(w.judged(bySandbox), w.beside(func(other *world) error {
		err := other.prompt(cni("ADD")(other))
		if err == nil {
			err = other.judged(bySandbox)
		}
		return errors.Join(err, other.prompt(cni("DEL")(other)))
	}))
}

// beside starts another container for do. What is made there is awaited with the rest.
func (w *world) beside(do func(*world) error) error {
	other, err := w.container(w.id + "-b")
	if err == nil {
		err = do(other)
	}
	err = errors.Join(err, other.end())
	w.besides = append(w.besides, other.created...)
	w.veths = append(w.veths, other.veths...)
	return err
}
