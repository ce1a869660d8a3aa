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

func (p *Plugin) add(ctx context.Context, conf *Conf, args *skel.CmdArgs) error {
	id := identity(conf, args.ContainerID, args.Args)
	set, err := applied.Open(p.Applied)
	if err != nil {
		return p.withoutPolicies(id, err)
	}
	defer set.Close()
	chosen, err := choose(id, set)
	if err != nil || len(chosen) == 0 {
		return err
	}
	err = p.attach(ctx, set, chosen, id, args)
	if err == nil {
		return nil
	}
	for _, c := range chosen {
		if c.OnError != specs.Allow {
			return err
		}
	}
	p.warn(fmt.Errorf("sandbox %s, interface %s: goes without its policies (onError: allow): %w", args.ContainerID, args.IfName, err))
	return nil
}

// withoutPolicies decides what happens when there is no intact applied set.
func (p *Plugin) withoutPolicies(id specs.Identity, cause error) error {
	path := p.Exempt
	if path == "" {
		path = applied.DefaultExempt
	}
	exempt, err := applied.ReadExempt(path)
	p.warn(err)
	if exempt.Match(id) {
		p.warn(fmt.Errorf("sandbox %s goes without policies, as %s allows: %w", id.ContainerID, path, cause))
		return nil
	}
	return cause
}

// choose returns the selected policies that have something for CNI to attach.
func choose(id specs.Identity, set *applied.Set) ([]applied.Summary, error) {
	all := set.Policies()
	picked, err := specs.Choose(id, applied.Candidates(all))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(all), func(s applied.Summary) bool {
		return !slices.ContainsFunc(picked, func(c specs.Candidate) bool { return c.Name == s.Name }) ||
			!slices.Contains(s.Targets, specs.TargetInterface) && !slices.Contains(s.Targets, specs.TargetNetns)
	}), nil
}

func (p *Plugin) attach(ctx context.Context, set *applied.Set, chosen []applied.Summary, id specs.Identity, args *skel.CmdArgs) error {
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
	s := &entry.Session{Root: root, Plans: set, Roots: p.Roots, By: pin.ByCNI, Warn: p.Warn}
	key, lock, err := s.LockSandbox(ctx, ns, args.ContainerID)
	if err != nil {
		return err
	}
	sub := &entry.Subject{Identity: id, Netns: ns, Sandbox: key}
	err = s.ClaimSandbox(key, sub)
	var wants []entry.Want
	if err == nil {
		wants, err = missing(s, set, chosen, sub, iface)
	}
	if err == nil {
		_, err = s.Attach(ctx, sub, wants)
	}
	p.warn(lock.Release())
	s.Sweep(ctx)
	return err
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
func missing(s *entry.Session, set *applied.Set, chosen []applied.Summary, sub *entry.Subject, iface *target.Interface) ([]entry.Want, error) {
	all, err := wanted(set, chosen, sub, iface)
	if err != nil {
		return nil, err
	}
	var out []entry.Want
	for _, w := range all {
		covered, err := s.Covered(w.Place)
		if err != nil {
			return nil, err
		}
		if !covered {
			out = append(out, w)
		}
	}
	return out, nil
}

// wanted lists the entries that the interface should have.
func wanted(set *applied.Set, chosen []applied.Summary, sub *entry.Subject, iface *target.Interface) ([]entry.Want, error) {
	var wants []entry.Want
	for _, c := range chosen {
		plan, _, err := set.Plan(c.Name)
		if err != nil {
			return nil, err
		}
		if slices.Contains(c.Targets, specs.TargetNetns) {
			wants = append(wants, entry.Want{
				Policy: c.Name, OnError: c.OnError, Kind: specs.TargetNetns,
				Place: pin.NetnsEntry(sub.Sandbox, c.Name),
			})
		}
		if entry.Attaches(plan, iface.Name) {
			wants = append(wants, entry.Want{
				Policy: c.Name, OnError: c.OnError, Kind: specs.TargetInterface,
				Place:     pin.InterfaceEntry(sub.Sandbox, sub.Identity.Network, iface.Name, c.Name),
				Interface: iface,
			})
		}
	}
	return wants, nil
}
