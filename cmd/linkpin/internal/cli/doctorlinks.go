// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
)

// scratch is a cgroup and a network namespace to try links in. Nobody is in them.
type scratch struct {
	cgroup *target.Cgroup
	netns  *target.Netns
}

// checkLinks makes one link for every hook and takes it off again. It returns the
// hooks that do not work here. cgroup2 may be empty.
func (d *doctor) checkLinks(cgroup2 string) map[specs.Hook]error {
	var s scratch
	missing := map[specs.Hook]error{}
	if cgroup2 != "" {
		cgroup, remove, err := scratchCgroup(cgroup2)
		if err != nil {
			d.bad(change.Fail, "cgroup links", err, "")
		} else {
			defer func() { d.warn(remove()) }()
			s.cgroup = cgroup
		}
	}
	netns, err := scratchNetns()
	if err != nil {
		d.bad(change.Fail, "interface links", err, "")
	} else {
		defer netns.Close()
		s.netns = netns
	}
	var tried, broken []specs.Hook
	for _, hook := range specs.Hooks() {
		if s.target(hook) == (attach.Target{}) {
			continue
		}
		err := s.try(hook)
		if err != nil {
			missing[hook] = err
		}
		if hook.Target() != specs.TargetCgroup {
			d.reportLink(string(hook)+" links", err)
			continue
		}
		tried = append(tried, hook)
		if err != nil {
			broken = append(broken, hook)
		}
	}
	d.reportCgroup(tried, broken, missing)
	return missing
}

func (d *doctor) reportLink(what string, err error) {
	if err == nil {
		d.ok(what, "work")
		return
	}
	d.bad(change.Warn, what, err, "policies with such programs can't be attached here")
}

// reportCgroup puts the many hooks of cgroups on a few lines.
func (d *doctor) reportCgroup(tried, broken []specs.Hook, missing map[specs.Hook]error) {
	switch {
	case len(tried) == 0:
		return
	case len(broken) == len(tried):
		d.bad(change.Fail, "cgroup links", missing[broken[0]], "linkpin needs Linux 5.7 or newer with CONFIG_CGROUP_BPF")
		return
	}
	d.ok("cgroup links", "%d of %d hooks work", len(tried)-len(broken), len(tried))
	for _, hook := range broken {
		d.reportLink(string(hook)+" links", missing[hook])
	}
}

func (s *scratch) target(hook specs.Hook) attach.Target {
	switch hook.Target() {
	case specs.TargetCgroup:
		return attach.Target{Cgroup: s.cgroup}
	case specs.TargetInterface:
		if s.netns != nil {
			return attach.Target{Interface: &target.Interface{Netns: s.netns, Device: target.Device{Name: "lo", Index: 1}}}
		}
	case specs.TargetNetns:
		return attach.Target{Netns: s.netns}
	}
	return attach.Target{}
}

// try makes a link and closes it.
func (s *scratch) try(hook specs.Hook) error {
	prog, err := loadTrivial(hook)
	if err != nil {
		return err
	}
	defer prog.Close()
	a := specs.Attachment{Hook: hook}
	switch hook {
	case specs.HookNetfilter:
		a.Netfilter = &specs.Netfilter{Family: "ipv4", Hook: "input"}
	case specs.HookXDP:
		a.Side, a.Mode = specs.SideContainer, specs.XDPGeneric
	case specs.HookTCXIngress, specs.HookTCXEgress:
		a.Side = specs.SideContainer
	}
	link, err := attach.Attach(prog, a, s.target(hook))
	if err != nil {
		if u, ok := errors.AsType[*attach.UnsupportedError](err); ok {
			return u
		}
		return err
	}
	return link.Close()
}

// loadTrivial loads a program that lets everything pass.
func loadTrivial(hook specs.Hook) (*ebpf.Program, error) {
	kind, at, err := hooks.Types(hook)
	if err != nil {
		return nil, err
	}
	verdict := map[specs.Hook]int32{
		specs.HookXDP:           2,  // XDP_PASS
		specs.HookTCXIngress:    -1, // TCX_NEXT
		specs.HookTCXEgress:     -1,
		specs.HookFlowDissector: 0, // BPF_OK
	}
	pass, ok := verdict[hook]
	if !ok {
		pass = 1
	}
	spec := &ebpf.ProgramSpec{
		Name: "linkpin_doctor", Type: kind, AttachType: at, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	}
	if kind == ebpf.LSM {
		spec.AttachTo = "socket_post_create"
	}
	prog, err := ebpf.NewProgram(spec)
	if hook.InSection() {
		prog, err = load.InSection(spec)
	}
	switch {
	case err == nil:
		return prog, nil
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("the kernel has no such programs (Linux %s has them): %w", hooks.Since(hook), err)
	case errors.Is(err, unix.EPERM):
		// The library blames RLIMIT_MEMLOCK for every EPERM.
		return nil, fmt.Errorf("the program can't be loaded: %w", unix.EPERM)
	}
	return nil, err
}

// scratchCgroup makes an empty cgroup.
func scratchCgroup(mount string) (c *target.Cgroup, remove func() error, err error) {
	// The pid alone is no name: process namespaces share the hierarchy.
	dir, err := os.MkdirTemp(mount, fmt.Sprintf("linkpin-doctor-%d-", os.Getpid()))
	if err != nil {
		return nil, nil, err
	}
	var st unix.Stat_t
	err = unix.Stat(dir, &st)
	if err == nil {
		c, err = target.OpenCgroup(dir, st.Ino)
	}
	if err != nil {
		return nil, nil, errors.Join(err, os.Remove(dir))
	}
	return c, func() error {
		return errors.Join(c.Close(), removeCgroup(dir))
	}, nil
}

// removeCgroup removes an empty cgroup; the kernel may still be busy with the
// links that were in it.
func removeCgroup(dir string) error {
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := os.Remove(dir)
		if err == nil || time.Now().After(end) || !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
}

// scratchNetns makes a network namespace that lives as long as it is open.
func scratchNetns() (*target.Netns, error) {
	type result struct {
		n   *target.Netns
		err error
	}
	done := make(chan result)
	go func() {
		// The thread keeps the new namespace, so it must not serve other goroutines:
		// ending locked ends it.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{nil, os.NewSyscallError("unshare", err)}
			return
		}
		n, err := target.OpenNetns("/proc/thread-self/ns/net")
		done <- result{n, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, fmt.Errorf("making a network namespace: %w", r.err)
	}
	return r.n, nil
}

// hooksText lists hooks for a message.
func hooksText(list []specs.Hook) string {
	return strings.ReplaceAll(join(list), ",", ", ")
}
