// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"testing"

	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

func TestResolve(t *testing.T) {
	const (
		xdp, in, out     = specs.HookXDP, specs.HookTCXIngress, specs.HookTCXEgress
		host, ctr, auto  = specs.SideHost, specs.SideContainer, specs.SideAuto
		from, to, either = specs.FromContainer, specs.ToContainer, specs.Direction("")
	)
	paired := &target.Interface{Device: target.Device{Name: "eth0", Kind: "veth"}, Peer: &target.Device{Name: "veth1"}}
	alone := &target.Interface{Device: target.Device{Name: "net1", Kind: "macvlan"}}
	for _, c := range []struct {
		i    *target.Interface
		hook specs.Hook
		side specs.Side
		dir  specs.Direction

		wantSide specs.Side
		wantHook specs.Hook
		err      error
	}{
		{paired, in, auto, from, host, in, nil},
		{paired, in, auto, to, host, out, nil},
		{paired, out, auto, from, host, in, nil},
		{paired, in, host, from, host, in, nil},
		{paired, out, host, to, host, out, nil},
		{paired, out, ctr, from, ctr, out, nil},
		{paired, in, ctr, to, ctr, in, nil},
		{paired, in, host, either, host, in, nil},
		{paired, out, host, either, host, out, nil},
		{paired, in, ctr, either, ctr, in, nil},
		{paired, xdp, auto, from, host, xdp, nil},
		{paired, xdp, auto, to, ctr, xdp, nil},
		{paired, xdp, host, from, host, xdp, nil},
		{paired, xdp, ctr, to, ctr, xdp, nil},
		{paired, xdp, host, either, host, xdp, nil},
		{paired, xdp, ctr, either, ctr, xdp, nil},
		{paired, xdp, host, to, "", "", ErrUnseen},
		{paired, xdp, ctr, from, "", "", ErrUnseen},

		{alone, in, auto, from, ctr, out, nil},
		{alone, in, auto, to, ctr, in, nil},
		{alone, out, ctr, from, ctr, out, nil},
		{alone, xdp, auto, to, ctr, xdp, nil},
		{alone, xdp, auto, from, "", "", target.ErrNoPeer},
		{alone, xdp, ctr, from, "", "", ErrUnseen},
		{alone, in, host, from, "", "", target.ErrNoPeer},
		{alone, in, host, either, "", "", target.ErrNoPeer},
		{alone, xdp, host, either, "", "", target.ErrNoPeer},
	} {
		side, hook, err := Resolve(specs.Attachment{Hook: c.hook, Side: c.side, Direction: c.dir}, c.i)
		if side != c.wantSide || hook != c.wantHook || !errors.Is(err, c.err) {
			t.Errorf("%s %s side %q direction %q: %q %q %v, want %q %q %v", c.i.Kind, c.hook, c.side, c.dir, side, hook, err, c.wantSide, c.wantHook, c.err)
		}
		if c.err != nil {
			checkFault(t, err, c.err, c.i.Name, "; attach it")
		}
	}
	for _, a := range []specs.Attachment{
		{Hook: "cgroup/connect4", Side: host},
		{Hook: in},
		{Hook: in, Side: "left"},
		{Hook: in, Side: host, Direction: "up"},
	} {
		if side, hook, err := Resolve(a, paired); err == nil {
			t.Errorf("%+v: %s %s, want an error", a, side, hook)
		}
	}
}
