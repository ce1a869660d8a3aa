// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// A tc filter stands in for a TCX link where the kernel has none and the policy
// allows it (specs.FallbackClsact). It does not go with a descriptor: so a note of it is
// pinned in the entry's staging directory before it is made (pin.Filters), and whoever
// drops that directory, or the entry that it becomes, takes off what the note names.

// filterTries is how often a filter is planned anew because others change the device.
const filterTries = 8

// noted is the note of the filters of an entry that is being built.
type noted struct {
	staging *pin.Staging // nil: there are none
	filters pin.Filters
}

// device is one that filters may be on.
type device struct {
	cookie  uint64 // of the namespace; 0 for our own
	ifindex int
}

func deviceOf(side specs.Side, ifindex int, ns *pin.NetnsRecord) device {
	if side == specs.SideHost || ns == nil {
		return device{0, ifindex}
	}
	return device{ns.Cookie, ifindex}
}

// filterOf returns the filter of a record's row.
func filterOf(row pin.ProgramRecord) *attach.Filter {
	return &attach.Filter{
		Hook: row.Hook, Side: row.Side, Ifindex: row.Ifindex,
		Priority: row.Filter.Priority, Handle: row.Filter.Handle, Name: row.Filter.Name,
		ProgramID: row.ProgramID, Tag: row.Tag,
	}
}

// inRow puts a filter into a row.
func inRow(row pin.ProgramRecord, f *attach.Filter, madeQdisc bool) pin.ProgramRecord {
	row.Ifindex, row.ProgramID, row.Tag, row.LinkID = f.Ifindex, f.ProgramID, f.Tag, 0
	row.Filter = &pin.FilterRecord{
		Priority: f.Priority, Handle: f.Handle, Protocol: "all", Name: f.Name, MadeQdisc: madeQdisc,
	}
	return row
}

// filterName says in `tc filter show` whose a filter is.
func filterName(policy, program string) string { return "linkpin:" + policy + "/" + program }

// attachFilter attaches a program of an entry without a link.
func (s *Session) attachFilter(sub *Subject, b *built, c choice) (builtLink, error) {
	prog, ok := b.col.Programs[c.key]
	if !ok {
		return builtLink{}, fmt.Errorf("program %s was not loaded", c.key)
	}
	if b.noted.staging == nil {
		st, err := s.Root.StageFor(b.target(sub))
		if err != nil {
			return builtLink{}, err
		}
		b.noted = noted{st, pin.Filters{Netns: netnsRecord(sub.Netns), Sandbox: sub.Sandbox}}
	}
	row := pin.ProgramRecord{Name: c.attachment.Name, Key: c.key, Hook: c.attachment.Hook, Target: b.want.Kind, Side: c.attachment.Side}
	before := b.noted.filters.Programs
	owner, _ := b.want.Place.Owner()
	f, row, err := s.addFilter(attach.FilterOptions{
		Program: prog, Attachment: c.attachment, Target: attachTarget(sub, b.want), Name: filterName(b.want.Policy, c.attachment.Name),
	}, row, sub.Netns, owner, func(row pin.ProgramRecord) error {
		b.noted.filters.Programs = append(slices.Clone(before), row)
		return b.noted.staging.WriteFilters(b.noted.filters)
	})
	if err != nil {
		return builtLink{}, err
	}
	info, err := f.Info(sub.Netns)
	if err == nil && (info.State != attach.Live || info.ProgramID != f.ProgramID) {
		err = errors.New("the filter was taken off again at once")
	}
	return builtLink{attachment: c.attachment, key: c.key, filter: row.Filter, info: info}, err
}

// addFilter plans a filter and makes it, having told note of it. It returns the row as
// it was noted last.
func (s *Session) addFilter(o attach.FilterOptions, row pin.ProgramRecord, ns *target.Netns, owner pin.Owner, note func(pin.ProgramRecord) error) (*attach.Filter, pin.ProgramRecord, error) {
	var err error
	for range filterTries {
		var f *attach.Filter
		if f, err = attach.PlanFilter(o); err != nil {
			return nil, row, err
		}
		dev := deviceOf(f.Side, f.Ifindex, netnsRecord(ns))
		row = inRow(row, f, f.MakesQdisc || s.madeQdisc(owner, dev))
		if err = note(row); err != nil {
			return nil, row, err
		}
		err = f.Add(o.Program, ns)
		if row.Filter.MadeQdisc && (f.MakesQdisc || err == nil) {
			if s.qdiscs == nil {
				s.qdiscs = map[device]bool{}
			}
			s.qdiscs[dev] = true
		}
		if !errors.Is(err, attach.ErrChanged) {
			return f, row, err
		}
	}
	return nil, row, err
}

// madeQdisc reports whether the qdisc of a device is ours: made a moment ago, or by
// another entry of the owner, whose filters may go before.
func (s *Session) madeQdisc(owner pin.Owner, dev device) bool {
	if s.qdiscs[dev] {
		return true
	}
	places, err := s.Root.Entries(owner)
	if err != nil {
		return false
	}
	for _, p := range places {
		rec, err := s.readRecord(p)
		if err == nil && slices.ContainsFunc(rec.Programs, func(row pin.ProgramRecord) bool {
			return row.Filter != nil && row.Filter.MadeQdisc && deviceOf(row.Side, row.Ifindex, rec.Netns) == dev
		}) {
			return true
		}
	}
	return false
}

// giveUp takes off the filters of an entry that was not published, with what was
// noted of them. What can't be taken off stays noted for a sweep.
func (s *Session) giveUp(b *built) error {
	st := b.noted.staging
	if st == nil || b.published {
		return nil
	}
	if err := s.dropFilters(b.noted.filters); err != nil {
		st.Leave()
		return err
	}
	return st.Discard()
}

// dropFilters takes off what a note names, as far as it is still there and ours, and
// the qdiscs that linkpin made, if no filter of anybody is left below them. A qdisc from
// which it has taken nothing stays: somebody may have made that one anew.
func (s *Session) dropFilters(note pin.Filters) error {
	ns := s.noteNetns(note)
	if ns != nil {
		defer func() { s.warn(ns.Close()) }()
	}
	var errs []error
	emptied := map[device]*attach.Filter{}
	for _, row := range note.Programs {
		if row.Filter == nil || row.Side != specs.SideHost && ns == nil {
			continue // it went with its namespace
		}
		f := filterOf(row)
		removed, err := f.Remove(ns)
		if removed && row.Filter.MadeQdisc {
			emptied[deviceOf(row.Side, row.Ifindex, note.Netns)] = f
		}
		errs = append(errs, err)
	}
	for _, f := range emptied {
		errs = append(errs, f.RemoveQdisc(ns))
	}
	return errors.Join(errs...)
}

// entryFilters returns the note of an entry's filters or, where somebody has unpinned
// that, what its record says; ok is false if the entry has none.
func (s *Session) entryFilters(e *pin.Entry) (note pin.Filters, ok bool, err error) {
	if e.HasFilters() {
		note, err = e.Filters()
		return note, true, err
	}
	rec, err := e.Record()
	if err != nil {
		return note, false, nil //nolint:nilerr // nothing tells of filters; that the record can't be read is said elsewhere
	}
	for _, row := range rec.Programs {
		ok = ok || row.Filter != nil
	}
	return pin.Filters{Netns: rec.Netns, Sandbox: rec.Sandbox, Programs: rec.Programs}, ok, nil
}

// dropEntryFilters is dropFilters for an entry that is about to be removed.
func (s *Session) dropEntryFilters(e *pin.Entry) error {
	note, ok, err := s.entryFilters(e)
	if err != nil || !ok {
		return err
	}
	return s.dropFilters(note)
}

// removeEntry removes an entry and what does not go with its pins.
func (s *Session) removeEntry(e *pin.Entry) error {
	if err := s.dropEntryFilters(e); err != nil {
		return err
	}
	return e.Remove()
}

// settleFilters is settleLink for the filters of a retired entry; it returns how many
// have to stay.
func (s *Session) settleFilters(e *pin.Entry, how settling) (left int, err error) {
	note, ok, err := s.entryFilters(e)
	if err != nil || !ok {
		return 0, err
	}
	if how != settleAll {
		if left, err = s.liveFilters(note); left > 0 || err != nil {
			return left, err
		}
	}
	return 0, s.dropFilters(note)
}

// liveFilters counts the filters of a note that are there with their program.
func (s *Session) liveFilters(note pin.Filters) (live int, err error) {
	ns := s.noteNetns(note)
	if ns != nil {
		defer func() { s.warn(ns.Close()) }()
	}
	for _, row := range note.Programs {
		info, err := filterInfo(row, ns)
		if err != nil {
			return live, err
		}
		if info.State == attach.Live && info.ProgramID == row.ProgramID {
			live++
		}
	}
	return live, nil
}

// filterInfo says what the kernel has at a filter's place; ns is nil if the container's
// namespace is gone.
func filterInfo(row pin.ProgramRecord, ns *target.Netns) (attach.Info, error) {
	if row.Side != specs.SideHost && ns == nil {
		return attach.Info{Hook: row.Hook, State: attach.Severed}, nil
	}
	return filterOf(row).Info(ns)
}

// rowInfo says what the kernel has of one recorded program.
func (s *Session) rowInfo(e *pin.Entry, rec *pin.Record, row pin.ProgramRecord) (attach.Info, error) {
	if row.Filter == nil {
		return pinnedInfo(e, row)
	}
	ns := s.noteNetns(pin.Filters{Netns: rec.Netns, Sandbox: rec.Sandbox, Programs: []pin.ProgramRecord{row}})
	if ns != nil {
		defer func() { s.warn(ns.Close()) }()
	}
	return filterInfo(row, ns)
}

// noteNetns opens the namespace of the filters on the container's side; nil if there
// are none, or if it is gone.
func (s *Session) noteNetns(note pin.Filters) *target.Netns {
	if note.Netns == nil || !slices.ContainsFunc(note.Programs, func(row pin.ProgramRecord) bool { return row.Side != specs.SideHost }) {
		return nil
	}
	for _, paths := range []func() []string{
		func() []string { return []string{note.Netns.Path} },
		// The process by which it was known may have ended, and others of the pod not.
		func() []string { return s.processesIn(note.Netns.Inode) },
		func() []string { return s.sandboxPaths(note.Sandbox) },
	} {
		for _, path := range paths() {
			ns, err := target.OpenNetns(path)
			if err != nil {
				continue // the next one may lead there
			}
			if ns.Cookie == note.Netns.Cookie {
				return ns
			}
			s.warn(ns.Close())
		}
	}
	return nil
}

// processesIn returns the path of a namespace that has that inode, by a process in it.
func (s *Session) processesIn(inode uint64) []string {
	all, err := filepath.Glob(filepath.Join(cmp.Or(s.Roots.Proc, "/proc"), "[0-9]*", "ns", "net"))
	s.warn(err)
	for _, path := range all {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && st.Ino == inode {
			return []string{path}
		}
	}
	return nil
}

// sandboxPaths returns the paths by which the other entries of a sandbox knew its
// namespace.
func (s *Session) sandboxPaths(key pin.Key) (paths []string) {
	if key == "" {
		return nil
	}
	places, err := s.Root.Entries(pin.Sandbox(key))
	s.warn(err)
	for _, p := range places {
		if rec, err := s.readRecord(p); err == nil && rec.Netns != nil {
			paths = append(paths, rec.Netns.Path)
		}
	}
	return paths
}

// compareFilter tells what is wrong with one filter; "" means nothing.
func compareFilter(p pin.ProgramRecord, l LinkState) (Problem, string) {
	at := fmt.Sprintf("tc filter %s at priority %d (unowned)", p.Filter.Name, p.Filter.Priority)
	switch {
	case l.Err != nil:
		return ProblemUnknown, l.Err.Error()
	case l.Info.State != attach.Live:
		return ProblemSevered, at + " is gone"
	case l.Info.ProgramID != p.ProgramID || l.Info.ProgramTag != p.Tag:
		return ProblemProgram, fmt.Sprintf("%s has program %d (%s), recorded is %d (%s)", at, l.Info.ProgramID, l.Info.ProgramTag, p.ProgramID, p.Tag)
	}
	return "", ""
}

// attachmentKey names the link or filter of a row: no two have the same.
func attachmentKey(p pin.ProgramRecord) string {
	if p.Filter == nil {
		return fmt.Sprintf("link %d", p.LinkID)
	}
	return fmt.Sprintf("filter %s %s %d %d", p.Filter.Name, p.Side, p.Ifindex, p.ProgramID)
}

// filterOrder finds out which filters stand in front of ours. (What is at tcx does too:
// a kernel that has it needs no filters of ours.)
func (x *Examination) filterOrder(it Item, p pin.ProgramRecord, t attach.Target, add addFinding) {
	before, err := filterOf(p).InFront(t.Interface.Netns)
	if err != nil {
		add(p.Name, ProblemUnknown, "its neighbours can't be told: "+fault.OneLine(err.Error()), "")
		return
	}
	var others []string
	for _, n := range before {
		if n.ProgramID == 0 || !x.isOurs(it.Record, n.ProgramID) {
			others = append(others, n.String())
		}
	}
	if len(others) > 0 {
		add(p.Name, ProblemInFront, fmt.Sprintf("%s at %s sees packets before ours and may keep them from it", strings.Join(others, ", "), p.Hook),
			"find out whose it is: tc filter show")
	}
}

func netnsRecord(n *target.Netns) *pin.NetnsRecord {
	if n == nil {
		return nil
	}
	return &pin.NetnsRecord{Path: n.Path, Inode: n.Inode, Cookie: n.Cookie}
}
