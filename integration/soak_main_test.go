// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// soakIDs is how many container ids each worker has; it uses them again and again.
const soakIDs = 5

// soakPatience bounds everything that must not hang.
const soakPatience = 60 * time.Second

// soakVictims are those who are killed, one in every third container.
var soakVictims = []string{"runtime", "hook", "init", "plugin", "shim", "container", "poststop"}

// soak is one run: soak CONTAINERS WORKERS.
type soak struct {
	total   int
	work    string // directory of the template bundles and of the bundles made from them
	parent  string // cgroup of all containers
	cg2     string
	state   string
	next    atomic.Int64
	started atomic.Int64 // containers that ran
	killed  sync.Map     // victim → *atomic.Int64

	mu       sync.Mutex
	errs     []error
	times    []time.Duration // from the call of the runtime to the container's first line, in order
	links    map[uint32]bool // that were seen, of this machine
	programs map[uint32]bool
	names    map[string]bool // of programs, as far as the kernel keeps them
	before   map[uint32]bool // programs that were there at the start
	peak     int             // entries that were there at once
}

func soakMain() {
	if err := runSoak(); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func runSoak() error {
	if len(os.Args) != 3 {
		return errors.New("usage: soak CONTAINERS WORKERS")
	}
	total, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	workers, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return err
	}
	s := &soak{
		total: total, work: os.Getenv("WORK"), parent: os.Getenv("CGPARENT"), cg2: os.Getenv("CG2"), state: os.Getenv("STATE"),
		links: map[uint32]bool{}, programs: map[uint32]bool{}, names: map[string]bool{},
	}
	if s.before, err = allPrograms(func(string) bool { return true }); err != nil {
		return err
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { s.worker(w) })
	}
	wg.Wait()
	if len(s.errs) > 0 {
		return errors.Join(s.errs...)
	}
	return s.finish()
}

func (s *soak) worker(w int) {
	for {
		n := int(s.next.Add(1)) - 1
		if n >= s.total || s.failed() {
			return
		}
		c := &soaked{s: s, n: n, worker: w, id: fmt.Sprintf("soak-%d-%d", w, n%soakIDs), policy: "even"}
		if rand.IntN(2) == 1 {
			c.policy = "odd"
		}
		if n%3 == 0 {
			c.victim = soakVictims[rand.IntN(len(soakVictims))]
		}
		if err := c.live(); err != nil {
			s.fail(fmt.Errorf("container %d (%s, %s, victim %q): %w", n, c.id, c.policy, c.victim, err))
			return
		}
	}
}

func (s *soak) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = append(s.errs, err)
}

func (s *soak) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.errs) > 0
}

// soakEntry is what is read of `linkpin ls -o json`.
type soakEntry struct {
	Container struct {
		ID string `json:"id"`
	} `json:"container"`
	Programs []struct {
		Name      string `json:"name"`
		LinkID    uint32 `json:"linkId"`
		ProgramID uint32 `json:"programId"`
		Ifindex   int    `json:"ifindex"`
		State     string `json:"state"`
	} `json:"programs"`
}

// look notes what is attached at the moment, and returns it.
func (s *soak) look() ([]soakEntry, error) {
	out, err := exec.Command("linkpin", "ls", "--all", "-o", "json").Output()
	if err != nil {
		return nil, fmt.Errorf("linkpin ls: %w", err)
	}
	var entries struct {
		Entries []soakEntry `json:"entries"`
	}
	if err := json.Unmarshal(out, &entries); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peak = max(s.peak, len(entries.Entries))
	for _, e := range entries.Entries {
		for _, p := range e.Programs {
			s.links[p.LinkID], s.programs[p.ProgramID] = true, true
			s.names[p.Name[:min(len(p.Name), unix.BPF_OBJ_NAME_LEN-1)]] = true
		}
	}
	return entries.Entries, nil
}

// soaked is one container of a soak.
type soaked struct {
	s      *soak
	n      int
	worker int
	id     string
	policy string // even or odd
	victim string // "": nobody is killed

	bundle  string
	netns   string
	runtime *exec.Cmd
	ended   chan struct{} // the runtime has
	began   time.Time
	out     lockedBuffer
	stderr  lockedBuffer
}

// live is a container's life, from its network to its end.
func (c *soaked) live() error {
	for _, step := range []func() error{c.network, c.add, c.run, c.end} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *soaked) gateway() string { return fmt.Sprintf("10.77.%d.1", c.worker) }

// network makes what a runtime's CNI plugins would have made before ours.
func (c *soaked) network() error {
	c.netns = "/run/netns/" + c.id
	if err := sh(`set -e
ip netns add %[1]s
ip link add soak%[2]d type veth peer name eth0 netns %[1]s
ip addr add %[3]s/30 dev soak%[2]d
ip link set soak%[2]d up
nsenter --net=%[4]s sh -ec "ip link set lo up; ip addr add 10.77.%[2]d.2/30 dev eth0; ip link set eth0 up"`,
		c.id, c.worker, c.gateway(), c.netns); err != nil {
		return err
	}
	return c.makeBundle()
}

// makeBundle copies the policy's template.
func (c *soaked) makeBundle() error {
	data, err := os.ReadFile(filepath.Join(c.s.work, c.policy, "config.json"))
	if err != nil {
		return err
	}
	c.bundle = filepath.Join(c.s.work, "soak", c.id)
	text := strings.NewReplacer(
		`"SOAK"`, strconv.Quote(c.netns), "GATEWAY", c.gateway(),
		strconv.Quote(filepath.Join(c.s.parent, c.policy)), strconv.Quote(filepath.Join(c.s.parent, c.id)),
	).Replace(string(data))
	if err := os.MkdirAll(c.bundle, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.bundle, "config.json"), []byte(text), 0o644)
}

// add is CNI ADD. If it is killed, the runtime would give up: DEL, and a new try.
func (c *soaked) add() error {
	err := c.plugin("ADD", c.victim == "plugin")
	if c.victim == "plugin" {
		if err := c.plugin("DEL", false); err != nil {
			return err
		}
		err = c.plugin("ADD", false)
	}
	return err
}

// plugin calls linkpin-cni, and kills it if so told; then it does not matter what it said.
func (c *soaked) plugin(verb string, kill bool) error {
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"soak","type":"linkpin-cni","prevResult":{"cniVersion":"1.0.0",
		"interfaces":[{"name":"soak%d"},{"name":"eth0","sandbox":%q}]}}`, c.worker, c.netns)
	cmd := exec.Command("linkpin-cni")
	cmd.Stdin = strings.NewReader(conf)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+c.id, "CNI_NETNS="+c.netns, "CNI_IFNAME=eth0", "CNI_PATH=/")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	if kill {
		c.note("plugin")
		time.Sleep(rand.N(40 * time.Millisecond))
		_ = cmd.Process.Kill() // it may be done already
		_ = cmd.Wait()
		return nil
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("linkpin-cni %s: %w: %s", verb, err, out.String())
	}
	return nil
}

func (c *soaked) note(victim string) {
	n, _ := c.s.killed.LoadOrStore(victim, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

// run starts the container in the foreground, kills whom it should, and judges what
// the container says.
func (c *soaked) run() error {
	c.runtime = exec.Command("runc", "run", "--bundle", c.bundle, c.id)
	c.runtime.Stdout, c.runtime.Stderr = &c.out, &c.stderr
	c.began = time.Now()
	if err := c.runtime.Start(); err != nil {
		return err
	}
	c.ended = make(chan struct{})
	go func() {
		_ = c.runtime.Wait() // judged by what the container has said
		close(c.ended)
	}()
	c.strike()
	spoken, err := c.listen()
	if err != nil {
		return err
	}
	if !spoken && !slices.Contains([]string{"runtime", "hook", "init", "container", "shim"}, c.victim) {
		return fmt.Errorf("did not start: %s", c.stderr.String())
	}
	if c.victim == "shim" {
		c.note("shim")
		_ = c.runtime.Process.Kill() // it may have ended
	}
	if c.n%4 == 0 {
		return c.look()
	}
	return nil
}

// look judges what is attached to the container's interface.
func (c *soaked) look() error {
	device, err := net.InterfaceByName(fmt.Sprint("soak", c.worker))
	if err != nil {
		return err
	}
	entries, err := c.s.look()
	if err != nil {
		return err
	}
	live := 0
	for _, e := range entries {
		for _, p := range e.Programs {
			if e.Container.ID != c.id || p.Ifindex == 0 || p.State != "live" {
				continue
			}
			if live++; p.Ifindex != device.Index {
				return fmt.Errorf("link %d is on interface %d, not on %s, which is %d", p.LinkID, p.Ifindex, device.Name, device.Index)
			}
		}
	}
	if live == 0 {
		return errors.New("nothing is attached to its interface")
	}
	return nil
}

// strike kills the victim at a random moment of the start.
func (c *soaked) strike() {
	var name string
	switch c.victim {
	case "runtime":
		time.Sleep(rand.N(100 * time.Millisecond))
		c.note(c.victim)
		_ = c.runtime.Process.Kill() // it may have ended
		return
	case "hook":
		name = "linkpin-hook"
	case "init":
		name = "runc:[2:INIT]"
	case "container":
		name = "sh"
	default:
		return
	}
	// Who has spoken is past the hook, and is a shell no longer.
	for len(strings.Fields(c.out.String())) < 2 {
		if pid := descendant(c.runtime.Process.Pid, name); pid > 0 {
			time.Sleep(rand.N(25 * time.Millisecond))
			c.note(c.victim)
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
			return
		}
		select {
		case <-c.ended:
			return
		default:
		}
		time.Sleep(time.Millisecond)
	}
}

// listen waits for the container's two lines or its end. Whatever it says must be what
// its own policy makes of it, and nobody else's.
func (c *soaked) listen() (spoken bool, err error) {
	deadline := time.After(soakPatience)
	for ended := false; ; {
		lines := strings.Fields(c.out.String())
		if len(lines) > 0 && !spoken {
			spoken = true
			c.s.mu.Lock()
			if c.victim == "" {
				c.s.times = append(c.s.times, time.Since(c.began))
			}
			c.s.mu.Unlock()
		}
		want := []string{"EPERM", "ECONNREFUSED"}
		if c.policy == "odd" {
			want = []string{"ECONNREFUSED", "EPERM"}
		}
		if len(lines) > len(want) || !slices.Equal(lines, want[:min(len(lines), len(want))]) {
			return spoken, fmt.Errorf("said %q, not %q: %s", lines, want, c.stderr.String())
		}
		if len(lines) == len(want) {
			c.s.started.Add(1)
			return true, nil
		}
		if ended {
			return spoken, nil
		}
		select {
		case <-c.ended:
			ended = true // look once more
		case <-deadline:
			return spoken, fmt.Errorf("hangs: said %q: %s", lines, c.stderr.String())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// end takes the container down as a runtime and a node's operator would.
func (c *soaked) end() error {
	del := exec.Command("runc", "delete", "--force", c.id)
	if err := del.Start(); err != nil {
		return err
	}
	if c.victim == "poststop" {
		if pid := waitDescendant(del.Process.Pid, "linkpin-hook"); pid > 0 {
			time.Sleep(rand.N(8 * time.Millisecond))
			c.note("poststop")
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
	}
	_ = del.Wait() // there may be nothing to delete
	select {
	case <-c.ended:
	case <-time.After(soakPatience):
		return errors.New("the runtime does not end")
	}
	// A runtime that was killed leaves its processes, its cgroup and its state to others.
	if err := c.empty(filepath.Join(c.s.cg2, c.s.parent, c.id)); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join("/run/runc", c.id)); err != nil {
		return err
	}
	if err := c.plugin("DEL", c.n%30 == 0); err != nil {
		return err
	}
	if c.n%30 == 0 {
		c.note("plugin DEL")
	}
	return sh("set -e; ip link del soak%d; ip netns del %s", c.worker, c.id)
}

// empty ends whoever is left in a cgroup, by pid, and removes it.
func (c *soaked) empty(cgroup string) error {
	deadline := time.Now().Add(soakPatience)
	for {
		procs, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		for pid := range strings.FieldsSeq(string(procs)) {
			if n, err := strconv.Atoi(pid); err == nil {
				_ = unix.Kill(n, unix.SIGKILL) // it may have ended
			}
		}
		if err := unix.Rmdir(cgroup); err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cgroup %s can't be emptied: %s", cgroup, procs)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// sh runs a shell script.
func sh(format string, args ...any) error {
	if out, err := exec.Command("sh", "-c", fmt.Sprintf(format, args...)).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func waitDescendant(pid int, name string) int {
	for range 1000 {
		if found := descendant(pid, name); found > 0 {
			return found
		}
		if unix.Kill(pid, 0) != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return 0
}

// descendant finds a process below pid by its name; 0 if there is none.
func descendant(pid int, name string) int {
	for _, dir := range glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) {
		data, _ := os.ReadFile(dir) // gone: no children
		for field := range strings.FieldsSeq(string(data)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				continue
			}
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child)) // gone: no name
			if strings.TrimSpace(string(comm)) == name {
				return child
			}
			if found := descendant(child, name); found > 0 {
				return found
			}
		}
	}
	return 0
}

func glob(pattern string) []string {
	names, _ := filepath.Glob(pattern) // the pattern is well formed
	return names
}

// lockedBuffer is what a process prints, read while it does.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

var _ io.Writer = (*lockedBuffer)(nil)

// readLocks returns the flocks on directories of a file system.
func readLocks(dev uint64) ([]string, error) {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []string
	want := fmt.Sprintf(" %02x:%02x:", unix.Major(dev), unix.Minor(dev))
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		if line := scanner.Text(); strings.Contains(line, "FLOCK") && strings.Contains(line, want) {
			found = append(found, line)
		}
	}
	return found, scanner.Err()
}
