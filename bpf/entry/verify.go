// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// Problem is what is wrong with one link, or with an entry as a whole.
type Problem string

// The problems. Drift means that a link that should be live is not, or is not what
// was recorded.
const (
	ProblemSevered  Problem = "severed"  // drift: force-detached while its target lives
	ProblemUnpinned Problem = "unpinned" // drift: the pin is gone, the link is not
	ProblemMissing  Problem = "missing"  // drift: pin and link are gone
	ProblemProgram  Problem = "program"  // drift: the link holds another program
	ProblemLink     Problem = "link"     // drift: the pin leads to another link
	ProblemUnknown  Problem = "unknown"  // could not tell
	ProblemEnded    Problem = "ended"    // no drift: the target is gone
)

// Drift reports whether p means that a promise is broken.
func (p Problem) Drift() bool {
	return p != ProblemUnknown && p != ProblemEnded
}

// Finding is one problem.
type Finding struct {
	Place    pin.Place
	Record   *pin.Record // nil if it can't be read
	Program  string      // name of the attachment; empty: the whole entry
	Problem  Problem
	Detail   string
	Repaired string // what was done about it; empty: nothing
	Err      error  // why it could not be told or repaired
}

// Verify compares an entry with the kernel. Retired entries have nothing to keep
// and give no findings.
func (s *Session) Verify(it Item) []Finding {
	if it.Retired != nil {
		return nil
	}
	if it.Record == nil {
		return []Finding{{Place: it.Place, Problem: ProblemUnknown, Detail: "the record can't be read", Err: it.Err}}
	}
	var out []Finding
	for i, p := range it.Record.Programs {
		problem, detail := compare(p, it.Links[i])
		if problem == "" {
			continue
		}
		f := Finding{Place: it.Place, Record: it.Record, Program: p.Name, Problem: problem, Detail: detail}
		if problem.Drift() && problem != ProblemProgram {
			// A link without a target is as it should be.
			lives, err := s.targetLives(it.Place, it.Record, p)
			switch {
			case err != nil:
				f.Problem, f.Err = ProblemUnknown, err
			case !lives:
				f.Problem, f.Detail = ProblemEnded, "its target is gone"
			}
		}
		out = append(out, f)
	}
	return out
}

// compare tells what is wrong with one link; "" means nothing.
func compare(p pin.ProgramRecord, l LinkState) (Problem, string) {
	switch {
	case errors.Is(l.Err, fs.ErrNotExist):
		if linkExists(p.LinkID) {
			return ProblemUnpinned, fmt.Sprintf("link %d is alive but no longer pinned", p.LinkID)
		}
		return ProblemMissing, fmt.Sprintf("link %d and its pin are gone", p.LinkID)
	case l.Err != nil:
		return ProblemUnknown, l.Err.Error()
	case l.Info.LinkID != p.LinkID:
		return ProblemLink, fmt.Sprintf("the pin holds link %d, recorded is %d", l.Info.LinkID, p.LinkID)
	case l.Info.State == attach.Severed:
		return ProblemSevered, fmt.Sprintf("link %d is attached to nothing", p.LinkID)
	case l.Info.ProgramID != p.ProgramID || l.Info.ProgramTag != p.Tag:
		return ProblemProgram, fmt.Sprintf("program %d (%s), recorded is %d (%s)", l.Info.ProgramID, l.Info.ProgramTag, p.ProgramID, p.Tag)
	case l.Info.State == attach.Unknown:
		return ProblemUnknown, "the kernel does not tell whether a " + string(p.Hook) + " link is attached"
	}
	return "", ""
}

func linkExists(id uint32) bool {
	l, err := attach.OpenID(id)
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// targetLives reports whether what a program was attached to is still there.
func (s *Session) targetLives(place pin.Place, rec *pin.Record, p pin.ProgramRecord) (bool, error) {
	if p.Target == specs.TargetCgroup {
		ended, err := s.containerEnded(rec)
		return !ended, err
	}
	t, done, err := s.reopen(place, rec, p)
	if err != nil {
		if errors.Is(err, target.ErrGone) || errors.Is(err, target.ErrMismatch) || errors.Is(err, target.ErrNoPeer) {
			return false, nil
		}
		return false, err
	}
	done()
	return t != (attach.Target{}), nil
}

// reopen finds the target of a recorded program again and verifies that it is the
// same. The caller must call done.
func (s *Session) reopen(place pin.Place, rec *pin.Record, p pin.ProgramRecord) (t attach.Target, done func(), err error) {
	if p.Hook.Target() == specs.TargetCgroup {
		if rec.Cgroup == nil {
			return t, nil, fmt.Errorf("cgroup of container %s: %w", rec.Identity.ContainerID, target.ErrGone)
		}
		cg, err := target.OpenCgroup(rec.Cgroup.Path, rec.Cgroup.ID)
		if err != nil {
			return t, nil, err
		}
		return attach.Target{Cgroup: cg}, func() { s.warn(cg.Close()) }, nil
	}
	ns, err := s.reopenNetns(place, rec)
	if err != nil {
		return t, nil, err
	}
	done = func() { s.warn(ns.Close()) }
	if p.Hook.Target() == specs.TargetNetns {
		return attach.Target{Netns: ns}, done, nil
	}
	iface, err := ns.Interface(rec.Interface.Name)
	if err == nil && iface.Index != rec.Interface.Index {
		err = fmt.Errorf("interface %s has index %d, recorded is %d: %w", iface.Name, iface.Index, rec.Interface.Index, target.ErrMismatch)
	}
	if err == nil && p.Side == specs.SideHost && (iface.Peer == nil || iface.Peer.Index != p.Ifindex) {
		err = fmt.Errorf("interface %s: %w", iface.Name, target.ErrNoPeer)
	}
	if err != nil {
		done()
		return t, nil, err
	}
	return attach.Target{Interface: iface}, done, nil
}

// reopenNetns opens the recorded namespace by its recorded path or, when the
// process behind that is gone, through the containers that joined the sandbox.
func (s *Session) reopenNetns(place pin.Place, rec *pin.Record) (*target.Netns, error) {
	if rec.Netns == nil {
		return nil, fmt.Errorf("network namespace of %s: %w", place, target.ErrGone)
	}
	paths := []string{rec.Netns.Path}
	if o, ok := place.Owner(); ok && o.IsSandbox() {
		members, err := s.Root.Members(o.Key())
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			paths = append(paths, s.netnsPaths(m)...)
		}
	}
	for _, path := range paths {
		ns, err := target.OpenNetns(path)
		if err != nil {
			continue // the next one may lead there
		}
		if ns.Cookie == rec.Netns.Cookie {
			return ns, nil
		}
		s.warn(ns.Close())
	}
	return nil, fmt.Errorf("network namespace %s: %w", rec.Netns.Path, target.ErrGone)
}

// netnsPaths returns the paths by which the entries of a container knew its namespace.
func (s *Session) netnsPaths(container pin.Key) []string {
	places, err := s.Root.Entries(pin.Container(container))
	if err != nil {
		return nil
	}
	var paths []string
	for _, p := range places {
		if rec, err := s.readRecord(p); err == nil && rec.Netns != nil {
			paths = append(paths, rec.Netns.Path)
		}
	}
	return paths
}
