// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
)

// Del retires what is attached to CNI_IFNAME. It needs neither the namespace nor a
// previous result, may be called again, and succeeds when nothing is there: an
// error would keep the plugins before us in the chain from cleaning up. So what
// goes wrong here is reported and left to a later sweep.
func (p *Plugin) Del(args *skel.CmdArgs) error {
	ownCheck(args)
	conf, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	s, done, err := p.existing()
	if s == nil {
		p.warn(err)
		return nil
	}
	defer done()
	p.warn(s.DelInterface(context.Background(), entry.Deletion{
		ContainerID: args.ContainerID, Network: conf.Name, Interface: args.IfName, Netns: args.Netns,
	}))
	s.Sweep(context.Background())
	return nil
}

// GC retires what belongs to no valid attachment of the network, and sweeps what
// has ended besides.
func (p *Plugin) GC(args *skel.CmdArgs) error {
	conf, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	s, done, err := p.existing()
	if s == nil {
		return cniError(err)
	}
	defer done()
	ctx := context.Background()
	valid := make(map[[2]string]bool, len(conf.ValidAttachments))
	for _, a := range conf.ValidAttachments {
		valid[[2]string{a.ContainerID, a.IfName}] = true
	}
	err = s.GCNetwork(ctx, conf.Name, func(id, ifname string) bool { return valid[[2]string{id, ifname}] })
	_, gcErr := s.GC(ctx, entry.GCOptions{})
	return cniError(errors.Join(err, gcErr))
}

// sweep takes away a little of what has ended. That there is no state, or that it can't be
// opened, is nothing to an ADD that has nothing to attach.
func (p *Plugin) sweep(ctx context.Context) {
	s, done, err := p.existing()
	if s == nil || err != nil {
		return
	}
	defer done()
	s.Sweep(ctx)
}

// existing opens the state if there is any; the session is nil if there is none.
func (p *Plugin) existing() (*entry.Session, func(), error) {
	root, err := pin.Open(p.BPFFS)
	if errors.Is(err, pin.ErrNoState) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	s := &entry.Session{Root: root, Roots: p.Roots, By: pin.ByCNI, Warn: p.Warn}
	return s, func() { p.warn(root.Close()) }, nil
}
