// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"context"
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
// failure of what several of them need is fatal if one of these says deny.
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
	defer c.closeTargets()
	if err := c.findTargets(); err != nil {
		return err
	}
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
	if err := c.attachLocked(ctx); err != nil {
		return err
	}
	c.session.Sweep(ctx)
	return nil
}

// attachLocked does what needs the container's lock: until everything is published
// nobody else may look at the container and find half of it.
func (c *creation) attachLocked(ctx context.Context) error {
	// One deadline for all locks.
	locks, cancel := context.WithTimeout(ctx, entry.LoadTimeout)
	defer cancel()
	lock, err := c.session.Lock(locks, pin.Container(c.key))
	if err != nil {
		return err
	}
	defer c.release(lock)
	digests := map[string]string{}
	for _, p := range c.set.Policies() {
		digests[p.Name] = ""
	}
	for _, p := range c.chosen {
		digests[p.Name] = p.Digest
	}
	have, err := c.session.ClaimContainer(ctx, c.key, &c.subject, digests)
	if err != nil {
		return err
	}
	if !c.needs(ofSandbox...) {
		return c.publish(ctx, nil, have)
	}
	sb, err := c.enterSandbox(locks)
	if err != nil {
		if err := c.fail(err, ofSandbox...); err != nil {
			return err
		}
		return c.publish(ctx, nil, have)
	}
	defer c.release(sb.lock)
	wants, err := c.sandboxWants(ctx, sb)
	if err == nil {
		err = c.publish(ctx, wants, have)
	}
	if err != nil {
		c.warn(c.session.AbandonSandbox(ctx, sb.key, c.key, c.subject.Netns.Cookie))
	}
	return err
}

func (c *creation) release(lock *pin.Lock) { c.warn(lock.Release()) }

// publish attaches to the namespace and its interfaces first and to the
// container's cgroup last: a published container entry means that everything is in
// place.
func (c *creation) publish(ctx context.Context, wants []entry.Want, have map[string]bool) error {
	for _, p := range c.chosen {
		if !have[p.Name] {
			wants = append(wants, entry.Want{
				Policy: p.Name, OnError: p.OnError, Kind: specs.TargetCgroup,
				Place: pin.ContainerEntry(c.key, p.Name),
			})
		}
	}
	_, err := c.session.Attach(ctx, &c.subject, wants)
	return err
}

// sandbox is the container's sandbox while its lock is held.
type sandbox struct {
	key     pin.Key
	lock    *pin.Lock
	entries []pin.Place // of this very namespace
}

// enterSandbox locks the sandbox of the container's namespace and joins it. The
// caller must release its lock.
func (c *creation) enterSandbox(ctx context.Context) (*sandbox, error) {
	key, lock, err := c.session.LockSandbox(ctx, c.subject.Netns, "")
	if err != nil {
		return nil, err
	}
	sb := &sandbox{key: key, lock: lock}
	sb.entries, err = c.session.ClaimSandbox(key, &c.subject)
	if err == nil {
		err = c.session.JoinSandbox(key, c.key)
	}
	if err != nil {
		c.warn(c.session.AbandonSandbox(ctx, key, c.key, c.subject.Netns.Cookie))
		c.release(lock)
		return nil, err
	}
	c.subject.Sandbox = key
	// An id is believed only if it is one that is recorded for the namespace.
	if c.id.SandboxID != "" && (pin.SandboxKey(c.id.SandboxID) == key || c.session.Named(sb.entries, c.id.SandboxID)) {
		c.subject.Identity.SandboxID = c.id.SandboxID
	}
	return sb, nil
}

// sandboxWants lists the interface and namespace entries that are missing. What CNI
// has attached to the pod's cgroup must be there already: another container of the
// pod may run.
func (c *creation) sandboxWants(ctx context.Context, sb *sandbox) ([]entry.Want, error) {
	err := c.each(func(p applied.Summary) error {
		return c.session.PodCovers(ctx, sb.key, p.Name, &c.subject)
	}, specs.TargetPodCgroup)
	if err != nil {
		return nil, err
	}
	var wants []entry.Want
	err = c.each(func(p applied.Summary) error {
		place := pin.NetnsEntry(sb.key, p.Name)
		covered, err := c.session.Covered(ctx, place)
		if err == nil && !covered {
			wants = append(wants, entry.Want{Policy: p.Name, OnError: p.OnError, Kind: specs.TargetNetns, Place: place})
		}
		return err
	}, specs.TargetNetns)
	if err != nil || !c.needs(specs.TargetInterface) {
		return wants, err
	}
	interfaces, err := c.subject.Netns.Interfaces()
	if err != nil {
		return wants, c.fail(err, specs.TargetInterface)
	}
	err = c.each(func(p applied.Summary) error {
		more, err := c.interfaceWants(ctx, sb, p, interfaces)
		wants = append(wants, more...)
		return err
	}, specs.TargetInterface)
	// What a policy wanted before it was left out goes with it.
	wants = slices.DeleteFunc(wants, func(w entry.Want) bool {
		return !slices.ContainsFunc(c.chosen, func(p applied.Summary) bool { return p.Name == w.Policy })
	})
	return wants, err
}

// interfaceWants lists the entries of one policy that are missing on a
// container's interfaces. A policy that finds none at all fails, unless it has
// programs for the cgroup: then its record says what is not covered.
func (c *creation) interfaceWants(ctx context.Context, sb *sandbox, p applied.Summary, interfaces []target.Interface) ([]entry.Want, error) {
	plan, _, err := c.session.Plan(p.Name)
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
		place := pin.HookInterfaceEntry(sb.key, iface.Name, p.Name)
		covered, err := c.session.Covered(ctx, append(entry.On(sb.entries, iface.Name, p.Name), place)...)
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
	case attachesTo(p, []specs.TargetKind{specs.TargetCgroup, specs.TargetPodCgroup}):
		if c.subject.Uncovered == nil {
			c.subject.Uncovered = map[string][]string{}
		}
		c.subject.Uncovered[p.Name] = append(c.subject.Uncovered[p.Name], "packet sockets not covered: the container had no interface to attach to when it was created")
	default:
		return nil, fault.New("policy "+p.Name, entry.ErrNothing,
			"it is not there yet if the runtime makes the network later (docker, user namespaces) and not at all with network none:"+
				" let the CNI plugin alone attach the policy (select: networks), exclude such containers, or say onError: allow")
	}
	return wants, nil
}

// each calls fn for every chosen policy with programs for one of the kinds of
// targets. A policy that fails is left out if it says onError: allow.
func (c *creation) each(fn func(applied.Summary) error, kinds ...specs.TargetKind) error {
	var kept []applied.Summary
	for _, p := range c.chosen {
		if attachesTo(p, kinds) {
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

// fail leaves out the policies with programs for one of the kinds, or returns err
// if one of them says deny: those that need nothing of it are not concerned.
func (c *creation) fail(err error, kinds ...specs.TargetKind) error {
	return c.each(func(applied.Summary) error { return err }, kinds...)
}

func (c *creation) needs(kinds ...specs.TargetKind) bool {
	return slices.ContainsFunc(c.chosen, func(p applied.Summary) bool { return attachesTo(p, kinds) })
}

func attachesTo(p applied.Summary, kinds []specs.TargetKind) bool {
	return slices.ContainsFunc(p.Targets, func(k specs.TargetKind) bool { return slices.Contains(kinds, k) })
}
