// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
)

func TestMain(m *testing.M) { os.Exit(bpftest.Main(m)) }

const object = "../bpf/load/testdata/basic.bpf.o"

// node is a machine: a bpffs and an applied set of its own.
type node struct {
	t        testing.TB
	hook     Hook
	warnings []error
}

func newNode(t testing.TB, policies ...policy) *node {
	t.Helper()
	n := &node{t: t}
	n.hook = Hook{
		Caller:  specs.CallerNone,
		BPFFS:   pin.Options{Path: bpftest.TempBPFFS(t)},
		Applied: applied.Options{Dir: filepath.Join(t.TempDir(), "applied")},
		Exempt:  filepath.Join(t.TempDir(), "exempt"),
		Warn:    func(err error) { n.warnings = append(n.warnings, err) },
	}
	if policies != nil {
		n.apply(policies...)
	}
	return n
}

// policy describes one policy of a test: symbols of the object and their places.
type policy struct {
	name     string
	sel      specs.Select
	onError  specs.OnError
	programs []specs.Attachment // Name is the symbol
	comment  string             // changes nothing but the digest
	cgroup   specs.CgroupOf
}

var (
	everybody = specs.Select{Fields: specs.Fields{All: true}}
	connect   = specs.Attachment{Name: "connect4", Hook: "cgroup/connect4"}
	tcxHost   = specs.Attachment{Name: "read_ifindex", Hook: specs.HookTCXIngress, Side: specs.SideHost}
	xdpInside = specs.Attachment{Name: "pass", Hook: specs.HookXDP, Side: specs.SideContainer}
	broken    = specs.Attachment{Name: "wild", Hook: specs.HookTCXIngress, Side: specs.SideHost} // its type does not fit
	nothing   = specs.Attachment{Name: "wild", Hook: "cgroup_skb/egress"}                        // nor here
)

func deny(name string, programs ...specs.Attachment) policy {
	return policy{name: name, sel: everybody, onError: specs.Deny, programs: programs}
}

func allow(name string, programs ...specs.Attachment) policy {
	return policy{name: name, sel: everybody, onError: specs.Allow, programs: programs}
}

func (n *node) apply(policies ...policy) {
	n.t.Helper()
	data, err := os.ReadFile(object)
	if err != nil {
		n.t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	set := applied.NewSet{Objects: map[string][]byte{digest: data}}
	for _, p := range policies {
		plan := specs.Plan{
			Version: specs.PlanVersion, Name: p.name, Source: p.name + ".yaml", Description: p.comment,
			OnError: p.onError, Scope: specs.ScopeContainer, Cgroup: p.cgroup, Teardown: specs.Drain,
			Objects: []specs.PlanObject{{SHA256: digest, Origin: object}},
		}
		for _, a := range p.programs {
			plan.Programs = append(plan.Programs, specs.PlanProgram{Key: a.Name, Symbol: a.Name, Hook: a.Hook, Attachments: []specs.Attachment{a}})
		}
		set.Policies = append(set.Policies, applied.NewPolicy{Select: p.sel, Plan: plan})
	}
	if _, err := applied.Write(n.hook.Applied, set); err != nil {
		n.t.Fatal(err)
	}
}

// container is a process in a cgroup, and what a runtime says of it.
type container struct {
	cgroup, host string
	ns           *bpftest.NS
	state        map[string]any
}

// newContainer makes a container. host is the name of its veth's host side; without
// it the container has a namespace with nothing but lo.
func newContainer(t testing.TB, id, host string) *container {
	t.Helper()
	cgroup := bpftest.Cgroup(t)
	ns := bpftest.NetNSProcess(t, cgroup)
	if host != "" {
		bpftest.Veth(t, ns, host, "eth0")
	}
	return describe(t, id, cgroup, host, ns, ns.PID())
}

// join makes a container in the namespace of another one.
func (c *container) join(t testing.TB, id string) *container {
	t.Helper()
	cgroup := bpftest.Cgroup(t)
	var pid int
	c.ns.Do(t, func() { pid = bpftest.CgroupProcess(t, cgroup).Pid })
	return describe(t, id, cgroup, c.host, c.ns, pid)
}

func describe(t testing.TB, id, cgroup, host string, ns *bpftest.NS, pid int) *container {
	return &container{cgroup: cgroup, host: host, ns: ns, state: map[string]any{
		"ociVersion": "1.0.2", "id": id, "pid": pid, "status": "creating", "bundle": t.TempDir(),
	}}
}

// kill ends the container's processes and waits for its cgroup to be empty.
func (c *container) kill(t testing.TB) {
	t.Helper()
	// Not cgroup.kill: kernel 6.18 also kills what is later started in that cgroup.
	procs, err := os.ReadFile(c.cgroup + "/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	for field := range strings.FieldsSeq(string(procs)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	bpftest.Eventually(t, "cgroup is empty", func() error {
		data, err := os.ReadFile(c.cgroup + "/cgroup.events")
		if err == nil && !strings.Contains(string(data), "populated 0") {
			err = errors.New("still populated")
		}
		return err
	})
}

func (n *node) run(ctx context.Context, stage Stage, c *container) error {
	n.t.Helper()
	data, err := json.Marshal(c.state)
	if err != nil {
		n.t.Fatal(err)
	}
	h := n.hook
	h.Stage, h.State = stage, bytes.NewReader(data)
	return h.Run(ctx)
}

func (n *node) create(c *container) error {
	n.t.Helper()
	return n.run(context.Background(), CreateRuntime, c)
}

func (n *node) must(stage Stage, c *container) {
	n.t.Helper()
	if err := n.run(context.Background(), stage, c); err != nil {
		n.t.Fatalf("%s: %v", stage, err)
	}
}

// session opens the state as another process would.
func (n *node) session() *entry.Session {
	n.t.Helper()
	root, err := pin.Create(n.hook.BPFFS)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { root.Close() })
	return &entry.Session{Root: root, By: pin.ByCNI}
}

func (n *node) items() (live, retired []entry.Item) {
	n.t.Helper()
	if err := n.session().Walk(func(it entry.Item) error {
		if it.Retired != nil {
			retired = append(retired, it)
		} else {
			live = append(live, it)
		}
		return nil
	}); err != nil {
		n.t.Fatal(err)
	}
	return live, retired
}

func (n *node) wantEntries(want int) {
	n.t.Helper()
	live, _ := n.items()
	if len(live) != want {
		for _, it := range live {
			n.t.Logf("%s by %s", it.Place, it.Record.By)
		}
		n.t.Errorf("%d entries, want %d", len(live), want)
	}
}

// wantNothing checks that a refused container leaves nothing at all.
func (n *node) wantNothing() {
	n.t.Helper()
	live, retired := n.items()
	root := n.session().Root
	staging, err := root.StagingNames()
	if err != nil {
		n.t.Fatal(err)
	}
	sandboxes, err := root.Sandboxes()
	if err != nil {
		n.t.Fatal(err)
	}
	containers, err := root.Containers()
	if err != nil {
		n.t.Fatal(err)
	}
	dangling, err := root.DanglingNetns()
	if err != nil {
		n.t.Fatal(err)
	}
	if len(live)+len(retired)+len(staging)+len(sandboxes)+len(containers)+len(dangling) != 0 {
		n.t.Errorf("left: %d entries, %d retired, staging %v, sandboxes %v, containers %v, index %v",
			len(live), len(retired), staging, sandboxes, containers, dangling)
	}
}

// programs counts what the kernel runs at connect4 of a container's cgroup, and at
// tcx/ingress of its host side.
func (c *container) programs(t testing.TB) (connect4, tcx int) {
	t.Helper()
	d, err := os.Open(c.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r, err := link.QueryPrograms(link.QueryOptions{Target: int(d.Fd()), Attach: ebpf.AttachCGroupInet4Connect})
	if err != nil {
		t.Fatal(err)
	}
	connect4 = len(r.Programs)
	if c.host == "" {
		return connect4, 0
	}
	host, err := net.InterfaceByName(c.host)
	if err != nil {
		t.Fatal(err)
	}
	r, err = link.QueryPrograms(link.QueryOptions{Target: host.Index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		t.Fatal(err)
	}
	return connect4, len(r.Programs)
}

func (c *container) wantPrograms(t testing.TB, connect4, tcx int) {
	t.Helper()
	if a, b := c.programs(t); a != connect4 || b != tcx {
		t.Errorf("%d programs at connect4, %d at tcx/ingress; want %d and %d", a, b, connect4, tcx)
	}
}
