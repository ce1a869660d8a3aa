// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"context"
	"errors"
	"fmt"
	"slices"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// creation is the work for one container that is being created.
type creation struct {
	*Hook
	set    *applied.Set
	chosen []applied.Summary // shrinks when a policy with onError: allow fails
	state  *oci.State
	bundle string
	id     specs.Identity

	session *entry.Session
	subject entry.Subject
	key     pin.Key
}

// run attaches the chosen policies. A failure of one policy obeys its onError; a
// failure of what all of them need is fatal if one of them says deny.
func (c *creation) run(ctx context.Context) error {
	err := c.attach(ctx)
	if err == nil {
		return nil
	}
	for _, p := range c.chosen {
		if p.OnError != specs.Allow {
			return fault.New("container "+c.id.ContainerID, err, "")
		}
	}
	c.warn(fmt.Errorf("container %s starts without its policies (onError: allow): %w", c.id.ContainerID, err))
	return nil
}

func (c *creation) attach(ctx context.Context) error {
	if err := c.findTargets(); err != nil {
		return err
	}
	defer c.closeTargets()
	if len(c.chosen) == 0 {
		return nil
	}
	root, err := pin.Create(c.BPFFS)
	if err != nil {
		return err
	}
	defer root.Close()
	c.session = &entry.Session{Root: root, Plans: c.set, Roots: c.Roots, By: pin.ByHook, Warn: c.Warn}

	c.key = pin.ContainerKey(c.id.ContainerID, c.bundle)
	lockCtx, cancel := context.WithTimeout(ctx, entry.LoadTimeout)
	defer cancel()
	lock, err := root.Lock(lockCtx, pin.Container(c.key))
	if err != nil {
		return err
	}
	defer c.release(lock)
	have, err := c.session.ClaimContainer(c.key, &c.subject)
	if err != nil {
		return err
	}
	if err := c.attachAll(ctx, have); err != nil {
		return err
	}
	c.session.Sweep(ctx)
	return nil
}

func (c *creation) release(lock *pin.Lock) {
	c.warn(lock.Release())
}

// attachAll attaches to the namespace's interfaces first and to the container's
// cgroup last: a published container entry means that everything is in place.
func (c *creation) attachAll(ctx context.Context, have map[string]bool) (err error) {
	var wants []entry.Want
	if c.needsNetns() {
		key, lock, err := c.session.LockSandbox(ctx, c.subject.Netns, "")
		if err != nil {
			return err
		}
		defer c.release(lock)
		c.subject.Sandbox = key
		c.believeSandbox(key)
		if wants, err = c.sandboxWants(key); err != nil {
			return err
		}
		if err := c.session.JoinSandbox(key, c.key); err != nil {
			return err
		}
		defer func() {
			if err != nil && len(have) == 0 {
				c.warn(c.session.Root.RemoveMember(key, c.key))
			}
		}()
	}
	for _, p := range c.chosen {
		if !have[p.Name] {
			wants = append(wants, entry.Want{
				Policy: p.Name, OnError: p.OnError, Kind: specs.TargetCgroup,
				Place: pin.ContainerEntry(c.key, p.Name),
			})
		}
	}
	_, err = c.session.Attach(ctx, &c.subject, wants)
	return err
}

// believeSandbox keeps a sandbox id only if it is the one that is recorded for the
// container's network namespace.
func (c *creation) believeSandbox(key pin.Key) {
	if c.id.SandboxID != "" && pin.SandboxKey(c.id.SandboxID) == key {
		c.subject.Identity.SandboxID = c.id.SandboxID
	}
}

// sandboxWants lists the interface and namespace entries that are missing.
func (c *creation) sandboxWants(key pin.Key) ([]entry.Want, error) {
	if err := c.session.ClaimSandbox(key, &c.subject); err != nil {
		return nil, err
	}
	interfaces, err := c.subject.Netns.Interfaces()
	if err != nil {
		return nil, err
	}
	var wants []entry.Want
	err = c.each(specs.TargetNetns, func(p applied.Summary) error {
		place := pin.NetnsEntry(key, p.Name)
		covered, err := c.session.Covered(place)
		if err == nil && !covered {
			wants = append(wants, entry.Want{Policy: p.Name, OnError: p.OnError, Kind: specs.TargetNetns, Place: place})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = c.each(specs.TargetInterface, func(p applied.Summary) error {
		more, err := c.interfaceWants(key, p, interfaces)
		wants = append(wants, more...)
		return err
	})
	return wants, err
}

// interfaceWants lists the entries of one policy that are missing on a
// container's interfaces. A policy that finds none at all fails, unless it has
// programs for the cgroup: then its record says what is not covered.
func (c *creation) interfaceWants(key pin.Key, p applied.Summary, interfaces []target.Interface) ([]entry.Want, error) {
	plan, _, err := c.set.Plan(p.Name)
	if err != nil {
		return nil, err
	}
	var wants []entry.Want
	found := false
	for i := range interfaces {
		iface := &interfaces[i]
		if !entry.Attaches(plan, iface.Name) {
			continue
		}
		found = true
		place := pin.HookInterfaceEntry(key, iface.Name, p.Name)
		places, err := c.session.InterfacePlaces(key, iface.Name, p.Name)
		if err != nil {
			return nil, err
		}
		covered, err := c.session.Covered(append(places, place)...)
		if err != nil {
			return nil, err
		}
		if !covered {
			wants = append(wants, entry.Want{
				Policy: p.Name, OnError: p.OnError, Kind: specs.TargetInterface, Place: place, Interface: iface,
			})
		}
	}
	switch {
	case found:
	case slices.Contains(p.Targets, specs.TargetCgroup):
		if c.subject.Uncovered == nil {
			c.subject.Uncovered = map[string][]string{}
		}
		c.subject.Uncovered[p.Name] = append(c.subject.Uncovered[p.Name], "packet sockets not covered: the container has no interface to attach to")
	default:
		return nil, fault.New("policy "+p.Name, entry.ErrNothing,
			"if the runtime makes the network after createRuntime (docker, user namespaces), use the CNI plugin, or say onError: allow")
	}
	return wants, nil
}

// each calls fn for every chosen policy with programs for a kind of target. A
// policy that fails is left out if it says onError: allow.
func (c *creation) each(kind specs.TargetKind, fn func(applied.Summary) error) error {
	var kept []applied.Summary
	for _, p := range c.chosen {
		if slices.Contains(p.Targets, kind) {
			if err := fn(p); err != nil {
				if p.OnError != specs.Allow {
					return err
				}
				c.warn(fmt.Errorf("policy %s left out (onError: allow): %w", p.Name, err))
				continue
			}
		}
		kept = append(kept, p)
	}
	c.chosen = kept
	return nil
}

func (c *creation) needsNetns() bool {
	return slices.ContainsFunc(c.chosen, func(p applied.Summary) bool {
		return slices.Contains(p.Targets, specs.TargetInterface) || slices.Contains(p.Targets, specs.TargetNetns)
	})
}

// findTargets opens what the chosen policies attach to and verifies it.
func (c *creation) findTargets() error {
	start, err := target.StartTime(c.Roots, c.state.Pid)
	if err != nil {
		return fmt.Errorf("pid %d: %w", c.state.Pid, err)
	}
	c.subject = entry.Subject{Identity: c.id, Bundle: c.bundle, PID: c.state.Pid, Start: start}
	c.subject.Identity.SandboxID = ""
	if err := c.refuseVM(); err != nil {
		return err
	}
	cgroup, cgroupErr := target.CgroupOfPID(c.Roots, c.state.Pid)
	if cgroupErr == nil {
		c.subject.Cgroup = cgroup
	}
	if err := c.each(specs.TargetCgroup, func(applied.Summary) error { return cgroupErr }); err != nil {
		return err
	}
	if !c.needsNetns() {
		return nil
	}
	ns, netnsErr := c.openNetns()
	if netnsErr == nil {
		c.subject.Netns = ns
	}
	for _, kind := range []specs.TargetKind{specs.TargetInterface, specs.TargetNetns} {
		if err := c.each(kind, func(applied.Summary) error { return netnsErr }); err != nil {
			c.closeTargets()
			return err
		}
	}
	return nil
}

// openNetns opens the container's network namespace, which must not be the host's.
func (c *creation) openNetns() (*target.Netns, error) {
	ns, err := target.NetnsOfPID(c.Roots, c.state.Pid)
	if err != nil {
		return nil, err
	}
	host, err := ns.IsHost()
	if err == nil && host {
		err = fmt.Errorf("the container shares the host's network namespace, which %w", target.ErrForbidden)
	}
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

func (c *creation) closeTargets() {
	if c.subject.Cgroup != nil {
		c.warn(c.subject.Cgroup.Close())
	}
	if c.subject.Netns != nil {
		c.warn(c.subject.Netns.Close())
	}
}
