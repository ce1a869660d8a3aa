// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/specs/fault"
	"github.com/linkpin/linkpin/specs/policy"
)

// Unchecked is a program that this machine can't load whatever it does: the
// kernel lacks its type, or linkpin may not load programs here.
type Unchecked struct {
	Program string // specs.PlanProgram.Key
	Pos     policy.Pos
	Reason  string
}

// String is one line for the user.
func (u Unchecked) String() string {
	return fault.OneLine(fmt.Sprintf("%s: program %s can't be checked here: %s", u.Pos, u.Program, u.Reason))
}

// Verify loads every program, so that the verifier has its say, with plausible
// values for what is known only when a container is attached. Nothing stays. The
// error is a policy.Errors with one error for each program that is refused; each
// wraps a *load.RefusedError, whose Log has all lines of the verifier.
func (p *Prepared) Verify(ctx context.Context) ([]Unchecked, error) {
	var errs policy.Errors
	var unchecked []Unchecked
	refused := map[string]bool{}
	// One by one, so that each has its own error; then all together, since programs
	// that share a program array may not go with each other.
	var all []string
	for _, prog := range p.Plan.Programs {
		all = append(all, prog.Key)
	}
	for _, keys := range append(slices.Collect(slices.Chunk(all, 1)), all) {
		if len(keys) > 1 && len(errs)+len(unchecked) > 0 {
			break
		}
		err := p.verify(ctx, keys)
		if err == nil {
			continue
		}
		key := keys[0]
		var r *load.RefusedError
		if errors.As(err, &r) {
			key = r.Key // it may be a tail-call target
		}
		if refused[key] {
			continue
		}
		refused[key] = true
		if why := p.uncheckable(key, err); why != "" {
			unchecked = append(unchecked, Unchecked{key, p.places[key], why})
			continue
		}
		errs = append(errs, p.explain(key, err, r))
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) > 0 {
		return unchecked, errs
	}
	return unchecked, nil
}

func (p *Prepared) verify(ctx context.Context, keys []string) error {
	c, err := load.Load(ctx, load.Options{
		Plan:     &p.Plan,
		Object:   func(sum string) ([]byte, error) { return p.Objects[sum], nil },
		Values:   plausible(),
		Programs: keys,
	})
	if err != nil {
		return err
	}
	return c.Close()
}

// plausible values fit every field that takes them.
func plausible() load.Values {
	return load.Values{
		Ifindex: 1, PeerIfindex: 1, CgroupID: 1, NetnsCookie: 1, PID: 1,
		IPv4: netip.AddrFrom4([4]byte{192, 0, 2, 1}), IPv6: netip.MustParseAddr("2001:db8::1"),
		MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, PeerMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2},
		PeerName: "v", ContainerID: "c",
	}
}

// uncheckable says why a refusal tells nothing about the program.
func (p *Prepared) uncheckable(key string, err error) string {
	if errors.Is(err, load.ErrUnsupported) {
		return rootCause(err)
	}
	if t, ok := p.programType(key); ok && errors.Is(features.HaveProgramType(t), ebpf.ErrNotSupported) {
		return fmt.Sprintf("this kernel has no programs of type %s", t)
	}
	var v *ebpf.VerifierError
	if errors.Is(err, unix.EPERM) && (!errors.As(err, &v) || len(v.Log) == 0) && !mayLoad() {
		return "linkpin may not load programs"
	}
	return ""
}

// mayLoad tries the simplest map there is.
func mayLoad() bool {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return !errors.Is(err, unix.EPERM)
	}
	m.Close()
	return true
}

func (p *Prepared) programType(key string) (ebpf.ProgramType, bool) {
	for _, prog := range p.Plan.Programs {
		if prog.Key != key || prog.Hook == "" {
			continue
		}
		t, _, err := hooks.Types(prog.Hook)
		return t, err == nil
	}
	return ebpf.UnspecifiedProgram, false
}

// explain puts an error at its place in the policy.
func (p *Prepared) explain(key string, err error, r *load.RefusedError) *fault.Error {
	pos := p.places[key]
	var f *fault.Error
	if r == nil && errors.As(err, &f) {
		return fault.New(pos.String(), fmt.Errorf("%s: %w", f.Object, f.Cause), f.Remedy).WithExit(fault.ExitInput)
	}
	if r == nil {
		return fault.New(pos.String(), err, "").WithExit(fault.ExitInput)
	}
	remedy := ""
	if len(r.Log) > 0 {
		remedy = "correct the program, or attach it where it belongs"
	}
	return fault.New(pos.String(), fmt.Errorf("program %s: %w", key, r), remedy).WithExit(fault.ExitInput)
}

func rootCause(err error) string {
	if r, ok := errors.AsType[*load.RefusedError](err); ok {
		return r.Reason
	}
	return err.Error()
}
