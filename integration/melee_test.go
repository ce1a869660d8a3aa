// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// meleeCalls is how many calls there are at once in one round.
const meleeCalls = 64

// meleePatience is far above the sum of all deadlines of one call: who takes longer hangs.
const meleePatience = 2 * time.Minute

// meleeContainer is a process in a cgroup and a network namespace of its own.
type meleeContainer struct {
	id, cgroup, netns, bundle string

	mu      sync.Mutex // of what follows
	process *exec.Cmd
}

// meleeMain lets everything that linkpin does happen at once to the same containers:
// melee CONTAINERS ROUNDS. Nobody may fail, and what is left afterwards must be whole.
func meleeMain() {
	if err := melee(); err != nil {
		fmt.Fprintln(os.Stderr, "melee:", err)
		os.Exit(1)
	}
}

func melee() (err error) {
	if len(os.Args) != 3 {
		return errors.New("usage: melee CONTAINERS ROUNDS")
	}
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	rounds, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return err
	}
	var all []*meleeContainer
	for i := range count {
		c, err := newMeleeContainer(i)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	for round := range rounds {
		// Another version of the policies, so that updates have something to do.
		if err := sh(`sed -i "s/^metadata: {name: \([a-z]*\).*/metadata: {name: \1, description: round %d}/" /etc/linkpin/policies.d/*.yaml && linkpin policy apply`, round); err != nil {
			return err
		}
		if err := meleeRound(all); err != nil {
			return err
		}
		// Whatever came last: now they are all started, and covered.
		for _, c := range all {
			if err := errors.Join(c.plugin("ADD"), c.hook("createRuntime")); err != nil {
				return err
			}
			if err := c.covered(); err != nil {
				return err
			}
		}
		for _, args := range [][]string{{"verify"}, {"update", "--all"}, {"verify"}} {
			if err := run(exec.Command("linkpin", args...)); err != nil {
				return err
			}
		}
		if out, err := exec.Command("linkpin", "ls").Output(); err != nil || bytes.Contains(out, []byte("outdated")) {
			return fmt.Errorf("after an update of all: %w\n%s", err, out)
		}
	}
	for _, c := range all {
		if err := c.end(); err != nil {
			return err
		}
	}
	return run(exec.Command("linkpin", "gc", "--wait=5s"))
}

func newMeleeContainer(i int) (*meleeContainer, error) {
	id := fmt.Sprint("melee", i)
	c := &meleeContainer{
		id: id, netns: "/run/netns/" + id, bundle: filepath.Join(os.Getenv("WORK"), id),
		cgroup: filepath.Join(os.Getenv("CG2"), os.Getenv("CGPARENT"), id),
	}
	for _, dir := range []string{c.cgroup, c.bundle} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := sh(`set -e
ip netns add %[1]s
ip link add %[1]s type veth peer name eth0 netns %[1]s
ip link set %[1]s up
nsenter --net=%[2]s sh -ec "ip link set lo up; ip link set eth0 up"`, id, c.netns); err != nil {
		return nil, err
	}
	return c, c.start()
}

// start starts the container's process and waits until it is where it belongs.
func (c *meleeContainer) start() error {
	c.process = c.inside("sh", "-c", "echo ready; exec sleep 600")
	out, err := c.process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.process.Start(); err != nil {
		return err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("container %s does not start: %w", c.id, err)
	}
	return nil
}

// restart ends the container and starts it again, with the same id, in the same cgroup
// and namespace: a poststop comes while others are at it.
func (c *meleeContainer) restart() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.kill(); err != nil {
		return err
	}
	if err := c.call("poststop", 0); err != nil {
		return err
	}
	if err := c.start(); err != nil {
		return err
	}
	return c.call("createRuntime", c.process.Process.Pid)
}

func (c *meleeContainer) kill() error {
	if err := c.process.Process.Kill(); err != nil {
		return err
	}
	if err := c.process.Wait(); err != nil && !killed(err) {
		return err
	}
	return nil
}

// inside returns a program that runs as the container would.
func (c *meleeContainer) inside(args ...string) *exec.Cmd {
	// Its shell moves itself, so that nothing outside holds the cgroup open.
	return exec.Command("sh", append([]string{"-c", "echo 0 >" + c.cgroup + "/cgroup.procs; exec nsenter --net=" + c.netns + ` "$@"`, "sh"}, args...)...)
}

// meleeRound makes all calls at once.
func meleeRound(all []*meleeContainer) error {
	errs := make([]error, meleeCalls)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range errs {
		c := all[rand.IntN(len(all))]
		calls := []func() error{
			func() error { return c.plugin("ADD") },
			func() error { return c.hook("createRuntime") },
			func() error { return c.plugin("DEL") },
			func() error { return run(exec.Command("linkpin", "gc")) },
			func() error { return c.hook("poststop") }, // it runs: nothing may happen
			func() error { return run(exec.Command("linkpin", "verify")) },
			func() error { return run(exec.Command("linkpin", "verify", "--repair")) },
			func() error { return run(exec.Command("linkpin", "update", "--all")) },
			func() error { return run(exec.Command("linkpin", "policy", "apply")) },
			c.restart,
		}
		call := calls[i%len(calls)]
		wg.Go(func() {
			<-start
			errs[i] = call()
		})
	}
	close(start)
	wg.Wait()
	return errors.Join(errs...)
}

// run runs a command that must succeed, and must not hang.
func run(cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), meleePatience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd.Args, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

func (c *meleeContainer) plugin(verb string) error {
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"melee","type":"linkpin-cni","prevResult":{"cniVersion":"1.0.0",
		"interfaces":[{"name":%q},{"name":"eth0","sandbox":%q}]}}`, c.id, c.netns)
	cmd := exec.Command("linkpin-cni")
	cmd.Stdin = bytes.NewReader([]byte(conf))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+c.id, "CNI_NETNS="+c.netns, "CNI_IFNAME=eth0", "CNI_PATH=/")
	return run(cmd)
}

// hook calls linkpin-hook for the process that runs now. A runtime starts a container
// once at a time; its poststop may come at any moment.
func (c *meleeContainer) hook(stage string) error {
	if stage == "poststop" {
		return c.call(stage, 0)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.call(stage, c.process.Process.Pid)
}

func (c *meleeContainer) call(stage string, pid int) error {
	state := map[string]any{"ociVersion": "1.0.2", "id": c.id, "status": "stopped", "bundle": c.bundle}
	if pid != 0 {
		state["status"], state["pid"] = "creating", pid
	}
	in, err := json.Marshal(state)
	if err != nil {
		return err
	}
	cmd := exec.Command("linkpin-hook", stage)
	cmd.Stdin = bytes.NewReader(in)
	return run(cmd)
}

// covered judges by a connection, and by the links on cgroup and interface.
func (c *meleeContainer) covered() error {
	out, err := c.inside("probe", "tcp", "127.0.0.1:9").Output()
	if string(out) != "EPERM\n" {
		return fmt.Errorf("container %s is not covered: its connection gives %q (%w)", c.id, out, err)
	}
	if out, err = exec.Command("links", "cgroup", c.cgroup).Output(); err != nil {
		return err
	}
	if n := bytes.Count(out, []byte("\n")); n != 2 {
		return fmt.Errorf("cgroup %s has %d links, not 2:\n%s", c.cgroup, n, out)
	}
	// After a DEL the link stays on as long as the interface does, so that there may be
	// others beside the one of the last ADD.
	if out, err = exec.Command("links", "dev", c.id).Output(); err != nil {
		return err
	}
	if len(out) == 0 {
		return fmt.Errorf("interface %s has no link", c.id)
	}
	return nil
}

func (c *meleeContainer) end() error {
	if err := c.kill(); err != nil {
		return err
	}
	if err := errors.Join(c.plugin("DEL"), c.hook("poststop"), sh("ip link del %s; ip netns del %s", c.id, c.id)); err != nil {
		return err
	}
	return unix.Rmdir(c.cgroup)
}

func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}
