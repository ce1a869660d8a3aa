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
	"github.com/linkpin/linkpin/specs/fault"
)

// Problem is what is wrong with one link, with an entry, or with the tree.
type Problem string

// The problems. Drift means that a promise is broken: a link that should be live is
// not, or is not what was recorded, or what others need to find it is gone.
const (
	ProblemSevered  Problem = "severed"  // drift: force-detached while its target lives
	ProblemUnpinned Problem = "unpinned" // drift: the pin is gone, the link is not
	ProblemMissing  Problem = "missing"  // drift: pin and link are gone
	ProblemProgram  Problem = "program"  // drift: the link holds another program
	ProblemLink     Problem = "link"     // drift: the pin leads to another link
	ProblemReplaced Problem = "replaced" // drift: another interface has the name of the one that had the program
	ProblemMoved    Problem = "moved"    // drift: the container's first process is in a cgroup without its programs
	ProblemIndex    Problem = "index"    // drift: the note is gone by which hooks find the sandbox, or its members
	ProblemMode     Problem = "mode"     // drift: owner or permissions in bpffs let others in
	ProblemVanished Problem = "vanished" // drift: the whole entry is gone, what it was for lives

	ProblemInFront   Problem = "in-front"  // warning: a program of somebody else runs before ours
	ProblemBehind    Problem = "behind"    // warning: a program of somebody else may change what ours has allowed
	ProblemRenamed   Problem = "renamed"   // warning: the interface has another name now
	ProblemElsewhere Problem = "elsewhere" // warning: the target is not where it was, the link went with it
	ProblemForeign   Problem = "foreign"   // warning: something in the tree that linkpin has not made
	ProblemStacked   Problem = "stacked"   // warning: several bpffs are mounted over each other
	ProblemReadOnly  Problem = "read-only" // warning: nothing can be attached or mended

	// warning: of a netfilter link the kernel does not tell whether it is attached, and a
	// repair has found its place taken, as it is when it is
	ProblemUnconfirmed Problem = "unconfirmed"

	ProblemOutdated Problem = "outdated" // note: another version of the policy is applied
	ProblemUpdating Problem = "updating" // note: an update is under way, or was left unfinished: gc finishes it
	ProblemUnknown  Problem = "unknown"  // could not tell
	ProblemHidden   Problem = "hidden"   // could not tell: another bpffs lies over the state
	ProblemEnded    Problem = "ended"    // no drift: the target is gone
)

// Level says how much a problem matters.
type Level string

// The levels. Only drift and what could not be told change the exit code.
const (
	LevelDrift   Level = "drift"   // a promise is broken
	LevelUnknown Level = "unknown" // could not tell
	LevelWarning Level = "warning" // every promise holds, and somebody should look
	LevelNote    Level = "note"    // for information
)

// Level returns the level of p.
func (p Problem) Level() Level {
	switch p {
	case ProblemUnknown, ProblemHidden:
		return LevelUnknown
	case ProblemEnded, ProblemOutdated, ProblemUpdating:
		return LevelNote
	case ProblemInFront, ProblemBehind, ProblemRenamed, ProblemElsewhere, ProblemForeign, ProblemStacked, ProblemReadOnly, ProblemUnconfirmed:
		return LevelWarning
	}
	return LevelDrift
}

// Drift reports whether p means that a promise is broken.
func (p Problem) Drift() bool { return p.Level() == LevelDrift }

// Finding is one problem.
type Finding struct {
	Place    pin.Place   // zero if it is about no entry
	Path     string      // below v1, where it is about a file; else empty
	Record   *pin.Record // nil if it can't be read, or if there is none
	Program  string      // name of the attachment; empty: the whole entry
	Problem  Problem
	Detail   string
	Remedy   string // what to do about it where Repair can't; may be empty
	Repaired string // what was done about it; empty: nothing
	Err      error  // why it could not be told or repaired
}

// Verify compares the links of an entry with the kernel: what it finds is drift, or
// could not be told, or has ended. Examination.Entry looks further. Retired entries
// have nothing to keep and give no findings.
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
		if problem == ProblemUnknown && it.Links[i].Err == nil && p.Hook == specs.HookNetfilter {
			problem, detail = s.compareNetfilter(it, p, detail)
		}
		if problem.Drift() && problem != "" {
			problem, detail = s.duringUpdate(it, p, it.Links[i], problem, detail)
		}
		if problem == "" {
			continue
		}
		f := Finding{Place: it.Place, Record: it.Record, Program: p.Name, Problem: problem, Detail: detail}
		if problem == ProblemUnknown && p.Hook == specs.HookNetfilter && it.Links[i].Err == nil {
			f.Remedy = "`linkpin verify --repair` finds out by trying whether its place is free"
		}
		if problem.Drift() && problem != ProblemProgram {
			// A link without a target is as it should be.
			gone, err := s.targetGone(it.Place, it.Record, p)
			switch {
			case err != nil:
				f.Problem, f.Err = ProblemUnknown, err
			case errors.Is(gone, errReplaced):
				f.Problem, f.Detail = ProblemReplaced, fault.OneLine(gone.Error())
				f.Remedy = "start the container again, or take the interface out of it and add it anew"
			case gone != nil && deviceMoved(it.Record, p):
				f.Detail += ": its device is in another network namespace now"
			case gone != nil:
				f.Problem, f.Detail = ProblemEnded, "its target is gone"
			}
		}
		out = append(out, f)
	}
	return out
}

// compare tells what is wrong with one link; "" means nothing.
func compare(p pin.ProgramRecord, l LinkState) (Problem, string) {
	if p.Filter != nil {
		return compareFilter(p, l)
	}
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
	case l.Info.Hook != p.Hook && l.Info.Hook != "":
		return ProblemLink, fmt.Sprintf("link %d is one of %s, recorded is %s", p.LinkID, l.Info.Hook, p.Hook)
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
	gone, err := s.targetGone(place, rec, p)
	return gone == nil && err == nil, err
}

// errEnded means that a container is over.
var errEnded = errors.New("the container has ended")

// targetGone returns why what a program was attached to is not there any more, nil if
// it is.
func (s *Session) targetGone(place pin.Place, rec *pin.Record, p pin.ProgramRecord) (gone, err error) {
	if p.Target == specs.TargetCgroup || p.Target == specs.TargetKernel {
		ended, err := s.containerEnded(rec)
		if ended && err == nil {
			return errEnded, nil
		}
		return nil, err
	}
	_, done, err := s.reopen(place, rec, p)
	switch {
	case err == nil:
		done()
		return nil, nil
	case errors.Is(err, target.ErrGone), errors.Is(err, target.ErrMismatch):
		return err, nil
	case errors.Is(err, target.ErrNoPeer):
		return nil, nil // it lives in another namespace: it can't end before its peer
	}
	return nil, err
}

// reopen finds the target of a recorded program again and verifies that it is the
// same. The caller must call done.
func (s *Session) reopen(place pin.Place, rec *pin.Record, p pin.ProgramRecord) (t attach.Target, done func(), err error) {
	if kind := p.Hook.Target(); kind == specs.TargetCgroup || kind == specs.TargetKernel {
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
	iface, err := findInterface(ns, rec.Interface)
	// Its peer is one for life, whatever its name and index are now.
	if err == nil && p.Side == specs.SideHost && iface.Peer == nil {
		err = fmt.Errorf("interface %s: %w", iface.Name, target.ErrNoPeer)
	}
	if err != nil {
		done()
		return t, nil, err
	}
	return attach.Target{Interface: iface}, done, nil
}

// errReplaced means that an interface is there under the recorded name, but it is
// another one. It comes with target.ErrMismatch.
var errReplaced = errors.New("another interface was made in its place")

// findInterface finds the recorded interface in its namespace, whatever its name is
// now: the kernel gives an index there once, unless somebody asks for a certain one.
func findInterface(ns *target.Netns, rec *pin.InterfaceRecord) (*target.Interface, error) {
	named, err := ns.Interface(rec.Name)
	if err == nil && named.Index == rec.Index {
		return named, nil
	}
	if err != nil && !errors.Is(err, target.ErrGone) {
		return nil, err
	}
	all, other := ns.Interfaces()
	for i := range all {
		if all[i].Index == rec.Index && all[i].Kind == rec.Kind {
			return &all[i], nil
		}
	}
	switch {
	case err == nil: // what is there is not ours, whatever else is
		return nil, fmt.Errorf("interface %s has index %d, the one with the programs had %d: %w (it %w)", rec.Name, named.Index, rec.Index, errReplaced, target.ErrMismatch)
	case other != nil:
		return nil, other
	}
	return nil, err
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
	var unclear error // an error is not an end
	for _, path := range paths {
		ns, err := target.OpenNetns(path)
		if err != nil {
			if unclear == nil && !errors.Is(err, target.ErrGone) && !errors.Is(err, target.ErrMismatch) {
				unclear = err
			}
			continue // the next one may lead there
		}
		if ns.Cookie == rec.Netns.Cookie {
			return ns, nil
		}
		s.warn(ns.Close())
	}
	if unclear != nil {
		return nil, unclear
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
