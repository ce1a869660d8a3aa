// SPDX-License-Identifier: Apache-2.0

// Package target finds the kernel objects that programs are attached to and
// verifies that they are the right ones: a cgroup v2 directory, a network
// namespace, an interface and its host-side peer. It changes nothing.
package target

import (
	"errors"
	"net"
	"net/netip"
	"os"
)

// Roots are the places that are read; the zero value means the real ones. Tests
// point them elsewhere.
type Roots struct {
	Proc string // default /proc
}

var (
	// ErrGone means that the process, cgroup, namespace or interface no longer exists.
	ErrGone = errors.New("no longer exists")
	// ErrForbidden means a target that linkpin must never attach to: the root
	// cgroup, its own cgroup, the host's network namespace.
	ErrForbidden = errors.New("must not be attached to")
	// ErrNoCgroup2 means that no cgroup2 hierarchy is mounted.
	ErrNoCgroup2 = errors.New("no cgroup2 hierarchy is mounted")
	// ErrNoPeer means that an interface has no peer in the host's namespace.
	ErrNoPeer = errors.New("has no peer in the host's network namespace")
	// ErrInvalidPID means a number that can't be the pid of a container's process.
	ErrInvalidPID = errors.New("is not the pid of a process")
	// ErrMismatch means that what was found is not what was asked for: a pid that
	// is not in the cgroup, a peer that points elsewhere.
	ErrMismatch = errors.New("is not the one that was asked for")
)

// Cgroup is a verified cgroup v2 directory, held open.
type Cgroup struct {
	Path string   // absolute path in our mount namespace
	ID   uint64   // kernel's cgroup id: the inode number of the directory
	Dir  *os.File // opened O_PATH-free (O_RDONLY|O_DIRECTORY|O_NOFOLLOW), for BPF_LINK_CREATE
}

// Netns is a network namespace, held open.
type Netns struct {
	Path   string   // as it was asked for; for messages and the record
	Inode  uint64   // of the nsfs file: reused by the kernel after the namespace is gone
	Cookie uint64   // SO_NETNS_COOKIE (kernel 5.14): never reused until reboot
	File   *os.File // for setns
}

// Device is one network device as one namespace sees it.
type Device struct {
	Name  string
	Index int
	MAC   net.HardwareAddr
	MTU   int
	Kind  string // rtnetlink's kind: "veth", "macvlan"; empty for physical devices
	Up    bool
	XDP   bool // an XDP program is attached, whoever's it is
}

// Interface is a container's interface.
type Interface struct {
	Netns     *Netns
	Device                   // inside the container
	Addresses []netip.Prefix // global and link-local addresses, in kernel order
	Peer      *Device        // verified veth peer in our own network namespace; nil if there is none
	// DiesWithNetns says that the kernel deletes the device together with its
	// namespace; otherwise it goes back to the initial namespace and lives on.
	DiesWithNetns bool
}

// ProcessStart is the start time of a process in clock ticks since boot
// (/proc/PID/stat field 22): with the pid it names one process for ever.
type ProcessStart uint64
