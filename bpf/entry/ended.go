// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"errors"
	"fmt"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
)

// containerEnded reports whether the container of a record is over: its cgroup is
// gone or has no process left. A container without a recorded cgroup is over when
// its first process is, and so is one whose cgroup is not where it was: a path says
// nothing where cgroup2 is mounted elsewhere.
func (s *Session) containerEnded(rec *pin.Record) (bool, error) {
	if rec.Cgroup == nil {
		return s.processEnded(rec)
	}
	cg, err := target.OpenCgroup(rec.Cgroup.Path, rec.Cgroup.ID)
	switch {
	case errors.Is(err, target.ErrGone):
		if ended, err := s.processEnded(rec); err != nil || ended {
			return ended, err
		}
		removed, err := target.CgroupRemoved(s.Roots, rec.PID, rec.Cgroup.Path, rec.Cgroup.ID)
		return removed || errors.Is(err, target.ErrGone), nil
	case err != nil:
		return false, fmt.Errorf("cgroup of container %s: %w", rec.Identity.ContainerID, err)
	}
	defer cg.Close()
	populated, err := cg.Populated()
	if errors.Is(err, target.ErrGone) {
		return true, nil
	}
	return !populated && err == nil, err
}

func (s *Session) processEnded(rec *pin.Record) (bool, error) {
	if rec.PID <= 0 {
		return true, nil
	}
	start, err := target.StartTime(s.Roots, rec.PID)
	if errors.Is(err, target.ErrGone) {
		return true, nil
	}
	return err == nil && uint64(start) != rec.Start, err
}

// netnsEnded reports whether the recorded path no longer leads to the recorded
// namespace. A link may still hold the namespace itself (netfilter).
func netnsEnded(rec *pin.Record) (bool, error) {
	if rec.Netns == nil {
		return true, nil
	}
	ns, err := target.OpenNetns(rec.Netns.Path)
	switch {
	case errors.Is(err, target.ErrGone), errors.Is(err, target.ErrMismatch):
		return true, nil
	case err != nil:
		return false, err
	}
	defer ns.Close()
	return ns.Cookie != rec.Netns.Cookie, nil
}

// linkStates is how many links of an entry are in which state. Those that nothing but
// linkpin takes off count as unknown.
type linkStates struct {
	live, severed, unknown int
}

// states opens every link of an entry and asks the kernel; filters count as links.
func (s *Session) states(e *pin.Entry) (linkStates, error) {
	var n linkStates
	for _, name := range e.Links() {
		info, err := linkInfo(e.LinkPath(name))
		if err != nil {
			return n, fmt.Errorf("link %s: %w", name, err)
		}
		switch {
		case drains(info):
			n.live++
		case info.State == attach.Severed:
			n.severed++
		default:
			n.unknown++
		}
	}
	if !e.HasFilters() {
		return n, nil
	}
	note, err := e.Filters()
	if err != nil {
		return n, err
	}
	live, err := s.liveFilters(note)
	n.live, n.severed = n.live+live, n.severed+len(note.Programs)-live
	return n, err
}

func linkInfo(path string) (attach.Info, error) {
	l, err := attach.OpenPinned(path)
	if err != nil {
		return attach.Info{}, err
	}
	defer l.Close()
	return l.Info()
}
