// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const crowdUsage = `usage:
  crowd update COUNT ROUNDS DIR...   update that many containers under traffic, to the policies of each DIR in turn
  crowd member DIR                   be one of them: send until DIR/stop exists
  crowd wire COUNT ROUNDS DIR...     the same with programs on interfaces
  crowd wired DIR                    be one of these`

// crowdMain is the program `crowd`: many containers under constant traffic, each of
// which counts what it has sent, while the policy is updated.
func crowdMain() {
	err := errors.New(crowdUsage)
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "member":
		err = crowdMember(args[1])
	case len(args) == 2 && args[0] == "wired":
		err = wireMember(args[1])
	case len(args) > 3 && args[0] == "wire":
		err = wireUpdate(args[1], args[2], args[3:])
	case len(args) > 3 && args[0] == "update":
		err = crowdUpdate(args[1], args[2], args[3:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
}

// crowdPause is between two sends of one member: hundreds of them share the machine.
const crowdPause = 100 * time.Millisecond

// crowdMember connects a socket and sends a datagram, again and again, in a namespace
// of its own, from the moment at which DIR/go exists. It writes to DIR/sent how often
// it has tried to connect, and how many packets it has sent.
func crowdMember(dir string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	to := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}
	// Somebody has to be there, or errors would be sent back.
	sink, err := net.ListenPacket("udp4", "127.0.0.1:9")
	if err != nil {
		return err
	}
	defer sink.Close()
	for !exists(dir + "/go") {
		time.Sleep(crowdPause)
	}
	connects, refused, packets := 0, 0, 0
	for !exists(dir + "/stop") {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		connects++
		if err := unix.Connect(fd, to); err != nil {
			refused++
		} else if _, err := unix.Write(fd, []byte("x")); err == nil {
			packets++
		}
		unix.Close(fd)
		time.Sleep(crowdPause)
	}
	return os.WriteFile(dir+"/sent", fmt.Appendf(nil, "%d %d %d\n", connects, refused, packets), 0o600)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// member is one container of a crowd.
type member struct {
	id, dir, cgroup string
	cmd             *exec.Cmd
}

// crowdUpdate starts members, has linkpin-hook attach the applied policy to each, and
// updates them to the policies of one directory after the other. In the end it compares
// what they have sent with what the programs of all versions have counted.
func crowdUpdate(count, rounds string, dirs []string) (err error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	turns, err := strconv.Atoi(rounds)
	if err != nil {
		return err
	}
	var members []*member
	defer func() {
		for _, m := range members {
			_ = m.cmd.Process.Kill()
			_ = m.cmd.Wait() // its error is the kill
			_ = os.Remove(m.cgroup)
		}
	}()
	if err := exec.Command("linkpin", "policy", "apply", "--dir", dirs[0]).Run(); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	for i := range n {
		m, err := startMember(fmt.Sprintf("crowd%03d", i), "member")
		if err != nil {
			return err
		}
		members = append(members, m)
		if err := m.attach(); err != nil {
			return err
		}
	}
	for _, m := range members {
		if err := os.WriteFile(m.dir+"/go", nil, 0o600); err != nil {
			return err
		}
	}
	start := time.Now()
	for turn := range turns {
		dir := dirs[(turn+1)%len(dirs)]
		if out, err := exec.Command("linkpin", "policy", "apply", "--dir", dir).CombinedOutput(); err != nil {
			return fmt.Errorf("apply: %w: %s", err, out)
		}
		out, err := exec.Command("linkpin", "update", "--all", "-o", "json").Output()
		if err != nil {
			return fmt.Errorf("update: %w: %s", err, out)
		}
		if got := bytes.Count(out, []byte(`"outcome": "updated"`)); got < n {
			return fmt.Errorf("turn %d: %d of %d were updated", turn, got, n)
		}
	}
	took := time.Since(start)
	for _, m := range members {
		if err := os.WriteFile(m.dir+"/stop", nil, 0o600); err != nil {
			return err
		}
	}
	var all sums
	for _, m := range members {
		if err := m.cmd.Wait(); err != nil {
			return fmt.Errorf("%s: %w", m.id, err)
		}
		one, err := m.sums()
		if err != nil {
			return fmt.Errorf("%s: %w", m.id, err)
		}
		all.add(one)
	}
	fmt.Printf("%d containers, %d updates of all of them, %d ms for each container\n", n, turns, took.Milliseconds()/int64(n*turns))
	fmt.Printf("connects: %d made, %d refused, %d counted by the one version, %d by the other\n", all.connects, all.refused, all.counted[1], all.counted[2])
	fmt.Printf("packets: %d sent, %d counted by the one version, %d by the other\n", all.packets, all.seen[1], all.seen[2])
	return nil
}

type sums struct {
	connects, refused, packets int
	counted, seen              [3]int // by version
}

func (s *sums) add(o sums) {
	s.connects, s.refused, s.packets = s.connects+o.connects, s.refused+o.refused, s.packets+o.packets
	for i := range s.counted {
		s.counted[i] += o.counted[i]
		s.seen[i] += o.seen[i]
	}
}

// startMember starts a process, which runs a command of crowd, in a cgroup and a network namespace of its own, as a
// runtime would.
func startMember(id, command string) (*member, error) {
	m := &member{id: id, dir: filepath.Join(os.Getenv("WORK"), id), cgroup: os.Getenv("CG2") + os.Getenv("CGPARENT") + "/" + id}
	for _, dir := range []string{m.dir, m.cgroup} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	cgroup, err := os.Open(m.cgroup)
	if err != nil {
		return nil, err
	}
	defer cgroup.Close()
	m.cmd = exec.Command("crowd", command, m.dir)
	m.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	m.cmd.Stderr = os.Stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd()), Cloneflags: syscall.CLONE_NEWNET}
	return m, m.cmd.Start()
}

// attach has linkpin-hook attach what is applied.
func (m *member) attach() error {
	state, err := json.Marshal(map[string]any{
		"ociVersion": "1.0.2", "id": m.id, "status": "created", "pid": m.cmd.Process.Pid, "bundle": m.dir,
	})
	if err != nil {
		return err
	}
	hook := exec.Command("linkpin-hook", "--caller", "none", "createRuntime")
	hook.Stdin = bytes.NewReader(state)
	if out, err := hook.CombinedOutput(); err != nil {
		return fmt.Errorf("hook for %s: %w: %s", m.id, err, out)
	}
	return nil
}

// sums compares what a member has sent with what was counted.
func (m *member) sums() (s sums, err error) {
	text, err := os.ReadFile(m.dir + "/sent")
	if err != nil {
		return s, err
	}
	if _, err := fmt.Sscan(string(text), &s.connects, &s.refused, &s.packets); err != nil {
		return s, err
	}
	entries, err := filepath.Glob(os.Getenv("STATE") + "/containers/" + m.id + "-*/counted")
	if err != nil || len(entries) != 1 {
		return s, fmt.Errorf("entries %v, %w", entries, err)
	}
	for name, into := range map[string]*[3]int{"connects": &s.counted, "packets": &s.seen} {
		counts, err := ebpf.LoadPinnedMap(entries[0]+"/map_"+name, nil)
		if err != nil {
			return s, err
		}
		for version := range into {
			var n uint64
			if err := counts.Lookup(uint32(version), &n); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				counts.Close()
				return s, err
			}
			into[version] = int(n)
		}
		counts.Close()
	}
	var wrong []string
	if s.counted[1]+s.counted[2] != s.connects {
		wrong = append(wrong, fmt.Sprintf("%d connects, counted %v", s.connects, s.counted))
	}
	if s.seen[1]+s.seen[2] != s.packets {
		wrong = append(wrong, fmt.Sprintf("%d packets, counted %v", s.packets, s.seen))
	}
	if s.refused > 0 || s.counted[1] == 0 || s.counted[2] == 0 {
		wrong = append(wrong, fmt.Sprintf("%d connects refused, counted %v", s.refused, s.counted))
	}
	if len(wrong) > 0 {
		return s, errors.New(strings.Join(wrong, "; "))
	}
	return s, nil
}
