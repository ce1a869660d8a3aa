// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// Add attaches the selected policies to CNI_IFNAME and prints the previous result.
// On error nothing of this call stays attached.
func (p *Plugin) Add(args *skel.CmdArgs) error {
	ownCheck(args)
	conf, err := parse(args.StdinData)
	if err == nil {
		err = conf.previous()
	}
	if err == nil {
		err = cniError(p.add(context.Background(), conf, args))
	}
	if err != nil {
		return err
	}
	return types.PrintResult(conf.PrevResult, conf.CNIVersion)
}

// ownCheck keeps skel from comparing the namespace with the plugin's own after the
// work is done: openNetns has done so before it, and a call that fails then would
// leave what it has attached, or keep the plugins before us from cleaning up.
func ownCheck(args *skel.CmdArgs) { args.NetnsOverride = "1" }

func (p *Plugin) add(ctx context.Context, conf *Conf, args *skel.CmdArgs) error {
	sel, err := p.choose(identity(conf, args.ContainerID, args.Args))
	if sel != nil {
		defer sel.set.Close()
		err = p.attach(ctx, sel, conf, args)
	}
	if err == nil {
		p.dropDrained(conf)
		if sel == nil {
			p.sweep(ctx)
		}
		return nil
	}
	if sel == nil || !sel.mayFail() {
		return err
	}
	p.warn(fmt.Errorf("sandbox %s, interface %s: goes without its policies (onError: allow): %w", args.ContainerID, args.IfName, err))
	return nil
}

// selection is what CNI has to do for a sandbox.
type selection struct {
	set    *applied.Set
	chosen []applied.Summary // have something for CNI to attach
	// annotations are those of the pod that policies look at. Runtimes tell CNI all of a
	// pod's, and containerd hooks only those on its allow-lists, so they are recorded.
	annotations map[string]string
	noted       bool // they are
}

// mayFail reports whether the sandbox may go on after an error: every policy that it
// was to get says onError: allow, and what its pod asks for is recorded. Without the
// note the hooks of its containers would not know.
func (s *selection) mayFail() bool {
	return len(s.chosen) > 0 && (s.noted || len(s.annotations) == 0) &&
		!slices.ContainsFunc(s.chosen, func(c applied.Summary) bool { return c.OnError != specs.Allow })
}

// choose selects the policies of a sandbox. It returns nil if there is nothing to do.
// The caller must Close the set.
func (p *Plugin) choose(id specs.Identity) (*selection, error) {
	set, chosen, keys, err := entry.Selection{
		Applied: p.Applied, Exempt: p.Exempt, Object: "sandbox " + id.ContainerID, Warn: p.Warn,
	}.ChooseForPod(id)
	if set == nil {
		return nil, err
	}
	s := &selection{set: set, annotations: entry.Noted(id.Annotations, keys)}
	for _, c := range chosen {
		if slices.ContainsFunc(c.Targets, func(k specs.TargetKind) bool { return k != specs.TargetCgroup && k != specs.TargetKernel }) {
			s.chosen = append(s.chosen, c)
		}
	}
	if !id.Caller.HasPods() && id.Caller != specs.CallerNone {
		s.annotations = nil // its hook has all of them
	}
	if len(s.chosen)+len(s.annotations) == 0 {
		return nil, set.Close()
	}
	return s, nil
}

func (p *Plugin) attach(ctx context.Context, sel *selection, conf *Conf, args *skel.CmdArgs) error {
	ns, err := openNetns(args.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	iface, err := ns.Interface(args.IfName)
	if err != nil {
		return fmt.Errorf("interface %s in %s: %w", args.IfName, args.Netns, err)
	}
	root, err := pin.Create(p.BPFFS)
	if err != nil {
		return err
	}
	defer root.Close()
	s := &entry.Session{Root: root, Plans: sel.set, Roots: p.Roots, By: pin.ByCNI, Warn: p.Warn}
	key, lock, err := s.LockSandbox(ctx, ns, args.ContainerID)
	if err != nil {
		return err
	}
	sub := &entry.Subject{Identity: identity(conf, args.ContainerID, args.Args), Netns: ns, Sandbox: key}
	noted, err := sel.note(s, sub, iface)
	if err == nil {
		err = p.attachLocked(ctx, s, sel, conf, sub, iface)
	}
	if err != nil {
		if noted && !sel.mayFail() {
			p.warn(s.Withdraw([]pin.Place{entry.NotePlace(key, sub.Identity.Network, iface.Name)}))
		}
		p.warn(s.AbandonSandbox(ctx, key, "", ns.Cookie))
	}
	p.warn(lock.Release())
	if err == nil {
		s.Sweep(ctx)
	}
	return err
}

// note records what the pod's annotations say, for the hooks of its containers.
func (s *selection) note(session *entry.Session, sub *entry.Subject, iface *target.Interface) (made bool, err error) {
	if len(s.annotations) == 0 {
		return false, nil
	}
	if _, err := session.ClaimSandbox(sub.Sandbox, sub); err != nil {
		return false, err
	}
	made, err = session.NotePod(sub, iface, s.annotations)
	s.noted = err == nil
	return made, err
}

// attachLocked does what needs the sandbox's lock.
func (p *Plugin) attachLocked(ctx context.Context, s *entry.Session, sel *selection, conf *Conf, sub *entry.Subject, iface *target.Interface) error {
	if _, err := s.ClaimSandbox(sub.Sandbox, sub); err != nil {
		return err
	}
	pod := &podCgroup{Plugin: p, session: s, path: conf.RuntimeConfig.CgroupPath, caller: conf.Caller}
	defer pod.close()
	chosen, err := pod.claim(ctx, sel.chosen, sub.Sandbox)
	if err != nil {
		return err
	}
	wants, err := missing(ctx, s, chosen, sub, iface, pod.cgroup)
	if err != nil {
		return err
	}
	published, err := s.Attach(ctx, sub, wants)
	if err != nil {
		return err
	}
	return pod.confirm(chosen, published, sub.Sandbox)
}

// openNetns opens CNI_NETNS, which must not be the host's.
func openNetns(path string) (*target.Netns, error) {
	ns, err := target.OpenNetns(path)
	if err != nil {
		return nil, err
	}
	host, err := ns.IsHost()
	if err == nil && host {
		err = fault.New("network namespace "+path, fmt.Errorf("it is the host's, which %w", target.ErrForbidden),
			"CNI is not for containers on the host's network")
	}
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// missing lists the entries that the interface should have and has not.
func missing(ctx context.Context, s *entry.Session, chosen []applied.Summary, sub *entry.Subject, iface *target.Interface, pod *target.Cgroup) ([]entry.Want, error) {
	all, err := wanted(s.Plan, chosen, sub, iface)
	if err != nil {
		return nil, err
	}
	var out []entry.Want
	for _, w := range all {
		covered, err := s.Covered(ctx, covering(w)...)
		if err != nil {
			return nil, err
		}
		if !covered {
			if w.Kind == specs.TargetPodCgroup {
				w.Cgroup = pod
			}
			out = append(out, w)
		}
	}
	return out, nil
}

// covering lists the places of which one is enough for a wanted entry: the hook may
// have come to the interface first.
func covering(w entry.Want) []pin.Place {
	places := []pin.Place{w.Place}
	if owner, ok := w.Place.Owner(); ok && w.Kind == specs.TargetInterface {
		places = append(places, pin.HookInterfaceEntry(owner.Key(), w.Interface.Name, w.Policy))
	}
	return places
}

// wanted lists the entries that the interface should have. plan is Plans.Plan.
func wanted(plan func(string) (*specs.Plan, string, error), chosen []applied.Summary, sub *entry.Subject, iface *target.Interface) ([]entry.Want, error) {
	var wants []entry.Want
	for _, c := range chosen {
		what, _, err := plan(c.Name)
		if err != nil {
			return nil, err
		}
		if slices.Contains(c.Targets, specs.TargetNetns) {
			wants = append(wants, entry.Want{
				Policy: c.Name, OnError: c.OnError, Kind: specs.TargetNetns,
				Place:     pin.NetnsEntry(sub.Sandbox, c.Name),
				Interface: iface,
			})
		}
		if slices.Contains(c.Targets, specs.TargetPodCgroup) {
			wants = append(wants, entry.Want{
				Policy: c.Name, OnError: c.OnError, Kind: specs.TargetPodCgroup,
				Place:     pin.PodCgroupEntry(sub.Sandbox, c.Name),
				Interface: iface,
			})
		}
		if entry.Attaches(what, iface.Name) {
			wants = append(wants, entry.Want{
				Policy: c.Name, OnError: c.OnError, Kind: specs.TargetInterface,
				Place:     pin.InterfaceEntry(sub.Sandbox, sub.Identity.Network, iface.Name, c.Name),
				Interface: iface,
			})
		}
	}
	return wants, nil
}
