// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// linkState is what the kernel tells about a link, without any of linkpin's code.
type linkState struct {
	id      link.ID
	hook    string
	target  string // "severed" when the kernel shows none
	program ebpf.ProgramID
	tag     string
	name    string // of the program
}

// lasting is what a mended link must share with the one that it replaces: the
// target too, unless that is another one now.
func (l linkState) lasting(newTarget bool) string {
	target := l.target
	if newTarget && target != "severed" {
		target = "device"
	}
	return fmt.Sprint(l.hook, " ", target, " ", l.tag)
}

func stateOf(l link.Link) (linkState, error) {
	info, err := l.Info()
	if err != nil {
		return linkState{}, err
	}
	st := linkState{id: info.ID, hook: fmt.Sprint("type ", info.Type), target: "severed", program: info.Program}
	target := func(kind string, id uint64) {
		if id != 0 {
			st.target = fmt.Sprint(kind, id)
		}
	}
	switch {
	case info.Cgroup() != nil:
		st.hook = info.Cgroup().AttachType.String()
		target("cgroup ", info.Cgroup().CgroupId)
	case info.TCX() != nil:
		st.hook = info.TCX().AttachType.String()
		target("ifindex ", uint64(info.TCX().Ifindex))
	case info.XDP() != nil:
		st.hook = "XDP"
		target("ifindex ", uint64(info.XDP().Ifindex))
	default:
		st.target = "" // netfilter shows nothing
	}
	p, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return st, err
	}
	defer p.Close()
	pi, err := p.Info()
	if err != nil {
		return st, err
	}
	st.tag, st.name = pi.Tag, pi.Name
	return st, nil
}

// outside runs f on a thread that is not in the machine. Ids are the same
// everywhere, but the library looks descriptors up in /proc/self, and in the
// machine's /proc we are not.
func (s *scene) outside(f func() error) {
	s.Helper()
	failed := make(chan error)
	go func() { failed <- f() }()
	s.check(<-failed)
}

const objPin, objGet, infoByFD = 6, 7, 15 // enum bpf_cmd

// bpfPath opens what is pinned at a path, or pins fd there.
func bpfPath(cmd uintptr, path string, fd int) (int, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	attr := struct {
		path      unsafe.Pointer
		fd, flags uint32
	}{path: unsafe.Pointer(name), fd: uint32(fd)}
	opened, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return -1, os.NewSyscallError("bpf", errno)
	}
	return int(opened), nil
}

// pinnedID returns the id of a pinned link.
func pinnedID(path string) (link.ID, error) {
	fd, err := bpfPath(objGet, path, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var info struct{ kind, id uint32 } // struct bpf_link_info begins so
	by := struct {
		fd, size uint32
		info     unsafe.Pointer
	}{uint32(fd), uint32(unsafe.Sizeof(info)), unsafe.Pointer(&info)}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, infoByFD, uintptr(unsafe.Pointer(&by)), unsafe.Sizeof(by)); errno != 0 {
		return 0, os.NewSyscallError("bpf", errno)
	}
	return link.ID(info.id), nil
}

// pinned returns the container's links by the path of their pins.
func (s *scene) pinned() map[string]linkState {
	s.Helper()
	ids := map[string]link.ID{}
	err := filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || path == filepath.Join(state, "retired") || path == filepath.Join(state, "staging") {
			return fs.SkipDir
		}
		if err != nil || !strings.HasPrefix(d.Name(), "link_") {
			return err
		}
		if ids[path], err = pinnedID(path); err != nil {
			s.Logf("%s: %v", path, err) // a thief put something else there
			delete(ids, path)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Fatal(err)
	}
	out := map[string]linkState{}
	s.outside(func() error {
		for path, id := range ids {
			l, err := link.NewFromID(id)
			if err == nil {
				out[path], err = stateOf(l)
				l.Close()
			}
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		return nil
	})
	return out
}

// changedLinks compares the links of the untouched container, opened by their ids,
// with what they were.
func (s *scene) changedLinks() []string {
	s.Helper()
	var changed []string
	s.outside(func() error {
		for _, was := range s.before {
			l, err := link.NewFromID(was.id)
			if err != nil {
				changed = append(changed, fmt.Sprintf("link %d (%s) is gone", was.id, was.name))
				continue
			}
			is, err := stateOf(l)
			l.Close()
			if err != nil {
				return err
			}
			if is != was {
				changed = append(changed, fmt.Sprintf("link %d was %v, is %v", was.id, was, is))
			}
		}
		return nil
	})
	slices.Sort(changed)
	return changed
}

// wrongLinks compares what is pinned now with what was pinned, by hook, target and
// program: a mended link has a new id.
func (s *scene) wrongLinks(newTarget bool) []string {
	s.Helper()
	var wrong []string
	now := s.pinned()
	for path, was := range s.before {
		if is, ok := now[path]; !ok {
			wrong = append(wrong, strings.TrimPrefix(path, state)+" is not there")
		} else if is.lasting(newTarget) != was.lasting(newTarget) {
			wrong = append(wrong, fmt.Sprintf("%s was %s, is %s", strings.TrimPrefix(path, state), was.lasting(newTarget), is.lasting(newTarget)))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// links returns the ids of the container's links, or of those whose programs are named.
func (s *scene) links(names ...string) []string {
	var ids []string
	for _, l := range s.before {
		if len(names) == 0 || slices.Contains(names, l.name) {
			ids = append(ids, fmt.Sprint(l.id))
		}
	}
	slices.Sort(ids)
	return ids
}

// program returns the id of one of the container's programs.
func (s *scene) program(name string) string {
	s.Helper()
	for _, l := range s.before {
		if l.name == name {
			return fmt.Sprint(l.program)
		}
	}
	s.Fatalf("no link holds program %s", name)
	return ""
}

// tries are what the programs of policies cgroup and device refuse, with what each
// gives, and last what nobody refuses. What is dropped on the way is a timeout.
var tries = []struct{ what, outcome string }{
	{"tcp:1001", "EPERM"}, {"tcp:1006", "EPERM"}, {"tcp:1008", "EPERM"}, // connect4, by the map, by the constant
	{"udp6:1001", "EPERM"},  // connect6
	{"udp:1002", "EPERM"},   // sendmsg4
	{"send6:1002", "EPERM"}, // sendmsg6
	{"bind:10005", "EPERM"}, // bind4
	{"sock:253", "EPERM"},   // sock_create
	{"udp:1003", "EPERM"},   // skb_egress
	{"udp:1004", "timeout"}, // skb_ingress
	{"udp:2001", "timeout"}, // host_sent
	{"udp:2002", "timeout"}, // host_received
	{"udp:2003", "timeout"}, // host_xdp
	{"udp:3001", "timeout"}, // ctr_sent
	{"udp:3002", "timeout"}, // ctr_received
	{"udp:3003", "timeout"}, // ctr_xdp
	{"udp:1000", "ok"},      // nobody
}

// traffic returns what went differently from how it should.
func (s *scene) traffic() []string {
	s.Helper()
	args := []string{"tries"}
	for _, t := range tries {
		args = append(args, t.what)
	}
	out, err := s.inside(args...)
	s.check(err)
	got := map[string]string{}
	for line := range strings.Lines(out) {
		what, outcome, _ := strings.Cut(strings.TrimSpace(line), "=")
		got[what] = outcome
	}
	var wrong []string
	for _, t := range tries {
		if !strings.Contains(s.opts.policies, "cgroup") {
			t.outcome = "ok"
		}
		if got[t.what] != t.outcome {
			wrong = append(wrong, t.what+" "+got[t.what])
		}
	}
	return wrong
}

// token returns a text that no other packet has in it.
func (s *scene) token() string {
	s.tokens++
	return fmt.Sprintf("token-%d.", s.tokens)
}

// settle waits until everything that was sent has come: a later packet that nobody
// forbids tells when.
func (s *scene) settle() {
	s.Helper()
	fence := s.token()
	deadline := time.Now().Add(3 * time.Second)
	if _, err := s.inside("udp", permitted, fence); err != nil {
		deadline = time.Now().Add(100 * time.Millisecond) // there is no way for anybody
	}
	for !s.has(0, fence) && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(30 * time.Millisecond)
}

// fresh reports whether the container is as it was at first, so that the next row
// may have it.
func (s *scene) fresh() bool {
	s.Helper()
	return len(s.changedLinks()) == 0 && len(s.wrongLinks(false)) == 0 && len(s.traffic()) == 0 && !s.verify().alarm(s.base)
}
