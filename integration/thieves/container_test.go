// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// options are what rows change in their container.
type options struct {
	policies string // names of files in testdata, separated by spaces
	cgroupns bool   // a cgroup namespace of its own, also for who shares the host's user namespace
	hostPID  bool   // the host's process namespace
	ptrace   bool   // CAP_SYS_PTRACE too
	delegate bool   // its cgroup belongs to the container's user
}

// standard is the container of most rows.
var standard = options{policies: "cgroup device"}

// Addresses and names of the container's veth pair; those of command thief.
const (
	hostIP, containerIP   = "10.77.0.1", "10.77.0.2"
	hostMAC, containerMAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
	hostDevice            = "veth0"
	state                 = "/sys/fs/bpf/linkpin/v1"
	netnsPath, usernsPath = "/run/netns-c", "/run/userns-c"
	id                    = "c"
)

// capabilities that docker, podman and containerd give by default.
var capabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// privileges are what thieves inside have beyond that.
var privileges = []string{"CAP_NET_ADMIN", "CAP_BPF", "CAP_SYS_ADMIN"}

// firstUser is what root of a user namespace is outside.
const firstUser = 100000

// scene is a machine with one container under its programs, and a thief.
type scene struct {
	testing.TB
	*machine
	*server
	actor  actor
	opts   options
	dir    string // bundle
	pid    int    // the container's first process
	before map[string]linkState
	base   report // what `linkpin verify` says of the untouched container
	tokens int
	held   []int // descriptors of links that the thief has open

	mounted  bool      // the thief has tried to mount cgroup2
	watching *exec.Cmd // `linkpin watch`, once a row needs it
}

// newScene must be called by a goroutine that ends with the test: it moves its
// thread into the machine.
func newScene(t testing.TB, a actor, o options) *scene {
	t.Helper()
	m, err := newMachine()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{TB: t, machine: m, actor: a, opts: o}
	ready := false
	defer func() {
		if !ready {
			s.close()
		}
	}()
	s.dir, err = os.MkdirTemp(built.dir, "bundle-")
	s.check(err)
	s.check(m.Enter())
	s.applyPolicies()
	s.makeNamespaces()
	s.makeDevices()
	s.server, err = listen()
	s.check(err)
	s.cniAdd()
	s.startContainer()
	s.before = s.pinned()
	if len(s.before) == 0 {
		s.Fatalf("the container has no programs:\n%s", s.must("linkpin", "ls"))
	}
	s.base = s.verify()
	ready = true
	return s
}

// close ends the machine, from wherever it is called.
func (s *scene) close() {
	if s.server != nil {
		s.server.close()
	}
	if s.watching != nil {
		// A machine does not end before somebody has waited for all of its processes.
		_ = s.watching.Process.Kill()
		_ = s.watching.Wait() // it was killed
	}
	if err := s.machine.Close(); err != nil {
		s.Error("the machine left something behind:", err)
	}
	os.RemoveAll(s.dir)
}

func (s *scene) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// run runs a program in the machine and returns what it said and its exit code.
func (s *scene) run(name string, args ...string) (string, int) {
	s.Helper()
	if own := filepath.Join(built.bin, name); filepath.Base(name) == name {
		if _, err := os.Stat(own); err == nil {
			name = own
		}
	}
	return s.runIn(exec.Command(name, args...))
}

func (s *scene) runIn(cmd *exec.Cmd) (string, int) {
	s.Helper()
	cmd.Env = append(cmd.Env, "PATH="+built.bin+":"+os.Getenv("PATH"))
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	out, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		s.Fatalf("%v: %v", cmd.Args, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (s *scene) must(name string, args ...string) string {
	s.Helper()
	out, code := s.run(name, args...)
	if code != 0 {
		s.Fatalf("%s %s: exit code %d: %s", name, strings.Join(args, " "), code, out)
	}
	return out
}

func (s *scene) applyPolicies() {
	s.Helper()
	const dir = "/etc/linkpin/policies.d"
	s.check(os.MkdirAll(dir, 0o755))
	s.check(os.CopyFS(filepath.Join(dir, "objects"), os.DirFS(filepath.Join(built.policies, "objects"))))
	for name := range strings.FieldsSeq(s.opts.policies) {
		policy, err := os.ReadFile(filepath.Join(testdata, name+".yaml"))
		s.check(err)
		if name == "device" && running(s) < needsTCX {
			policy = bytes.Replace(policy, []byte("onError: deny\n"), []byte("onError: deny\ntc: {fallback: clsact}\n"), 1)
		}
		s.check(os.WriteFile(filepath.Join(dir, name+".yaml"), policy, 0o644))
	}
	s.must("linkpin", "policy", "apply")
}

// testdata is absolute: the thread of a scene has another working directory.
var testdata, _ = filepath.Abs("testdata")

// makeNamespaces makes the network namespace of the container and, for a thief in
// its own user namespace, that one too, as containerd and CRI-O do before CNI.
func (s *scene) makeNamespaces() {
	s.Helper()
	kinds, paths := "net", map[string]string{"net": netnsPath}
	if s.actor == ownUserns {
		kinds, paths["user"] = "user,net", usernsPath
	}
	cmd := exec.Command(filepath.Join(built.bin, "thief"), "hold", kinds)
	in, err := cmd.StdinPipe()
	s.check(err)
	out, err := cmd.StdoutPipe()
	s.check(err)
	s.check(cmd.Start())
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		s.Fatal("making namespaces:", err)
	}
	for name, path := range paths {
		s.check(os.WriteFile(path, nil, 0o600))
		s.check(mount(fmt.Sprintf("/proc/%d/ns/%s", pid, name), path, "", unix.MS_BIND, ""))
	}
	in.Close()
	s.check(cmd.Wait())
	// A tun device that everybody may open, as many give it to their containers.
	s.check(os.Mkdir("/run/dev", 0o755))
	s.check(mount("tmpfs", "/run/dev", "tmpfs", 0, "mode=0755"))
	s.check(unix.Mknod("/run/dev/tun", unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))))
	s.check(os.Chmod("/run/dev/tun", 0o666))
}

// inNetns runs f in the container's network namespace.
func (s *scene) inNetns(f func() error) {
	s.Helper()
	ns, err := os.Open(netnsPath)
	s.check(err)
	defer ns.Close()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		failed <- err
	}()
	s.check(<-failed)
}

// makeDevices makes the veth pair, as bridge and ptp do.
func (s *scene) makeDevices() {
	s.Helper()
	ns, err := os.Open(netnsPath)
	s.check(err)
	defer ns.Close()
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}
	pair.Name = hostDevice
	pair.HardwareAddr, pair.PeerHardwareAddr = mac(hostMAC), mac(containerMAC)
	s.check(netlink.LinkAdd(pair))
	s.check(raise(hostDevice, hostIP+"/24"))
	s.inNetns(func() error { return errors.Join(raise("lo", ""), raise("eth0", containerIP+"/24")) })
	// The tun row's network is behind the container.
	_, tun, err := net.ParseCIDR("10.79.0.0/24")
	s.check(err)
	s.check(netlink.RouteAdd(&netlink.Route{Dst: tun, Gw: net.ParseIP(containerIP)}))
}

func mac(text string) net.HardwareAddr {
	a, err := net.ParseMAC(text)
	if err != nil {
		panic(err) // it is a constant
	}
	return a
}

func raise(name, address string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if address != "" {
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// cniAdd calls linkpin-cni as the last of a chain that has made the veth pair.
func (s *scene) cniAdd() {
	s.Helper()
	cmd := exec.Command(filepath.Join(built.bin, "linkpin-cni"))
	cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + id, "CNI_NETNS=" + netnsPath, "CNI_IFNAME=eth0", "CNI_PATH=" + built.bin}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "net", "type": "linkpin-cni", "prevResult": {
		"cniVersion": "1.0.0", "interfaces": [{"name": %q, "mac": %q}, {"name": "eth0", "mac": %q, "sandbox": %q}],
		"ips": [{"address": "%s/24", "interface": 1}]}}`, hostDevice, hostMAC, containerMAC, netnsPath, containerIP))
	if out, code := s.runIn(cmd); code != 0 {
		s.Fatalf("linkpin-cni: exit code %d: %s", code, out)
	}
}

func (s *scene) startContainer() {
	s.Helper()
	shared := filepath.Join(s.dir, "shared")
	s.check(os.Mkdir(shared, 0o777))
	s.check(os.Chmod(s.dir, 0o755)) // the container's user is another one
	s.check(os.Chmod(shared, 0o777))
	config, err := json.Marshal(s.spec(shared))
	s.check(err)
	s.check(os.WriteFile(filepath.Join(s.dir, "config.json"), config, 0o644))
	// Files, not pipes: the container keeps its ends open as long as it runs.
	log, err := os.Create(filepath.Join(s.dir, "log"))
	s.check(err)
	defer log.Close()
	runc, err := exec.LookPath("runc")
	s.check(err)
	cmd := exec.Command(runc, "run", "--detach", "--pid-file", filepath.Join(s.dir, "pid"), "--bundle", s.dir, id)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	if err := cmd.Run(); err != nil {
		data, _ := os.ReadFile(log.Name())
		s.Fatalf("runc run: %v: %s", err, data)
	}
	data, err := os.ReadFile(filepath.Join(s.dir, "pid"))
	s.check(err)
	_, err = fmt.Sscan(string(data), &s.pid)
	s.check(err)
	if s.opts.delegate {
		for _, file := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
			s.check(os.Chown(filepath.Join(cgroup2, s.parent, id, file), firstUser, firstUser))
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		if c, err := net.Dial("unix", filepath.Join(shared, "agent")); err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			data, _ := os.ReadFile(log.Name())
			s.Fatalf("the container does not answer: %s", data)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// thiefAnswer is what `thief serve` says about a command.
type thiefAnswer struct {
	Out string
	Err string // empty: it exited 0
}

// inside runs a command of the thief in the container.
func (s *scene) inside(args ...string) (string, error) {
	s.Helper()
	c, err := net.Dial("unix", filepath.Join(s.dir, "shared/agent"))
	s.check(err)
	defer c.Close()
	s.check(c.SetDeadline(time.Now().Add(30 * time.Second)))
	s.check(json.NewEncoder(c).Encode(args))
	var a thiefAnswer
	if err := json.NewDecoder(c).Decode(&a); err != nil {
		s.Fatalf("thief %v: no answer: %v", args, err)
	}
	if a.Err != "" {
		return a.Out, errors.New(strings.TrimSpace(a.Err))
	}
	return a.Out, nil
}

// thief runs a command of the thief where the actor is.
func (s *scene) thief(args ...string) error {
	s.Helper()
	if s.actor != hostRoot {
		_, err := s.inside(args...)
		return err
	}
	out, code := s.run("thief", args...)
	switch code {
	case 0:
		return nil
	case 1:
		return errors.New(strings.TrimSpace(out))
	}
	s.Fatalf("thief %v: %s", args, out)
	return nil
}
