// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/integration/faults/tracer"
)

// ids are the highest ids that the kernel has given to objects. It never gives one
// again before it has counted to 2³¹.
type ids struct {
	maps  ebpf.MapID
	progs ebpf.ProgramID
	links link.ID
}

// latest walks all ids from those that are known on.
func latest(from ids) (ids, error) {
	err := walk(from, func(kind tracer.ObjectKind, id uint32) {
		switch kind {
		case tracer.Map:
			from.maps = ebpf.MapID(id)
		case tracer.Program:
			from.progs = ebpf.ProgramID(id)
		case tracer.Link:
			from.links = link.ID(id)
		}
	})
	return from, err
}

// walk visits all objects of the kernel with higher ids than those given.
func walk(from ids, visit func(tracer.ObjectKind, uint32)) error {
	for id, err := ebpf.MapGetNextID(from.maps); ; id, err = ebpf.MapGetNextID(id) {
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				break
			}
			return err
		}
		visit(tracer.Map, uint32(id))
	}
	for id, err := ebpf.ProgramGetNextID(from.progs); ; id, err = ebpf.ProgramGetNextID(id) {
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				break
			}
			return err
		}
		visit(tracer.Program, uint32(id))
	}
	// Not link.Iterator: it opens each link, and fails for one that is only half made.
	for id := uint32(from.links); ; {
		attr := struct{ start, next, flags uint32 }{start: id}
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_LINK_GET_NEXT_ID, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		switch errno {
		case 0:
			id = attr.next
			visit(tracer.Link, id)
		case unix.ENOENT:
			return nil
		default:
			return os.NewSyscallError("bpf", errno)
		}
	}
}

// ours lists the objects with higher ids than those given that belong to the host:
// its programs and maps by their names, which no other test has, and links by their
// programs.
func (h *host) ours(from ids) ([]tracer.Object, error) {
	var found []tracer.Object
	err := walk(from, func(kind tracer.ObjectKind, id uint32) {
		if o := (tracer.Object{Kind: kind, ID: id}); strings.HasPrefix(nameOf(o), h.mark) {
			found = append(found, o)
		}
	})
	return found, err
}

// nameOf returns the name of a map or program, or of a link's program; empty if it is
// gone.
func nameOf(o tracer.Object) string {
	switch o.Kind {
	case tracer.Map:
		m, err := ebpf.NewMapFromID(ebpf.MapID(o.ID))
		if err != nil {
			return ""
		}
		defer m.Close()
		if info, err := m.Info(); err == nil {
			return info.Name
		}
	case tracer.Program:
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(o.ID))
		if err != nil {
			return ""
		}
		defer p.Close()
		if info, err := p.Info(); err == nil {
			return info.Name
		}
	case tracer.Link:
		l, err := link.NewFromID(link.ID(o.ID))
		if err != nil {
			return ""
		}
		defer l.Close()
		if info, err := l.Info(); err == nil {
			return nameOf(tracer.Object{Kind: tracer.Program, ID: uint32(info.Program)})
		}
	}
	return ""
}

// exists tells whether the kernel still has an object.
func exists(o tracer.Object) (bool, error) {
	var err error
	switch o.Kind {
	case tracer.Map:
		var m *ebpf.Map
		if m, err = ebpf.NewMapFromID(ebpf.MapID(o.ID)); err == nil {
			return true, m.Close()
		}
	case tracer.Program:
		var p *ebpf.Program
		if p, err = ebpf.NewProgramFromID(ebpf.ProgramID(o.ID)); err == nil {
			return true, p.Close()
		}
	case tracer.Link:
		var l link.Link
		if l, err = link.NewFromID(link.ID(o.ID)); err == nil {
			return true, l.Close()
		}
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case errors.Is(err, unix.EAGAIN): // a link on its way out
		return true, nil
	}
	return false, fmt.Errorf("%v: %w", o, err)
}

// vanishing is how long the kernel may take to free what nothing holds any more:
// pins and network namespaces go after RCU grace periods, in work queues.
const vanishing = 20 * time.Second

// awaited is what a run has made and what must be gone soon: eBPF objects, and the
// host's ends of veth pairs, each of which vanishes when the kernel destroys the network
// namespace of the other end: nothing else shows one that only a link holds.
type awaited struct {
	point   point
	since   time.Time
	objects []tracer.Object
	veths   []string
}

// await notes what must be gone soon. Nobody waits: later runs look, and settled at
// the end.
func (h *host) await(p point, w *world) error {
	found, err := h.ours(h.base) // also what the tracer has not seen
	h.awaited = append(h.awaited, awaited{point: p, since: time.Now(), objects: slices.Concat(found, w.created, w.besides), veths: w.veths})
	return err
}

// vanished looks which of the awaited are gone. It reports each that has not vanished
// in time, once.
func (h *host) vanished() []failure {
	var late []failure
	var rest []awaited
	for _, a := range h.awaited {
		var left []tracer.Object
		for _, o := range a.objects {
			there, err := exists(o)
			if err != nil {
				late = append(late, failure{a.point, err})
			}
			if there {
				left = append(left, o)
			}
		}
		a.objects = left
		a.veths = slices.DeleteFunc(a.veths, func(name string) bool {
			_, err := netlink.LinkByName(name)
			return errors.As(err, &netlink.LinkNotFoundError{})
		})
		switch {
		case len(left) == 0 && len(a.veths) == 0:
		case time.Since(a.since) > h.vanishing:
			late = append(late, failure{a.point, fmt.Errorf("the kernel still has %v, and the network namespaces of %q", left, a.veths)})
		default:
			rest = append(rest, a)
		}
	}
	h.awaited = rest
	return late
}

// settled waits until everything awaited is gone, and then looks at all objects of
// the kernel for what the host has made.
func (h *host) settled(p point) []failure {
	var late []failure
	for len(h.awaited) > 0 {
		late = append(late, h.vanished()...)
		time.Sleep(5 * time.Millisecond)
	}
	found, err := h.ours(ids{})
	if err == nil && len(found) > 0 && len(late) == 0 {
		err = fmt.Errorf("the kernel still has %v", found)
	}
	if err != nil {
		late = append(late, failure{p, err})
	}
	return late
}
