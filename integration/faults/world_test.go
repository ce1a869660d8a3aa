// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/integration/faults/tracer"
)

// world is what one run works on: a container with a process, a cgroup, a network
// namespace and a veth pair of its own. None of it is used twice: ids, inodes and
// cookies of the next run are others.
type world struct {
	*host
	id      string // of the container
	bundle  string
	dir     string // its cgroup
	process *exec.Cmd
	veth    string                     // the host's end
	veths   []string                   // all that there were
	pods    bool                       // the runtime tells CNI of the cgroup
	created []tracer.Object            // by all programs that have run in this world
	besides []tracer.Object            // by those that have run for another container
	links   map[link.ID]ebpf.ProgramID // before an update
}

const hostAddress, containerAddress = "192.0.2.1", "192.0.2.2"

var (
	hostMAC      = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	containerMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

// newWorld starts a container as far as a runtime has when it calls the hook, if the
// stage is about one.
func (h *host) newWorld(s *stage) (_ *world, err error) {
	if err := h.use(cmp.Or(s.policies, "policies")); err != nil {
		return nil, err
	}
	h.runs++
	if h.base, err = latest(h.base); err != nil {
		return nil, err
	}
	name := fmt.Sprint(h.mark, "-", h.runs)
	return h.container(name)
}

// container starts a container.
func (h *host) container(name string) (*world, error) {
	w := &world{host: h, id: name}
	if err := w.start(); err != nil {
		return w, errors.Join(err, w.end())
	}
	return w, nil
}

// start starts the container, also again after it has ended: its id, the path of its
// cgroup and its bundle are the same then, and nothing else.
func (w *world) start() error {
	w.dir, w.bundle = filepath.Join(w.cgroup, w.id), "/run/"+w.id
	w.host.veths++
	w.veth = fmt.Sprint(w.mark, "v", w.host.veths)
	w.veths = append(w.veths, w.veth)
	for _, dir := range []string{w.dir, w.bundle} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	cgroup, err := os.Open(w.dir)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	w.process = exec.Command("sleep", "3600")
	w.process.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET, UseCgroupFD: true, CgroupFD: int(cgroup.Fd()), Pdeathsig: unix.SIGKILL,
	}
	if err := w.process.Start(); err != nil {
		w.process = nil
		return err
	}
	return w.network()
}

func (w *world) pid() int { return w.process.Process.Pid }

func (w *world) netns() string { return fmt.Sprintf("/proc/%d/ns/net", w.pid()) }

// network makes a veth pair. Addresses of neighbours are written down, so that the
// first datagram waits for nothing.
func (w *world) network() error {
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: w.veth, HardwareAddr: hostMAC, Flags: net.FlagUp},
		PeerName:  "eth0", PeerHardwareAddr: containerMAC, PeerNamespace: netlink.NsPid(w.pid()),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	ns, err := netns.GetFromPath(w.netns())
	if err != nil {
		return err
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	eth0, err := inside.LinkByName("eth0")
	if err != nil {
		return err
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(containerAddress), Mask: net.CIDRMask(24, 32)}}
	neighbour := &netlink.Neigh{
		LinkIndex: eth0.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(hostAddress), HardwareAddr: hostMAC,
	}
	return errors.Join(inside.AddrAdd(eth0, address), inside.LinkSetUp(eth0), inside.NeighAdd(neighbour))
}

// state is the container's, as a runtime hands it to hooks at a stage.
func (w *world) state(status oci.ContainerState) []byte {
	st := oci.State{Version: "1.0.2", ID: w.id, Status: status, Bundle: w.bundle}
	if status == oci.StateCreating {
		st.Pid = w.pid()
	}
	data, err := json.Marshal(st)
	if err != nil {
		panic(err) // it is made of strings
	}
	return data
}

// end ends the container, as a runtime does: its process is killed, its cgroup
// removed, and nobody holds its network namespace any more. It may be called twice.
func (w *world) end() error {
	if w.process != nil {
		_ = w.process.Process.Kill() // it may have ended
		_ = w.process.Wait()         // its error is the kill
		w.process = nil
	}
	if w.dir == "" {
		return nil
	}
	err := removeCgroup(w.dir)
	w.dir = ""
	return errors.Join(err, os.RemoveAll(w.bundle))
}
