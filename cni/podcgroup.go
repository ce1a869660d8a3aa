// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// podCgroup is the cgroup of the pod that an ADD is for, while the sandbox is locked.
type podCgroup struct {
	*Plugin
	session *entry.Session
	path    string // as the runtime gives it; "" if it does not
	caller  specs.Caller
	cgroup  *target.Cgroup // nil until a policy needs it
}

// errNoCgroupPath means that the runtime did not say which cgroup the pod has.
var errNoCgroupPath = errors.New("the runtime has not passed the cgroup of the pod (cgroupPath)")

// claim opens and verifies the pod's cgroup if a policy for it has no entry yet. It
// returns the policies that go on: one that fails is left out if it says onError:
// allow.
func (c *podCgroup) claim(ctx context.Context, chosen []applied.Summary, sandbox pin.Key) ([]applied.Summary, error) {
	kept := chosen[:0:0]
	for _, p := range chosen {
		if slices.Contains(p.Targets, specs.TargetPodCgroup) {
			err := c.claimFor(ctx, pin.PodCgroupEntry(sandbox, p.Name), p.Name, sandbox)
			if err != nil && p.OnError != specs.Allow {
				return nil, err
			}
			if err != nil {
				c.warn(fmt.Errorf("policy %s left out (onError: allow): %w", p.Name, err))
				continue
			}
		}
		kept = append(kept, p)
	}
	return kept, nil
}

func (c *podCgroup) claimFor(ctx context.Context, place pin.Place, policy string, sandbox pin.Key) error {
	// A chain entry may serve several runtimes and name none. Only those that have
	// pods pass a cgroup.
	if c.caller != specs.CallerNone {
		if err := entry.NeedsPods(c.caller, policy); err != nil {
			return err
		}
	}
	covered, err := c.session.Covered(ctx, place)
	if err != nil || covered && c.path == "" { // CRI-O passes it for one of a pod's networks
		return err
	}
	if c.path == "" {
		return fault.New("policy "+policy, errNoCgroupPath,
			`add "cgroupPath": true to the capabilities of linkpin-cni's chain entry (linkpin install cni); it takes containerd 1.7.1 or CRI-O 1.28`)
	}
	if c.cgroup == nil {
		cg, err := target.PodCgroup(c.Roots, c.path)
		if err != nil {
			return fault.New("policy "+policy, err, "")
		}
		c.cgroup = cg
	}
	if covered {
		return c.same(place, policy)
	}
	return c.session.ClaimPodCgroup(sandbox, c.cgroup)
}

// same reports whether the entry that covers a policy is on this cgroup.
func (c *podCgroup) same(place pin.Place, policy string) error {
	item, ok := c.session.Look(place)
	if !ok || item.Err != nil {
		return item.Err
	}
	if item.Record.Cgroup == nil || item.Record.Cgroup.ID != c.cgroup.ID {
		return fault.New("policy "+policy, fmt.Errorf("the sandbox has an entry on another cgroup than %s: its id %w", c.cgroup.Path, entry.ErrInUse),
			"delete that sandbox first (CNI DEL)")
	}
	return nil
}

// confirm looks again for other sandboxes on the cgroup when everything is
// published: two that were made at the same time have not seen each other before.
func (c *podCgroup) confirm(chosen []applied.Summary, published []pin.Place, sandbox pin.Key) error {
	mine := slices.DeleteFunc(slices.Clone(published), func(p pin.Place) bool { return p.Kind() != pin.PodCgroupPlace })
	if len(mine) == 0 {
		return nil
	}
	err := c.session.ClaimPodCgroup(sandbox, c.cgroup)
	if err == nil {
		return nil
	}
	for _, p := range mine {
		if slices.ContainsFunc(chosen, func(s applied.Summary) bool { return s.Name == p.Policy() && s.OnError != specs.Allow }) {
			return errors.Join(err, c.session.Withdraw(published))
		}
	}
	c.warn(fmt.Errorf("policies for the cgroup of the pod left out (onError: allow): %w", err))
	return c.session.Withdraw(mine)
}

func (c *podCgroup) close() {
	if c.cgroup != nil {
		c.warn(c.cgroup.Close())
	}
}

// dropDrained takes down what an earlier sandbox of the pod has left on its cgroup.
// It is done last, so that programs that stay in force have no gap.
func (p *Plugin) dropDrained(conf *Conf) {
	if conf.RuntimeConfig.CgroupPath == "" {
		return
	}
	s, done, err := p.existing()
	if s == nil {
		p.warn(err)
		return
	}
	defer done()
	cg, err := target.PodCgroup(p.Roots, conf.RuntimeConfig.CgroupPath)
	if err != nil {
		return // no policy needs it, and nothing is attached to what is not there
	}
	p.warn(s.DropDrained(cg))
	p.warn(cg.Close())
}
