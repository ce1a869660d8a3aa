// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs"
)

// Plugin is the type of our entry, which is also the name of the program.
const Plugin = "linkpin-cni"

// capabilities are what runtimes have to be asked for: they pass a pod's annotations
// and its cgroup only to plugins that declare them (docs/cni.md).
var capabilities = []string{"io.kubernetes.cri.pod-annotations", "cgroupPath"}

// entryError is an entry of ours that linkpin-cni or the runtime would refuse.
type entryError struct {
	at     int // offset in the file
	cause  string
	remedy string
}

func (e *entryError) Error() string { return e.cause }

// checkEntry refuses an entry whose meaning is not sure.
func checkEntry(src []byte, entry *node) *entryError {
	if m := entry.twice(); m != nil {
		return &entryError{m.keyStart, fmt.Sprintf("the entry of %s has the key %q twice", Plugin, m.key), "remove one of them"}
	}
	if v := entry.get("caller"); v != nil {
		var caller specs.Caller
		if json.Unmarshal(src[v.start:v.end], &caller) != nil || !slices.Contains(specs.Callers, caller) {
			return &entryError{v.start, fmt.Sprintf("%s does not know the caller %s and refuses every call", Plugin, src[v.start:v.end]),
				fmt.Sprintf("use one of %v", specs.Callers)}
		}
	}
	if v := entry.get("capabilities"); v != nil {
		var declared map[string]bool
		if v.kind != '{' || json.Unmarshal(src[v.start:v.end], &declared) != nil {
			return &entryError{v.start, fmt.Sprintf("the capabilities of %s are not an object of booleans", Plugin), "remove them and install again"}
		}
		if m := v.twice(); m != nil {
			return &entryError{m.keyStart, fmt.Sprintf("the capability %q is declared twice", m.key), "remove one of them"}
		}
	}
	return nil
}

// undeclared lists the capabilities that an entry lacks, and those that somebody has
// turned off.
func undeclared(src []byte, entry *node) (missing, off []string) {
	declared := entry.get("capabilities")
	for _, name := range capabilities {
		var v *node
		if declared != nil {
			v = exact(declared, name) // libcni compares capabilities byte by byte
		}
		switch {
		case v == nil:
			missing = append(missing, name)
		case string(src[v.start:v.end]) != "true":
			off = append(off, name)
		}
	}
	return missing, off
}

func exact(n *node, key string) *node {
	for _, m := range n.members {
		if m.key == key {
			return m.value
		}
	}
	return nil
}

// later are plugins that make an interface, or change its address, MTU or master:
// linkpin-cni has to come after them. Others may follow it.
//
// tuning changes MAC and MTU: constants made of ${mac} would be wrong, and a device
// with an XDP program refuses a larger MTU. vrf gives the interface a master and its
// addresses anew.
var later = []string{
	"bridge", "ptp", "macvlan", "ipvlan", "vlan", "host-device", "dummy", "tap", "loopback",
	"flannel", "calico", "weave-net", "aws-cni", "azure-vnet", "antrea", "ovn-k8s-cni-overlay", "ovs", "sriov", "multus",
	"tuning", "vrf",
}

// misplaced says why the plugin at index at of a chain can't work there, or "".
func misplaced(types []string, at int) string {
	if at == 0 {
		return "it is the first of its chain: there is no interface yet"
	}
	for _, t := range types[at+1:] {
		if slices.Contains(later, t) {
			return fmt.Sprintf("%s comes after it and changes the interface", t)
		}
	}
	return ""
}

// ensure returns the text of a list with our entry as it should be: at the end of the
// chain, so that it sees the interface as it stays, and so that DEL, which goes
// backwards, comes to it before the interface is taken away. An entry that is in
// order stays where it is. fresh is the caller of a new entry, caller that of an entry
// that is there; what is empty is not written.
func ensure(src []byte, fresh, caller specs.Caller) ([]byte, error) {
	l, err := parseList(src)
	if err != nil {
		return nil, err
	}
	old := src
	switch ours := l.ours(); len(ours) {
	case 0:
		src = appendEntry(src, l.plugins, fresh)
	case 1:
		if src, err = update(src, ours[0], caller); err != nil {
			return nil, err
		}
	default:
		return nil, &entryError{l.plugins.elems[ours[1]].start, fmt.Sprintf("%s is in the chain %d times", Plugin, len(ours)), "remove all but the last"}
	}
	if !sameBesideOurs(old, src) {
		return nil, errors.New("the edit would change more than its entry; add the entry by hand as docs/cni.md shows")
	}
	return src, nil
}

// update brings the entry at index at up to date: what it lacks is added, what others
// put into it stays.
func update(src []byte, at int, caller specs.Caller) ([]byte, error) {
	l, err := parseList(src)
	if err != nil {
		return nil, err
	}
	entry := l.plugins.elems[at]
	if bad := checkEntry(src, entry); bad != nil {
		// A caller that is to be replaced may be wrong.
		v := entry.get("caller")
		if caller == "" || v == nil || bad.at != v.start {
			return nil, bad
		}
	}
	if v := entry.get("caller"); caller != "" && (v == nil || string(src[v.start:v.end]) != quote(string(caller))) {
		if v != nil {
			src = splice(src, v.start, v.end, quote(string(caller)))
		} else {
			src = addMember(src, entry, "caller", quote(string(caller)))
		}
		return update(src, at, caller)
	}
	if missing, _ := undeclared(src, entry); len(missing) > 0 {
		if declared := entry.get("capabilities"); declared != nil {
			src = addMember(src, declared, missing[0], "true")
		} else {
			src = addMember(src, entry, "capabilities", capabilityText(src, l.plugins, styleOf(src, entry)))
		}
		return update(src, at, caller)
	}
	if misplaced(l.types, at) == "" {
		return src, nil
	}
	if len(l.plugins.elems) == 1 {
		return nil, &entryError{entry.start, Plugin + " is alone in the chain: there is no plugin that makes an interface", "put one before it"}
	}
	text := string(src[entry.start:entry.end])
	src = removeElem(src, l.plugins, at)
	if l, err = parseList(src); err != nil {
		return nil, err
	}
	return splice(src, lastEnd(l.plugins), lastEnd(l.plugins), betweenElems(src, l.plugins)+text), nil
}

func lastEnd(array *node) int { return array.elems[len(array.elems)-1].end }

// removeElem takes an element and the comma that belongs to it out of an array that
// has others: the reverse of appending it.
func removeElem(src []byte, array *node, at int) []byte {
	if at > 0 {
		return splice(src, array.elems[at-1].end, array.elems[at].end, "")
	}
	return splice(src, array.elems[0].start, array.elems[1].start, "")
}

// removeOurs takes every entry of ours out of a list.
func removeOurs(src []byte) ([]byte, error) {
	old := src
	for {
		l, err := parseList(src)
		if err != nil {
			return nil, err
		}
		ours := l.ours()
		if len(ours) == 0 {
			break
		}
		if len(l.plugins.elems) == 1 {
			return nil, &entryError{l.plugins.start, Plugin + " is alone in the chain, and without it the list would be empty", "remove the file"}
		}
		src = removeElem(src, l.plugins, ours[len(ours)-1])
	}
	if !sameBesideOurs(old, src) {
		return nil, errors.New("the edit would change more than its entry; take the entry out by hand")
	}
	return src, nil
}

func quote(s string) string { return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"` }
