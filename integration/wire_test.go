// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// wireMember sends datagrams out of eth0 to the address in DIR/go, from the moment at
// which that file exists until DIR/stop does, and writes to DIR/sent how many.
func wireMember(dir string) error {
	for !exists(dir + "/go") {
		time.Sleep(crowdPause)
	}
	to, err := os.ReadFile(dir + "/go")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte(net.ParseIP(string(to)).To4())}); err != nil {
		return err
	}
	sent := 0
	for !exists(dir + "/stop") {
		if _, err := unix.Write(fd, []byte("x")); err == nil { // not, if an earlier one was refused
			sent++
		}
		time.Sleep(crowdPause / 20)
	}
	return os.WriteFile(dir+"/sent", fmt.Append(nil, sent), 0o600)
}

// wire makes the member's interface, before anything is attached. Neighbours are written
// down, so that no packet waits for an answer.
func (m *member) wire(i int) (host net.IP, err error) {
	address := func(last byte) *net.IPNet {
		return &net.IPNet{IP: net.IPv4(10, 99, byte(i), last), Mask: net.CIDRMask(24, 32)}
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}
	name := fmt.Sprint("lpwire", i)
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: mac}, PeerName: "eth0", PeerNamespace: netlink.NsPid(m.cmd.Process.Pid),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("veth: %w", err)
	}
	outside, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(netlink.AddrAdd(outside, &netlink.Addr{IPNet: address(1)}), netlink.LinkSetUp(outside)); err != nil {
		return nil, err
	}
	ns, err := netns.GetFromPath(fmt.Sprintf("/proc/%d/ns/net", m.cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	eth0, err := inside.LinkByName("eth0")
	if err != nil {
		return nil, err
	}
	neighbour := &netlink.Neigh{LinkIndex: eth0.Attrs().Index, State: netlink.NUD_PERMANENT, IP: address(1).IP, HardwareAddr: mac}
	return address(1).IP, errors.Join(inside.AddrAdd(eth0, &netlink.Addr{IPNet: address(2)}), inside.LinkSetUp(eth0), inside.NeighAdd(neighbour))
}

// wireUpdate is crowdUpdate for programs on interfaces: every packet that a member has
// sent comes past XDP and tc at the host's end, and is counted by one version of each.
func wireUpdate(count, rounds string, dirs []string) (err error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	turns, err := strconv.Atoi(rounds)
	if err != nil {
		return err
	}
	// Somebody has to be there, or errors would be sent back.
	sink, err := net.ListenPacket("udp4", ":9")
	if err != nil {
		return err
	}
	defer sink.Close()
	if out, err := exec.Command("linkpin", "policy", "apply", "--dir", dirs[0]).CombinedOutput(); err != nil {
		return fmt.Errorf("apply: %w: %s", err, out)
	}
	var members []*member
	defer func() {
		for _, m := range members {
			_ = m.cmd.Process.Kill()
			_ = m.cmd.Wait() // its error is the kill
			_ = os.Remove(m.cgroup)
		}
	}()
	for i := range n {
		m, err := startMember(fmt.Sprint("wire", i), "wired")
		if err != nil {
			return err
		}
		members = append(members, m)
		host, err := m.wire(i)
		if err != nil {
			return err
		}
		if err := m.attach(); err != nil {
			return err
		}
		if err := os.WriteFile(m.dir+"/to", []byte(host.String()), 0o600); err != nil {
			return err
		}
	}
	for _, m := range members {
		if err := os.Rename(m.dir+"/to", m.dir+"/go"); err != nil {
			return err
		}
	}
	for turn := range turns {
		time.Sleep(2 * crowdPause)
		if out, err := exec.Command("linkpin", "policy", "apply", "--dir", dirs[(turn+1)%len(dirs)]).CombinedOutput(); err != nil {
			return fmt.Errorf("apply: %w: %s", err, out)
		}
		if out, err := exec.Command("linkpin", "update", "--all").CombinedOutput(); err != nil {
			return fmt.Errorf("update: %w: %s", err, out)
		}
	}
	time.Sleep(2 * crowdPause)
	for _, m := range members {
		if err := os.WriteFile(m.dir+"/stop", nil, 0o600); err != nil {
			return err
		}
	}
	total := 0
	counted := map[string][3]uint64{}
	for _, m := range members {
		if err := m.cmd.Wait(); err != nil {
			return fmt.Errorf("%s: %w", m.id, err)
		}
		text, err := os.ReadFile(m.dir + "/sent")
		if err != nil {
			return err
		}
		sent, err := strconv.ParseUint(string(text), 10, 64)
		if err != nil {
			return err
		}
		total += int(sent)
		maps, err := m.wireMaps()
		if err != nil {
			return err
		}
		for _, path := range maps {
			c, err := settledCount(path, sent)
			if err != nil {
				return fmt.Errorf("%s: %w", m.id, err)
			}
			name := strings.TrimPrefix(filepath.Base(path), "map_at_")
			sum := counted[name]
			counted[name] = [3]uint64{0, sum[1] + c[1], sum[2] + c[2]}
		}
	}
	fmt.Printf("%d packets sent by %d containers, %d updates\n", total, n, turns)
	for name, c := range counted {
		fmt.Printf("%s: %d counted by the one version, %d by the other\n", name, c[1], c[2])
	}
	return nil
}

// wireMaps returns the paths of the counters of a member's interface.
func (m *member) wireMaps() ([]string, error) {
	entries, err := filepath.Glob(os.Getenv("STATE") + "/sandboxes/*/members/" + m.id + "-*")
	if err != nil || len(entries) != 1 {
		return nil, fmt.Errorf("%s is a member of %v, %w", m.id, entries, err)
	}
	maps, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(entries[0])), "hook/eth0/wire/map_at_*"))
	if err == nil && len(maps) == 0 {
		err = fmt.Errorf("%s has no counters", m.id)
	}
	return maps, err
}

// settledCount reads what the versions have counted: together what was sent, and not
// nothing. The last packet may be on its way.
func settledCount(path string, sent uint64) (c [3]uint64, err error) {
	counts, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return c, err
	}
	defer counts.Close()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(crowdPause) {
		for version := range c {
			if err := counts.Lookup(uint32(version), &c[version]); err != nil {
				return c, err
			}
		}
		if c[1]+c[2] == sent && c[1] > 0 && c[2] > 0 {
			return c, nil
		}
		if time.Now().After(deadline) {
			return c, fmt.Errorf("%d packets sent, %s counted %v", sent, filepath.Base(path), c[1:])
		}
	}
}
