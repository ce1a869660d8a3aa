// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

func withNetfilter(t *testing.T, list func(*target.Netns, *specs.Netfilter) ([]attach.NetfilterProgram, error)) {
	t.Helper()
	before := netfilterPrograms
	t.Cleanup(func() { netfilterPrograms = before })
	netfilterPrograms = list
}

// Where the kernel lists netfilter's hooks, a link there is compared like any other.
func TestNetfilterListed(t *testing.T) {
	ps := interfacePlans(t)
	ps["nf"] = netfilterPlan(t, "nf")
	f := newFixture(t, ps)
	s := newSandbox(t, "pod", "lpnf0")
	f.mustAdd(t, s, "nf")
	place := pin.NetnsEntry(s.sub.Sandbox, "nf")
	row := func() pin.ProgramRecord {
		it, _ := f.Look(place)
		return it.Record.Programs[0]
	}
	var failure error
	shift := int32(0)
	detached := uint32(0) // link
	withNetfilter(t, func(n *target.Netns, nf *specs.Netfilter) ([]attach.NetfilterProgram, error) {
		if n.Cookie != s.sub.Netns.Cookie || *nf != *row().Netfilter {
			t.Errorf("asked for %+v in namespace %d", nf, n.Cookie)
		}
		if row().LinkID == detached {
			return nil, failure
		}
		return []attach.NetfilterProgram{{ID: 1, Priority: nf.Priority}, {ID: row().ProgramID, Priority: nf.Priority + shift}}, failure
	})
	wantProblems(t, f.examined(t, place))
	shift = 1
	wantProblems(t, f.examined(t, place), ProblemSevered)
	shift = 0
	_, path := f.verified(t, place)
	withLink(t, path, func(l *attach.Link) error { return l.Detach() })
	detached = row().LinkID
	wantProblems(t, f.examined(t, place), ProblemSevered)
	findings, err := f.Repair(context.Background(), place)
	if err != nil || len(findings) != 1 || findings[0].Repaired == "" || findings[0].Err != nil || row().LinkID == detached {
		t.Errorf("%+v, %v", findings, err)
	}
	wantProblems(t, f.examined(t, place))

	failure = errors.New("out of luck")
	wantProblems(t, f.examined(t, place), ProblemUnknown)
	failure = fmt.Errorf("nfnetlink_hook: %w", attach.ErrUnsupported)
	wantProblems(t, f.examined(t, place), ProblemUnknown)
}

// Where it does not, a repair finds out by trying: the place of a link that is attached
// is taken.
func TestNetfilterUnlisted(t *testing.T) {
	ps := interfacePlans(t)
	ps["nf"] = netfilterPlan(t, "nf")
	f := newFixture(t, ps)
	s := newSandbox(t, "pod", "lpnf1")
	f.mustAdd(t, s, "nf")
	place := pin.NetnsEntry(s.sub.Sandbox, "nf")
	withNetfilter(t, func(*target.Netns, *specs.Netfilter) ([]attach.NetfilterProgram, error) {
		return nil, attach.ErrUnsupported
	})
	before, path := f.verified(t, place)
	wantProblems(t, before, ProblemUnknown)
	row := func() pin.ProgramRecord {
		it, _ := f.Look(place)
		return it.Record.Programs[0]
	}
	was := row()
	findings, err := f.Repair(context.Background(), place)
	if err != nil || len(findings) != 1 || findings[0].Problem != ProblemUnconfirmed || findings[0].Problem.Level() != LevelWarning || findings[0].Err != nil || row().LinkID != was.LinkID {
		t.Errorf("%+v, %v", findings, err)
	}
	withLink(t, path, func(l *attach.Link) error { return l.Detach() })
	findings, err = f.Repair(context.Background(), place)
	if err != nil || len(findings) != 1 || findings[0].Problem != ProblemSevered || findings[0].Repaired == "" || row().LinkID == was.LinkID {
		t.Errorf("%+v, %v", findings, err)
	}
	findings, err = f.Repair(context.Background(), place)
	if err != nil || len(findings) != 1 || findings[0].Problem != ProblemUnconfirmed {
		t.Errorf("%+v, %v", findings, err)
	}
}
