// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Dir is a directory of the tree.
type Dir string

// The directories.
const (
	DirContainers Dir = "containers"
	DirSandboxes  Dir = "sandboxes"
	DirNetns      Dir = "netns"
	DirRetired    Dir = "retired"
	DirStaging    Dir = "staging"
	dirNode       Dir = "node"
)

var allDirs = []Dir{DirContainers, DirSandboxes, DirNetns, DirRetired, DirStaging, dirNode}

// The directories inside a sandbox.
const (
	networkPrefix = "net_" // and the network's name
	hookDir       = "hook"
	netnsDir      = "netns"
	cgroupDir     = "cgroup"
	membersDir    = "members"
)

// Key is the name of a container's or sandbox's directory.
type Key string

// bundleSize is how much of a bundle path's SHA-256 is in a key, in bytes.
const bundleSize = 16

// ContainerKey returns the key of a container: its OCI id, and the hash of its
// bundle's path, because two runtime roots may use one id at the same time.
// Symbolic links in bundle must have been resolved.
func ContainerKey(id, bundle string) Key {
	sum := sha256.Sum256([]byte(bundle))
	return Key(Escape(id) + "-" + hex.EncodeToString(sum[:bundleSize]))
}

// SandboxKey returns the key of a sandbox that has an id: of CRI, or
// CNI_CONTAINERID.
func SandboxKey(id string) Key { return Key(Escape(id)) }

// cookiePrefix can't start an escaped id: no hexadecimal digit follows its "%".
const cookiePrefix = "%netns-"

// CookieKey returns the key of a sandbox that has no id, from the cookie of its
// network namespace.
func CookieKey(cookie uint64) Key {
	return Key(cookiePrefix + strconv.FormatUint(cookie, 10))
}

// OfNetns reports whether CookieKey made the key.
func (k Key) OfNetns() bool { return strings.HasPrefix(string(k), cookiePrefix) }

// ParseKey checks that name can be a key. The error is ErrName.
func ParseKey(name string) (Key, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	return Key(name), nil
}

// Owner is what a lock belongs to: a container or a sandbox. It is comparable.
type Owner struct {
	dir Dir
	key Key
}

// Container returns the owner of a container's entries.
func Container(k Key) Owner { return Owner{DirContainers, k} }

// Sandbox returns the owner of the entries of a sandbox and its interfaces.
func Sandbox(k Key) Owner { return Owner{DirSandboxes, k} }

// Key returns the owner's key.
func (o Owner) Key() Key { return o.key }

// IsSandbox tells a sandbox from a container.
func (o Owner) IsSandbox() bool { return o.dir == DirSandboxes }

// ID returns the id that the key was made from. It is false for a sandbox without
// an id, and for an id too long to be stored: then the records have it.
func (o Owner) ID() (string, bool) {
	name := string(o.key)
	if !o.IsSandbox() {
		end := len(name) - len("-") - 2*bundleSize
		if end < 0 || name[end] != '-' {
			return "", false
		}
		name = name[:end]
	}
	id, err := Unescape(name)
	return id, err == nil
}

// String returns the owner as messages show it: "container web", "sandbox 4f2a".
func (o Owner) String() string {
	kind := "container"
	if o.IsSandbox() {
		kind = "sandbox"
	}
	if id, ok := o.ID(); ok {
		return kind + " " + id
	}
	if cookie, ok := strings.CutPrefix(string(o.key), cookiePrefix); ok {
		return kind + " of network namespace " + cookie
	}
	return kind + " " + string(o.key)
}

// path is relative to v1.
func (o Owner) path() string { return string(o.dir) + "/" + string(o.key) }

func (o Owner) check() error {
	if o.dir != DirContainers && o.dir != DirSandboxes {
		return nameError(o.path())
	}
	return checkName(string(o.key))
}

// PlaceKind tells the places apart.
type PlaceKind int

// The kinds of places.
const (
	NoPlace            PlaceKind = iota // of the zero Place
	ContainerPlace                      // programs on a container's cgroup
	InterfacePlace                      // programs on an interface, by the CNI plugin
	HookInterfacePlace                  // programs on an interface, by the OCI hook
	NetnsPlace                          // programs in a network namespace
	PodCgroupPlace                      // programs on the cgroup of a pod, by the CNI plugin
	RetiredPlace                        // any of these, after its target has ended
)

// Place is the address of an entry. It is comparable.
type Place struct {
	path string // relative to v1, cleaned
}

func place(parts ...string) Place { return Place{strings.Join(parts, "/")} }

// ContainerEntry is the place of a policy on a container's cgroup.
func ContainerEntry(k Key, policy string) Place {
	return place(string(DirContainers), string(k), Escape(policy))
}

// InterfaceEntry is the place of a policy on an interface that the CNI plugin
// was called for. An interface has the name that it has inside the sandbox.
func InterfaceEntry(k Key, network, ifname, policy string) Place {
	return place(string(DirSandboxes), string(k), networkPrefix+Escape(network), Escape(ifname), Escape(policy))
}

// HookInterfaceEntry is the place of a policy on an interface that the OCI hook
// found in a sandbox.
func HookInterfaceEntry(k Key, ifname, policy string) Place {
	return place(string(DirSandboxes), string(k), hookDir, Escape(ifname), Escape(policy))
}

// NetnsEntry is the place of a policy in a sandbox's network namespace.
func NetnsEntry(k Key, policy string) Place {
	return place(string(DirSandboxes), string(k), netnsDir, Escape(policy))
}

// PodCgroupEntry is the place of a policy on the cgroup of the pod that a sandbox
// belongs to.
func PodCgroupEntry(k Key, policy string) Place {
	return place(string(DirSandboxes), string(k), cgroupDir, Escape(policy))
}

// RetiredEntry is the place of a retired entry; see Retired.
func RetiredEntry(name string) Place { return place(string(DirRetired), name) }

// split returns the kind and the components of a place, NoPlace if a component
// can't be a name or the shape is none of ours.
func (p Place) split() (PlaceKind, []string) {
	parts := strings.Split(p.path, "/")
	for _, part := range parts {
		if checkName(part) != nil {
			return NoPlace, nil
		}
	}
	kind := NoPlace
	switch dir := Dir(parts[0]); {
	case dir == DirContainers && len(parts) == 3:
		kind = ContainerPlace
	case dir == DirRetired && len(parts) == 2:
		kind = RetiredPlace
	case dir == DirSandboxes && len(parts) == 4 && parts[2] == netnsDir:
		kind = NetnsPlace
	case dir == DirSandboxes && len(parts) == 4 && parts[2] == cgroupDir:
		kind = PodCgroupPlace
	case dir == DirSandboxes && len(parts) == 5 && parts[2] == hookDir:
		kind = HookInterfacePlace
	case dir == DirSandboxes && len(parts) == 5 && strings.HasPrefix(parts[2], networkPrefix):
		kind = InterfacePlace
	}
	return kind, parts
}

func (p Place) check() error {
	if kind, _ := p.split(); kind == NoPlace {
		return nameError(p.path)
	}
	return nil
}

// Kind returns the kind of p, NoPlace if p can't be a place.
func (p Place) Kind() PlaceKind {
	kind, _ := p.split()
	return kind
}

// Owner returns whose lock guards p. It is false for retired entries, which are
// guarded one by one.
func (p Place) Owner() (Owner, bool) {
	kind, parts := p.split()
	if kind == NoPlace || kind == RetiredPlace {
		return Owner{}, false
	}
	return Owner{Dir(parts[0]), Key(parts[1])}, true
}

// below returns the path of p relative to its owner's directory.
func (p Place) below(o Owner) string {
	return strings.TrimPrefix(p.path, o.path()+"/")
}

// Policy returns the policy's name, "" for a retired entry.
func (p Place) Policy() string {
	kind, parts := p.split()
	if kind == NoPlace || kind == RetiredPlace {
		return ""
	}
	return unescapeOr(parts[len(parts)-1])
}

// Interface returns the interface's name, "" where the place has none. A name too
// long to be stored comes as it stands in bpffs; the same goes for Network.
func (p Place) Interface() string {
	if kind, parts := p.split(); kind == InterfacePlace || kind == HookInterfacePlace {
		return unescapeOr(parts[3])
	}
	return ""
}

// Network returns the name of the CNI network, "" where the place has none.
func (p Place) Network() string {
	if kind, parts := p.split(); kind == InterfacePlace {
		return unescapeOr(strings.TrimPrefix(parts[2], networkPrefix))
	}
	return ""
}

// Name returns the last component of the path: for a retired entry, what
// RetiredEntry and ParseRetired take.
func (p Place) Name() string { return p.path[strings.LastIndexByte(p.path, '/')+1:] }

// String returns the path of p below linkpin/v1.
func (p Place) String() string { return p.path }

// The names of the files of an entry.
const (
	linkPrefix = "link_"
	mapPrefix  = "map_"
	recordFile = "meta"
)

// pinName returns the file name of a link or map. Unlike ids, these names can't
// be shortened: they are listed without the record.
func pinName(prefix, name string) (string, error) {
	escaped := Escape(name)
	if _, err := Unescape(escaped); err != nil {
		return "", fmt.Errorf("%.80q %w: it has %d bytes", name, ErrName, len(name))
	}
	return prefix + escaped, nil
}
