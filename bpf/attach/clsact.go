// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// Filter is a program on a device without a link: a cls_bpf filter in direct action
// mode under the device's clsact qdisc, for kernels without TCX links. It has no owner.
// Nothing of it goes with a descriptor, and whoever may configure the device can take
// it off; it goes with the device, and when the device goes to another namespace.
//
// Its fields say exactly where it is, so that a Filter may be made from a record.
type Filter struct {
	Hook      specs.Hook // tcx/ingress or tcx/egress: what it stands in for
	Side      specs.Side
	Ifindex   int    // in the namespace of that side
	Priority  uint16 // 1 is asked first; the filter is alone with it unless somebody joins
	Handle    uint32 // among the filters of one priority
	Name      string // as `tc filter show` lists it
	ProgramID uint32
	Tag       string
	// MakesQdisc says that the device had no clsact qdisc when the Filter was planned,
	// so that Add makes one.
	MakesQdisc bool

	where string // for messages
}

// firstPriority is taken where there is no other filter, the one that `tc` itself
// gives the first that says none: there is room in front of it and behind.
const (
	firstPriority = 0xc000
	lastPriority  = 0xffff
)

// filterHandle is that of all our filters: each has a priority of its own. Two
// processes that have chosen the same priority collide in it.
const filterHandle = 0x4c50

// ErrChanged means that somebody changed the device's qdisc or filters since a Filter
// was planned: it has to be planned again.
var ErrChanged = errors.New("has changed since")

// FilterOptions say what PlanFilter finds a place for.
type FilterOptions struct {
	Program    *ebpf.Program
	Attachment specs.Attachment // Side and Hook must be what Resolve returned
	Target     Target           // its Interface
	Name       string           // says whose the filter is; cut to 255 bytes
	// Priority is kept if nobody has it; 0, or if somebody has: behind all others.
	Priority uint16
}

// PlanFilter finds the place for a program: behind all filters that are there, in a
// priority of its own. It changes nothing. Errors are *fault.Error as Attach's.
func PlanFilter(o FilterOptions) (*Filter, error) {
	f, err := planFilter(o)
	if err != nil {
		return nil, explain(o.Attachment, o.Target, err)
	}
	return f, nil
}

func planFilter(o FilterOptions) (*Filter, error) {
	if o.Target.Interface == nil {
		return nil, errNoTarget
	}
	dev, err := filterDevice(o.Attachment.Side, o.Target.Interface)
	if err != nil {
		return nil, err
	}
	p, err := readProgram(o.Program.FD())
	if err != nil {
		return nil, err
	}
	f := &Filter{
		Hook: o.Attachment.Hook, Side: o.Attachment.Side, Ifindex: dev.Index,
		Priority: o.Priority, Handle: filterHandle, Name: filterName(o.Name),
		ProgramID: p.id, Tag: p.tag, where: object(o.Attachment, o.Target),
	}
	return f, f.in(o.Target.Interface.Netns, f.choose)
}

func filterDevice(side specs.Side, i *target.Interface) (*target.Device, error) {
	switch side {
	case specs.SideHost:
		if i.Peer == nil {
			return nil, target.ErrNoPeer
		}
		return i.Peer, nil
	case specs.SideContainer:
		return &i.Device, notHost(i.Netns)
	}
	return nil, errors.New("its side was not resolved")
}

// in calls fn in the namespace of the filter's device. ns is the container's.
func (f *Filter) in(ns *target.Netns, fn func() error) error {
	if f.Side == specs.SideHost {
		return target.InOwnNetns(fn)
	}
	if ns == nil {
		return fmt.Errorf("its network namespace %w", target.ErrGone)
	}
	return ns.Do(fn)
}

// choose sets the priority, and whether a qdisc has to be made.
func (f *Filter) choose() error {
	parent, err := tcParent(f.Hook)
	if err != nil {
		return err
	}
	kind, err := qdiscKind(f.Ifindex)
	if err != nil {
		return err
	}
	switch {
	case kind == "":
		f.MakesQdisc = true
		f.Priority = cmp.Or(f.Priority, firstPriority)
		return nil
	case kind == kindIngress && f.Hook == specs.HookTCXEgress:
		return remedy(fmt.Errorf("the device has a qdisc of kind ingress, which takes no egress filters: the place of a clsact qdisc %w", ErrBusy),
			"make that one a clsact qdisc, which does the same on ingress")
	case kind != kindClsact && kind != kindIngress:
		return fmt.Errorf("a qdisc of kind %s is in the place of a clsact qdisc, which %w", kind, ErrBusy)
	}
	filters, err := tcFilters(f.Ifindex, parent)
	if err != nil {
		return err
	}
	last, free := 0, f.Priority != 0
	for _, o := range filters {
		if o.chain == 0 {
			last = max(last, int(o.priority))
			free = free && o.priority != f.Priority
		}
	}
	switch {
	case free:
	case last == 0:
		f.Priority = firstPriority
	case last == lastPriority:
		return remedy(fmt.Errorf("a filter has the last priority, %d, and nothing can be behind it: the hook %w", lastPriority, ErrFull), "give that filter another priority")
	default:
		f.Priority = uint16(last + 1)
	}
	return nil
}

// Add makes the filter, and the qdisc if it is to. It replaces nothing. ns is the
// container's namespace. ErrChanged if somebody took the place since it was planned; if
// the qdisc's, MakesQdisc is false then.
func (f *Filter) Add(prog *ebpf.Program, ns *target.Netns) error {
	return f.explain(f.in(ns, func() error {
		if f.MakesQdisc {
			switch err := changeQdisc(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, f.Ifindex); {
			case errors.Is(err, unix.EEXIST):
				f.MakesQdisc = false
				return fmt.Errorf("its qdisc %w (%w)", ErrChanged, err)
			case err != nil:
				return tcError("clsact qdisc", err)
			}
		}
		err := changeFilter(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, f, prog.FD())
		switch {
		case errors.Is(err, unix.EEXIST), errors.Is(err, unix.EINVAL) && f.changed():
			return fmt.Errorf("what is at priority %d %w (%w)", f.Priority, ErrChanged, err)
		case err != nil:
			return tcError("cls_bpf filter", err)
		}
		return nil
	}))
}

// changed reports whether a filter of another kind or protocol has the priority, or
// the qdisc is gone: the kernel says EINVAL to both.
func (f *Filter) changed() bool {
	kind, err := qdiscKind(f.Ifindex)
	if err != nil || kind == "" {
		return err == nil
	}
	parent, err := tcParent(f.Hook)
	if err != nil {
		return false
	}
	all, _ := tcFilters(f.Ifindex, parent)
	return slices.ContainsFunc(all, func(o tcFilter) bool { return o.chain == 0 && o.priority == f.Priority })
}

// Info says what is at the filter's place: it is live if a filter with its name is,
// whichever program that has, and severed if not.
func (f *Filter) Info(ns *target.Netns) (Info, error) {
	info := Info{Hook: f.Hook, State: Severed}
	err := f.in(ns, func() error {
		found, err := f.find()
		if err == nil && found != nil {
			info.State, info.Ifindex = Live, f.Ifindex
			info.ProgramID, info.ProgramTag = found.id, found.tag
		}
		return err
	})
	return info, f.explain(err)
}

// find returns the filter at our place if it is ours by name and acts on its
// program's verdict.
func (f *Filter) find() (*tcFilter, error) {
	parent, err := tcParent(f.Hook)
	if err != nil {
		return nil, err
	}
	all, err := tcFilters(f.Ifindex, parent)
	for _, o := range all {
		if o.chain == 0 && o.priority == f.Priority && o.handle == f.Handle && o.kind == kindBPF && o.name == f.Name && o.direct {
			return &o, nil
		}
	}
	return nil, err
}

// FilterNeighbour is a filter at the same hook of the same device.
type FilterNeighbour struct {
	Kind      string
	Name      string // bpf only
	ProgramID uint32 // bpf only; 0 for others
	Priority  uint16
}

// String names it for messages.
func (n FilterNeighbour) String() string {
	if n.Kind != kindBPF {
		return fmt.Sprintf("a %s filter at priority %d", n.Kind, n.Priority)
	}
	return fmt.Sprintf("filter %q of program %d at priority %d", n.Name, n.ProgramID, n.Priority)
}

// InFront lists the filters that the kernel asks before this one.
func (f *Filter) InFront(ns *target.Netns) (before []FilterNeighbour, err error) {
	parent, err := tcParent(f.Hook)
	if err != nil {
		return nil, f.explain(err)
	}
	err = f.in(ns, func() error {
		all, err := tcFilters(f.Ifindex, parent)
		for _, o := range all {
			if o.chain != 0 || o.handle == 0 {
				continue
			}
			if o.priority > f.Priority || o.priority == f.Priority && o.handle == f.Handle {
				break
			}
			before = append(before, FilterNeighbour{Kind: o.kind, Name: o.name, ProgramID: o.id, Priority: o.priority})
		}
		return err
	})
	return before, f.explain(err)
}

// Replace puts another program into the filter, in one step as the kernel's packets
// see it. target.ErrGone if it is not there. On success it notes the program.
func (f *Filter) Replace(prog *ebpf.Program, ns *target.Netns) error {
	p, err := readProgram(prog.FD())
	if err != nil {
		return f.explain(err)
	}
	err = f.in(ns, func() error {
		switch found, err := f.find(); {
		case err != nil:
			return err
		case found == nil:
			return fmt.Errorf("the filter %w", target.ErrGone)
		}
		// Without NLM_F_CREATE: what has gone meanwhile is not made anew.
		return changeFilter(unix.RTM_NEWTFILTER, unix.NLM_F_REPLACE, f, prog.FD())
	})
	if err == nil {
		f.ProgramID, f.Tag = p.id, p.tag
	}
	return f.explain(err)
}

// Remove deletes the filter if it has its name and its program, and reports whether it
// did; what else is at its place, and a filter that is gone, are left alone.
func (f *Filter) Remove(ns *target.Netns) (removed bool, err error) {
	err = f.in(ns, func() error {
		found, err := f.find()
		if err != nil || found == nil || found.id != f.ProgramID || found.tag != f.Tag {
			return err
		}
		err = changeFilter(unix.RTM_DELTFILTER, 0, f, 0)
		if vanished(err) {
			return nil
		}
		removed = err == nil
		return err
	})
	return removed, f.explain(err)
}

// RemoveQdisc deletes the clsact qdisc of the filter's device, if no filter of
// anybody is below it. It is for whoever made the qdisc.
func (f *Filter) RemoveQdisc(ns *target.Netns) error {
	return f.explain(f.in(ns, func() error {
		kind, err := qdiscKind(f.Ifindex)
		if err != nil || kind != kindClsact {
			return err
		}
		for _, parent := range []uint32{parentIngress, parentEgress} {
			all, err := tcFilters(f.Ifindex, parent)
			if err != nil || len(all) > 0 {
				return err
			}
		}
		err = changeQdisc(unix.RTM_DELQDISC, 0, f.Ifindex)
		if vanished(err) {
			return nil
		}
		return err
	}))
}

// vanished reports errors which mean that filter, qdisc or device has gone since we
// looked.
func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}

func tcError(what string, err error) error {
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("the device %w (%w)", target.ErrGone, err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return remedy(fmt.Errorf("%s: %w", what, err), "load the kernel modules sch_ingress and cls_bpf")
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (f *Filter) explain(err error) error {
	if err == nil {
		return nil
	}
	where := f.where
	if where == "" {
		where = fmt.Sprintf("tc filter %s of interface %d", f.Name, f.Ifindex)
	}
	out := fault.New(where, err, "")
	if r, ok := errors.AsType[*remedied](err); ok {
		out.Remedy = r.remedy
	}
	return out
}

// ProgramPin pins a program in bpffs. Other pins of it stay (ebpf.Program.Pin would
// move the first one).
type ProgramPin struct{ Program *ebpf.Program }

// Pin adds a pin; fs.ErrExist if the path is taken.
func (p ProgramPin) Pin(path string) error {
	if err := objPin(p.Program, path); err != nil {
		return &os.PathError{Op: "pin program", Path: path, Err: err}
	}
	return nil
}
