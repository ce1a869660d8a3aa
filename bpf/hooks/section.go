// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/specs"
)

// SectionError says that an ELF section does not name one hook.
type SectionError struct {
	Section string
	Reason  string       // what is wrong with it
	Could   []specs.Hook // what it could be; empty if linkpin has no hook for such a program
}

// Error names the section, the reason and the hooks to choose from.
func (e *SectionError) Error() string {
	msg := fmt.Sprintf("section %q %s", e.Section, e.Reason)
	switch len(e.Could) {
	case 0:
		return msg
	case 1:
		return msg + "; it could be " + string(e.Could[0])
	}
	names := make([]string, len(e.Could))
	for i, h := range e.Could {
		names[i] = string(h)
	}
	last := len(names) - 1
	return msg + "; it could be " + strings.Join(names[:last], ", ") + " or " + names[last]
}

// FromSection returns the hook that the ELF section of a program names. t and a
// are what cilium/ebpf made of that section (ProgramSpec.Type and .AttachType); it
// takes the section's beginning for the whole, so "xdp_drop" is "xdp".
//
// The error is a *SectionError. It comes for sections without a direction (tc,
// classifier, action, cgroup/skb), for programs of types that linkpin does not
// attach, for programs that run from a map (xdp/devmap, xdp/cpumap), and for
// sections that nobody knows.
func FromSection(section string, t ebpf.ProgramType, a ebpf.AttachType) (specs.Hook, error) {
	name := strings.TrimPrefix(section, "?")
	switch t {
	case ebpf.UnspecifiedProgram:
		return "", unknown(section, name)
	case ebpf.CGroupSKB:
		// Attach type 0 is ingress, and it is also what "cgroup/skb" leaves unset.
		if a == ebpf.AttachCGroupInetIngress && !strings.HasPrefix(name, "cgroup_skb/ingress") {
			return "", &SectionError{section, "does not say a direction", ofType(t)}
		}
	case ebpf.SchedCLS, ebpf.SchedACT:
		if a == ebpf.AttachNone {
			return "", &SectionError{section, "does not say a direction", ofType(ebpf.SchedCLS)}
		}
	case ebpf.XDP:
		if a == ebpf.AttachXDPDevMap || a == ebpf.AttachXDPCPUMap {
			return "", &SectionError{section, "is run from a map and can't be attached to an interface", nil}
		}
	}
	for i := range table {
		if table[i].program == t && table[i].attach == a {
			return table[i].hook, nil
		}
	}
	if could := ofType(t); len(could) > 0 && t != ebpf.LSM && t != ebpf.SchedCLS && t != ebpf.Tracing {
		return "", &SectionError{section, "does not name a hook", could}
	}
	return "", &SectionError{section, fmt.Sprintf("holds a program of type %s, which belongs to no container", t), nil}
}

// ofType lists the hooks of one program type.
func ofType(t ebpf.ProgramType) []specs.Hook {
	var hs []specs.Hook
	for i := range table {
		if table[i].program == t {
			hs = append(hs, table[i].hook)
		}
	}
	return hs
}

// unknown lists the hooks that begin like name, else all of them but those that are
// nothing without their section.
func unknown(section, name string) error {
	var could []specs.Hook
	for i := range table {
		h := string(table[i].hook)
		if strings.HasPrefix(h, strings.TrimRight(name, "/")) && name != "" {
			could = append(could, table[i].hook)
		}
	}
	if len(could) == 0 {
		could = slices.DeleteFunc(specs.Hooks(), specs.Hook.InSection)
	}
	return &SectionError{section, "is not one that linkpin knows", could}
}
