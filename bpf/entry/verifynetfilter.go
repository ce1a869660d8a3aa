// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// netfilterPrograms is replaced in tests: few kernels have nfnetlink_hook.
var netfilterPrograms = attach.NetfilterPrograms

// compareNetfilter tells whether a netfilter link is attached, which its info does
// not: the list of the namespace's hooks does. unknown is what to say where it can't
// be told.
func (s *Session) compareNetfilter(it Item, p pin.ProgramRecord, unknown string) (Problem, string) {
	ns, err := s.reopenNetns(it.Place, it.Record)
	if errors.Is(err, target.ErrGone) {
		return ProblemUnknown, unknown + ", and its namespace can't be reached"
	}
	if err != nil {
		return ProblemUnknown, unknown + ": " + err.Error()
	}
	defer func() { s.warn(ns.Close()) }()
	programs, err := netfilterPrograms(ns, p.Netfilter)
	switch {
	case errors.Is(err, attach.ErrUnsupported):
		return ProblemUnknown, unknown + " (it is built without CONFIG_NETFILTER_NETLINK_HOOK)"
	case err != nil:
		return ProblemUnknown, unknown + ": " + err.Error()
	}
	if slices.Contains(programs, attach.NetfilterProgram{ID: p.ProgramID, Priority: p.Netfilter.Priority}) {
		return "", ""
	}
	return ProblemSevered, fmt.Sprintf("program %d of link %d is not at netfilter %s %s with priority %d",
		p.ProgramID, p.LinkID, p.Netfilter.Family, p.Netfilter.Hook, p.Netfilter.Priority)
}

// retryNetfilter attaches a netfilter program again of which it could not be told
// whether it is attached, and leaves every other finding as it is: the kernel takes no
// program where there is anything of the same priority. If there is, nothing is changed, and
// it still can't be told by whom the place is taken: a healthy link looks like that, so it
// is a warning and no reason for a timer's run to fail each time.
func (s *Session) retryNetfilter(ctx context.Context, it Item, f *Finding) {
	i := slices.IndexFunc(it.Record.Programs, func(p pin.ProgramRecord) bool { return p.Name == f.Program })
	if it.Record.Programs[i].Hook != specs.HookNetfilter || it.Links[i].Err != nil {
		return
	}
	again := *f
	again.Problem = ProblemSevered
	how, err := s.repair(ctx, it, &again)
	switch {
	case err == nil:
		f.Problem, f.Detail, f.Repaired = ProblemSevered, "it was attached to nothing", how
	case errors.Is(err, attach.ErrBusy):
		f.Problem = ProblemUnconfirmed
		f.Detail += "; its place is taken, as it is when it is attached"
	default:
		f.Err = err
	}
}
