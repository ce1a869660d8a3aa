// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/pin"
)

// maxHeard bounds what is remembered between two looks.
const maxHeard = 4096

// ears hear from the kernel that something has changed. What they hear says only
// that it is time to look: nothing depends on it, and all of it may be lost.
//
// An inotify watch keeps neither a bpffs mounted nor anything in it, and a netlink
// socket holds no namespace but the one that the watcher is in. Interfaces inside
// containers are therefore polled: a socket there would keep their namespace.
type ears struct {
	files *os.File // inotify
	links *os.File // rtnetlink
	wake  chan struct{}

	mu      sync.Mutex
	newest  int          // watch descriptor: inotify counts up
	retired []string     // names that appeared in retired/
	changed bool         // something has come or gone
	moved   int          // entries that were moved into retired/ or staging/
	devices map[int]bool // of the host's interfaces that changed
}

// heard is what there was since the last time it was asked for.
type heard struct {
	retired []pin.Retired
	moved   int
	files   bool // anything about files
	devices map[int]bool
}

// listen starts the ears. The caller must close them.
func listen() (*ears, error) {
	files, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	links, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err == nil {
		err = unix.Bind(links, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK})
	}
	if err != nil {
		unix.Close(files)
		unix.Close(links)
		return nil, os.NewSyscallError("netlink socket", err)
	}
	e := &ears{
		files:   os.NewFile(uintptr(files), "inotify"),
		links:   os.NewFile(uintptr(links), "rtnetlink"),
		wake:    make(chan struct{}, 1),
		devices: map[int]bool{},
	}
	go e.hearFiles()
	go e.hearDevices()
	return e, nil
}

func (e *ears) close() error { return errors.Join(e.files.Close(), e.links.Close()) }

// follow watches the two directories through which every entry comes and goes. It
// is called at each look, since the tree may be another one.
func (e *ears) follow(root *pin.Root) error {
	const mask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW
	raw, err := e.files.SyscallConn()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	err = raw.Control(func(fd uintptr) {
		for _, dir := range []pin.Dir{pin.DirStaging, pin.DirRetired} {
			path := filepath.Join(root.Path(), string(dir))
			wd, err := unix.InotifyAddWatch(int(fd), path, mask)
			switch {
			case err == nil:
				e.changed = e.changed || wd > e.newest // nobody knows what was before
				e.newest = max(e.newest, wd)
			case !errors.Is(err, fs.ErrNotExist):
				errs = append(errs, &os.PathError{Op: "inotify_add_watch", Path: path, Err: err})
			}
		}
	})
	return errors.Join(append(errs, err)...)
}

func (e *ears) hearFiles() {
	raw, err := e.files.SyscallConn()
	if err != nil {
		return
	}
	for {
		var last error
		err := raw.Read(func(fd uintptr) (done bool) {
			last = e.readFiles(int(fd))
			return !errors.Is(last, unix.EAGAIN)
		})
		if err != nil || last != nil {
			return // closed
		}
		e.ring()
	}
}

// readFiles reads and notes what is there, at once for all others. The error is
// EAGAIN if there is nothing.
func (e *ears) readFiles(fd int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	buf := make([]byte, 16<<10)
	n, err := unix.Read(fd, buf)
	if err == nil {
		e.changed = true
		e.note(buf[:n])
	}
	return err
}

// note remembers what was moved into retired/: an entry may be gone from there
// before anybody looks. Names in staging/ are of another form. mu must be held.
func (e *ears) note(events []byte) {
	for len(events) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(events[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[unsafe.Offsetof(unix.InotifyEvent{}.Len):]))
		if size > len(events) {
			return
		}
		name := events[unix.SizeofInotifyEvent:size]
		if mask&(unix.IN_MOVED_TO|unix.IN_Q_OVERFLOW) != 0 {
			e.moved++
		}
		if mask&unix.IN_MOVED_TO != 0 && len(e.retired) < maxHeard {
			e.retired = append(e.retired, string(name[:clen(name)]))
		}
		events = events[size:]
	}
}

// hearDevices listens for changes of the interfaces in the watcher's own network
// namespace (RTNLGRP_LINK): on the host, the host's sides of containers' interfaces.
func (e *ears) hearDevices() {
	const index = unix.SizeofNlMsghdr + 4 // struct ifinfomsg: ifi_index
	buf := make([]byte, 64<<10)
	for {
		n, err := e.links.Read(buf)
		if errors.Is(err, unix.ENOBUFS) {
			continue // the kernel dropped messages: polling sees what they were about
		}
		if err != nil {
			return // closed
		}
		e.mu.Lock()
		for msg := buf[:n]; len(msg) >= index+4; {
			size := int(binary.NativeEndian.Uint32(msg))
			if size < index+4 || size > len(msg) {
				break
			}
			if len(e.devices) < maxHeard {
				e.devices[int(binary.NativeEndian.Uint32(msg[index:]))] = true
			}
			msg = msg[min((size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(msg)):]
		}
		e.mu.Unlock()
		e.ring()
	}
}

func (e *ears) ring() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// take returns what was heard and forgets it.
func (e *ears) take() heard {
	// What is there and has not been read yet, too.
	if raw, err := e.files.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // it fails when it is closed
			var err error
			for err == nil {
				err = e.readFiles(int(fd))
			}
		})
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	out := heard{devices: e.devices, moved: e.moved, files: e.changed}
	for _, name := range e.retired {
		if r, err := pin.ParseRetired(name); err == nil {
			out.retired = append(out.retired, r)
		}
	}
	e.retired, e.changed, e.moved, e.devices = nil, false, 0, map[int]bool{}
	return out
}
