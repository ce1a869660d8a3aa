// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs/fault"
)

// index finds out whether others can find a sandbox, and whether it knows its members:
// without the one, hooks attach nothing of what CNI notes for a pod, without the other,
// the next sweep takes along what the hook has attached for a container that runs.
func (x *Examination) index(it Item, add addFinding) {
	rec := it.Record
	owner, ok := it.Place.Owner()
	switch {
	case !ok || rec.Netns == nil || rec.Sandbox == "":
	case owner.IsSandbox():
		key, found, err := x.s.Root.SandboxByCookie(rec.Netns.Cookie)
		switch {
		case errors.Is(err, pin.ErrDamaged):
			add("", ProblemIndex, fault.OneLine(err.Error()), "remove that file, then `linkpin verify --repair`")
		case err != nil:
			add("", ProblemUnknown, fault.OneLine(err.Error()), "")
		case !found:
			add("", ProblemIndex, fmt.Sprintf("network namespace %d leads to no sandbox: no hook finds this entry", rec.Netns.Cookie), "")
		case key != owner.Key():
			add("", ProblemIndex, fmt.Sprintf("network namespace %d leads to %v: no hook finds this entry", rec.Netns.Cookie, pin.Sandbox(key)), "make the pod again")
		}
	case it.Place.Kind() == pin.ContainerPlace:
		members, err := x.s.Root.Members(rec.Sandbox)
		if err != nil {
			add("", ProblemUnknown, fault.OneLine(err.Error()), "")
			return
		}
		if slices.Contains(members, owner.Key()) {
			return
		}
		// A member that has ended is removed before its entries, and so is a sandbox.
		if ended, err := x.s.containerEnded(rec); ended || err != nil {
			return
		}
		if known, err := x.s.Root.Entries(pin.Sandbox(rec.Sandbox)); err != nil || len(known) == 0 {
			return // there is nothing to keep
		}
		add("", ProblemIndex, fmt.Sprintf("%v does not know this container as a member", pin.Sandbox(rec.Sandbox)), "")
	}
}

// reindex makes what index missed. The owner of the entry must be locked.
func (x *Examination) reindex(ctx context.Context, it Item) (string, error) {
	owner, _ := it.Place.Owner()
	if owner.IsSandbox() {
		return "noted again", x.s.Root.IndexNetns(ctx, it.Record.Netns.Cookie, owner.Key())
	}
	lock, err := x.s.Root.Lock(ctx, pin.Sandbox(it.Record.Sandbox))
	if err != nil {
		return "", err
	}
	defer x.s.release(lock)
	return "noted again", x.s.JoinSandbox(it.Record.Sandbox, owner.Key())
}
