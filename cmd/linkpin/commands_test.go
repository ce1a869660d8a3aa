// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
)

// fixture is what the commands of one script share.
type fixture struct {
	testing.TB
	bpffs      string
	state      string
	containers map[string]*container // by id
}

// container is a process in a cgroup, with the policies of the script attached.
type container struct {
	cgroup string
	pid    int
	holder *exec.Cmd // has a socket of the container, and is outside
	places []pin.Place
}

func (f *fixture) setup(env *testscript.Env) error {
	f.state = filepath.Join(env.WorkDir, "state")
	env.Setenv("BPFFS", f.bpffs)
	env.Setenv("STATE", f.state)
	env.Setenv("CGROUP2", bpftest.Cgroup2Mount(f))
	env.Setenv(envFlags, "--bpffs="+f.bpffs+" --state="+f.state)
	return nil
}

// exitCode runs a command that ends with a given code: exitcode 65 linkpin ….
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N command [args...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s\n%s", got, args[0], ts.ReadFile("stderr"))
	}
}

// noControl checks that the output of the last command would not command a
// terminal: nocontrol.
func noControl(ts *testscript.TestScript, _ bool, _ []string) {
	for _, name := range []string{"stdout", "stderr"} {
		for _, r := range ts.ReadFile(name) {
			if r != '\n' && (r < 0x20 || r >= 0x7f && r < 0xa0) {
				ts.Fatalf("%s has the control character %U", name, r)
			}
		}
	}
}

// object copies a compiled object of another package's tests: object NAME TO.
func object(ts *testscript.TestScript, _ bool, args []string) {
	for _, dir := range []string{"../../bpf/prepare/testdata", "../../bpf/load/testdata"} {
		data, err := os.ReadFile(filepath.Join(dir, args[0]))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o644))
		return
	}
	ts.Fatalf("no object %s", args[0])
}

// owner gives a file to another user: owner UID FILE.
func owner(ts *testscript.TestScript, _ bool, args []string) {
	uid, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(os.Lchown(ts.MkAbs(args[1]), uid, -1))
}

func (f *fixture) session(ts *testscript.TestScript) (*entry.Session, func()) {
	root, err := pin.Create(pin.Options{Path: f.bpffs})
	ts.Check(err)
	set, err := applied.Open(applied.Options{Dir: f.state})
	ts.Check(err)
	s := &entry.Session{Root: root, Plans: set, By: pin.ByHook, Warn: func(err error) { ts.Logf("warning: %v", err) }}
	return s, func() { set.Close(); root.Close() }
}

// attach starts a container with policies in effect: attach ID POLICY...
// The id may be followed by fields of its identity: ID,pod=web,namespace=prod.
func (f *fixture) attach(ts *testscript.TestScript, _ bool, args []string) {
	fields := strings.Split(args[0], ",")
	id := specs.Identity{ContainerID: unquote(ts, fields[0]), Caller: specs.CallerNone}
	for _, field := range fields[1:] {
		name, value, _ := strings.Cut(field, "=")
		switch value = unquote(ts, value); name {
		case "container":
			id.Container = value
		case "pod":
			id.Pod = value
		case "namespace":
			id.Namespace = value
		default:
			ts.Fatalf("unknown field %q", name)
		}
	}
	c := &container{cgroup: bpftest.Cgroup(f)}
	c.pid = bpftest.CgroupProcess(f, c.cgroup).Pid
	f.containers[fields[0]] = c

	cgroup, err := target.CgroupOfPID(target.Roots{}, c.pid)
	ts.Check(err)
	defer cgroup.Close()
	start, err := target.StartTime(target.Roots{}, c.pid)
	ts.Check(err)
	sub := &entry.Subject{Identity: id, Bundle: "/bundle", PID: c.pid, Start: start, Cgroup: cgroup,
		Uncovered: map[string][]string{"meter": {"packet sockets: no interface"}}}
	key := pin.ContainerKey(id.ContainerID, sub.Bundle)
	s, close := f.session(ts)
	defer close()
	lock, err := s.Root.Lock(context.Background(), pin.Container(key))
	ts.Check(err)
	defer lock.Release()
	var wants []entry.Want
	for _, policy := range args[1:] {
		wants = append(wants, entry.Want{Policy: policy, OnError: specs.Deny, Kind: specs.TargetCgroup, Place: pin.ContainerEntry(key, policy)})
	}
	c.places, err = s.Attach(context.Background(), sub, wants)
	ts.Check(err)
}

// add makes a sandbox with the interface eth0 and attaches a policy to the
// interface and another to the namespace, as CNI would: add ID HOST POLICY POLICY.
func (f *fixture) add(ts *testscript.TestScript, _ bool, args []string) {
	ns := bpftest.NetNS(f)
	bpftest.Veth(f, ns, args[1], "eth0")
	netns, err := target.OpenNetns(ns.Path())
	ts.Check(err)
	defer netns.Close()
	iface, err := netns.Interface("eth0")
	ts.Check(err)
	sub := &entry.Subject{Identity: specs.Identity{ContainerID: args[0], Network: "net", Caller: specs.CallerNone}, Netns: netns}
	s, close := f.session(ts)
	defer close()
	s.By = pin.ByCNI
	key, lock, err := s.LockSandbox(context.Background(), netns, args[0])
	ts.Check(err)
	defer lock.Release()
	sub.Sandbox = key
	_, err = s.Attach(context.Background(), sub, []entry.Want{
		{Policy: args[2], OnError: specs.Deny, Kind: specs.TargetInterface, Interface: iface, Place: pin.InterfaceEntry(key, "net", "eth0", args[2])},
		{Policy: args[3], OnError: specs.Deny, Kind: specs.TargetNetns, Place: pin.NetnsEntry(key, args[3])},
	})
	ts.Check(err)
}

// unquote understands \x1b and the like, for names that attack a terminal.
func unquote(ts *testscript.TestScript, s string) string {
	out, err := strconv.Unquote(`"` + s + `"`)
	ts.Check(err)
	return out
}

func (f *fixture) container(ts *testscript.TestScript, id string) *container {
	c, ok := f.containers[id]
	if !ok {
		ts.Fatalf("no container %s", id)
	}
	return c
}

// end kills a container and removes its cgroup: end ID.
func (f *fixture) end(ts *testscript.TestScript, _ bool, args []string) {
	bpftest.RemoveCgroup(f, f.container(ts, args[0]).cgroup)
}

// hold makes a socket inside a container that outlives it: hold ID.
func (f *fixture) hold(ts *testscript.TestScript, _ bool, args []string) {
	c := f.container(ts, args[0])
	out := bpftest.Cgroup(f)
	c.holder = bpftest.Command(f, c.cgroup, "bash", "-c", "exec 3<>/dev/udp/127.0.0.1/9; echo $$ >"+out+"/cgroup.procs; exec sleep 60")
	ts.Check(c.holder.Start())
	f.Cleanup(func() { c.release() })
	for {
		data, err := os.ReadFile(out + "/cgroup.procs")
		ts.Check(err)
		if len(data) > 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// release closes the socket that hold made: release ID.
func (f *fixture) release(ts *testscript.TestScript, _ bool, args []string) {
	f.container(ts, args[0]).release()
}

func (c *container) release() {
	if c.holder != nil {
		c.holder.Process.Kill()
		c.holder.Wait()
		c.holder = nil
	}
}

// withLink opens a pinned link of a container.
func (f *fixture) withLink(ts *testscript.TestScript, id, name string, fn func(path string, l *attach.Link) error) {
	s, close := f.session(ts)
	defer close()
	for _, place := range f.container(ts, id).places {
		e, err := s.Root.Entry(place)
		ts.Check(err)
		path := e.LinkPath(name)
		l, err := attach.OpenPinned(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		ts.Check(err)
		defer l.Close()
		ts.Check(fn(path, l))
		return
	}
	ts.Fatalf("%s has no link %s", id, name)
}

// forceDetach takes a program off as another root process can: force-detach ID PROGRAM.
func (f *fixture) forceDetach(ts *testscript.TestScript, _ bool, args []string) {
	f.withLink(ts, args[0], args[1], func(_ string, l *attach.Link) error { return l.Detach() })
}

// unpin removes the pin of a link, and with it the link: unpin ID PROGRAM.
func (f *fixture) unpin(ts *testscript.TestScript, _ bool, args []string) {
	f.withLink(ts, args[0], args[1], func(path string, _ *attach.Link) error { return os.Remove(path) })
}

// send sends packets to nobody from inside a container: send ID COUNT.
func (f *fixture) send(ts *testscript.TestScript, _ bool, args []string) {
	script := fmt.Sprintf("for i in $(seq %s); do echo x > /dev/udp/127.0.0.1/9; done", args[1])
	out, err := bpftest.Command(f, f.container(ts, args[0]).cgroup, "bash", "-c", script).CombinedOutput()
	if err != nil {
		ts.Fatalf("%v: %s", err, out)
	}
}

// pins checks that something, or with "!" nothing, is pinned for any container,
// within the moment that the kernel needs: pins.
func (f *fixture) pins(ts *testscript.TestScript, neg bool, _ []string) {
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		found := 0
		err := filepath.WalkDir(filepath.Join(f.bpffs, "linkpin"), func(path string, d fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil && unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
				found++
			}
			return nil
		})
		ts.Check(err)
		if (found == 0) == neg {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%d pins", found)
		}
	}
}
