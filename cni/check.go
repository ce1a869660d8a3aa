// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// Check fails if what Add attached is missing, severed, or holds another program,
// or if a selected policy has no entry.
func (p *Plugin) Check(args *skel.CmdArgs) error {
	conf, err := parse(args.StdinData)
	if err == nil {
		err = conf.previous()
	}
	if err != nil {
		return err
	}
	return cniError(p.check(conf, args))
}

func (p *Plugin) check(conf *Conf, args *skel.CmdArgs) error {
	id := identity(conf, args.ContainerID, args.Args)
	sel, err := p.choose(id)
	if sel == nil {
		return err
	}
	defer sel.set.Close()
	ns, err := openNetns(args.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	iface, err := ns.Interface(args.IfName)
	if err != nil {
		return fmt.Errorf("interface %s in %s: %w", args.IfName, args.Netns, err)
	}
	s, done, err := p.existing()
	if err != nil {
		return err
	}
	if s != nil {
		defer done()
	}
	key := pin.SandboxKey(args.ContainerID)
	if s != nil {
		if key, _, err = s.SandboxOf(ns, args.ContainerID); err != nil {
			return err
		}
	}
	sub := &entry.Subject{Identity: id, Netns: ns, Sandbox: key}
	expected, err := wanted(sel.set.Plan, sel.chosen, sub, iface)
	if err != nil {
		return err
	}
	if len(sel.annotations) > 0 {
		expected = append(expected, entry.Want{Policy: entry.Note, Place: entry.NotePlace(key, id.Network, iface.Name)})
	}
	for _, w := range expected {
		if s == nil {
			return drift(w.Place, errors.New("linkpin has no state on this node"))
		}
		if err := p.checkEntry(s, w, ns.Cookie); err != nil {
			return err
		}
	}
	return nil
}

// checkEntry compares one entry with the kernel. That a policy with onError: allow
// has none is as ADD left it, and said.
func (p *Plugin) checkEntry(s *entry.Session, w entry.Want, cookie uint64) error {
	place := w.Place
	item, ok := s.Look(place)
	for _, other := range covering(w)[1:] {
		if !ok {
			if item, ok = s.Look(other); ok {
				place = other
			}
		}
	}
	switch {
	case !ok && w.OnError == specs.Allow:
		p.warn(fmt.Errorf("%s: nothing is attached for it (onError: allow)", place))
		return nil
	case !ok:
		return drift(place, fmt.Errorf("nothing is attached for it: %w", fs.ErrNotExist))
	case item.Err != nil:
		return drift(place, item.Err)
	case item.Record.Netns == nil || item.Record.Netns.Cookie != cookie:
		return drift(place, errors.New("it is recorded for another network namespace"))
	}
	for _, f := range s.Verify(item) {
		if f.Problem == entry.ProblemUpdating {
			continue // the old program runs, or the new one
		}
		if f.Problem != entry.ProblemUnknown {
			return drift(place, fmt.Errorf("program %s: %s: %s", f.Program, f.Problem, f.Detail))
		}
		p.warn(fmt.Errorf("%s: program %s: %s", place, f.Program, f.Detail))
	}
	return nil
}

func drift(place pin.Place, cause error) error {
	return types.NewError(CodeDrift, "linkpin: "+fault.OneLine(place.String()+": "+cause.Error()), "run `linkpin verify --repair`")
}

// Status says whether Add could work: the policies are applied and bpffs is there
// (CNI spec 1.1, "STATUS").
func (p *Plugin) Status(args *skel.CmdArgs) error {
	if _, err := parse(args.StdinData); err != nil {
		return err
	}
	set, err := applied.Open(p.Applied)
	if err != nil {
		return types.NewError(codeNotAvailable, "linkpin: "+fault.OneLine(err.Error()), "")
	}
	defer set.Close()
	root, err := pin.Create(p.BPFFS)
	if err != nil {
		return types.NewError(codeNotAvailable, "linkpin: "+fault.OneLine(err.Error()), "")
	}
	return root.Close()
}
