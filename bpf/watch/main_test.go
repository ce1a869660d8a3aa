// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/programs"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

func TestMain(m *testing.M) { os.Exit(bpftest.Main(m)) }

// plans is an applied set in memory, made from built-in objects: egress on the cgroup,
// meter, and egress on the host's side of an interface.
type plans map[string]*specs.Plan

func (plans) Generation() string { return "test" }

func (p plans) Plan(name string) (*specs.Plan, string, error) {
	if plan, ok := p[name]; ok {
		return plan, "digest-" + name, nil
	}
	return nil, "", fmt.Errorf("no plan %s", name)
}

func (p plans) PlanByDigest(digest string) (*specs.Plan, error) {
	plan, _, err := p.Plan(strings.TrimPrefix(digest, "digest-"))
	return plan, err
}

func (plans) Object(sum string) ([]byte, error) {
	for _, name := range programs.Names() {
		data, err := programs.Object(name)
		if err != nil {
			return nil, err
		}
		if have := sha256.Sum256(data); hex.EncodeToString(have[:]) == sum {
			return data, nil
		}
	}
	return nil, fmt.Errorf("no object %s", sum)
}

func plan(t testing.TB, name, object string, maps []string, attached ...specs.Attachment) *specs.Plan {
	t.Helper()
	data, err := programs.Object(object)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	p := &specs.Plan{
		Version: specs.PlanVersion, Name: name, OnError: specs.Deny, Scope: specs.ScopeContainer, Teardown: specs.Drain,
		Objects: []specs.PlanObject{{SHA256: hex.EncodeToString(sum[:]), Origin: object}},
	}
	for _, a := range attached {
		p.Programs = append(p.Programs, specs.PlanProgram{Key: a.Name, Symbol: a.Name, Hook: a.Hook, Attachments: []specs.Attachment{a}})
	}
	for _, m := range maps {
		p.Maps = append(p.Maps, specs.PlanMap{Name: m, Members: []specs.MapRef{{Symbol: m}}})
	}
	return p
}

func newPlans(t testing.TB) plans {
	egress := []string{"allow", "deny", "denied", "events", "stats", "flows_tcp", "flows_other", "socket_netns"}
	return plans{
		"egress": plan(t, "egress", "egress", egress, specs.Attachment{Name: "connect4", Hook: "cgroup/connect4"},
			specs.Attachment{Name: "sendmsg4", Hook: "cgroup/sendmsg4"}),
		"meter": plan(t, "meter", "meter", []string{"meter"}, specs.Attachment{Name: "skb_egress", Hook: "cgroup_skb/egress"},
			specs.Attachment{Name: "skb_ingress", Hook: "cgroup_skb/ingress"}),
		"four": plan(t, "four", "egress", egress, specs.Attachment{Name: "connect4", Hook: "cgroup/connect4"},
			specs.Attachment{Name: "connect6", Hook: "cgroup/connect6"}, specs.Attachment{Name: "sendmsg4", Hook: "cgroup/sendmsg4"},
			specs.Attachment{Name: "sendmsg6", Hook: "cgroup/sendmsg6"}),
		"frames": plan(t, "frames", "egress", egress, specs.Attachment{Name: "from_container", Hook: specs.HookTCXIngress, Side: specs.SideHost}),
	}
}

// fixture is linkpin on a private bpffs.
type fixture struct {
	*entry.Session
	bpffs string
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{bpffs: bpftest.TempBPFFS(t)}
	f.open(t)
	return f
}

func (f *fixture) open(t testing.TB) {
	t.Helper()
	root, err := pin.Create(pin.Options{Path: f.bpffs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	f.Session = &entry.Session{Root: root, Plans: newPlans(t), By: pin.ByHook}
}

// container is a process in a cgroup of its own.
type container struct {
	dir string
	key pin.Key
	sub *entry.Subject
}

func newContainer(t testing.TB, id string) *container {
	t.Helper()
	dir := bpftest.Cgroup(t)
	pid := bpftest.CgroupProcess(t, dir).Pid
	cg, err := target.CgroupOfPID(target.Roots{}, pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cg.Close() })
	start, err := target.StartTime(target.Roots{}, pid)
	if err != nil {
		t.Fatal(err)
	}
	return &container{dir: dir, key: pin.ContainerKey(id, "/bundle"), sub: &entry.Subject{
		Identity: specs.Identity{Caller: specs.CallerNone, ContainerID: id}, Bundle: "/bundle", PID: pid, Start: start, Cgroup: cg,
	}}
}

// attach does what the hook does.
func (f *fixture) attach(t testing.TB, c *container, policies ...string) {
	t.Helper()
	l, err := f.Root.Lock(context.Background(), pin.Container(c.key))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	var wants []entry.Want
	for _, p := range policies {
		wants = append(wants, entry.Want{Policy: p, OnError: specs.Deny, Kind: specs.TargetCgroup, Place: pin.ContainerEntry(c.key, p)})
	}
	if _, err := f.Attach(context.Background(), c.sub, wants); err != nil {
		t.Fatal(err)
	}
}

// add does what CNI ADD does for a container with an interface.
func (f *fixture) add(t testing.TB, id, host string) (place pin.Place, ns *bpftest.NS) {
	t.Helper()
	f.By = pin.ByCNI
	ns = bpftest.NetNS(t)
	bpftest.Veth(t, ns, host, "eth0")
	n, err := target.OpenNetns(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	iface, err := n.Interface("eth0")
	if err != nil {
		t.Fatal(err)
	}
	key, lock, err := f.LockSandbox(context.Background(), n, id)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	place = pin.InterfaceEntry(key, "net", "eth0", "frames")
	sub := &entry.Subject{Identity: specs.Identity{ContainerID: id, Network: "net", Caller: specs.CallerNone}, Netns: n, Sandbox: key}
	if _, err := f.Attach(context.Background(), sub, []entry.Want{
		{Policy: "frames", OnError: specs.Deny, Kind: specs.TargetInterface, Interface: iface, Place: place},
	}); err != nil {
		t.Fatal(err)
	}
	return place, ns
}

// end does what a runtime and poststop do.
func (f *fixture) end(t testing.TB, c *container) {
	t.Helper()
	c.sub.Cgroup.Close()
	bpftest.RemoveCgroup(t, c.dir)
	if _, err := f.EndContainer(context.Background(), c.key); err != nil {
		t.Fatal(err)
	}
}

// dial tries to reach an address from inside a container: it is refused.
func (c *container) dial(t testing.TB, address string) {
	t.Helper()
	host, port, _ := strings.Cut(address, ":")
	if out, err := bpftest.Command(t, c.dir, "bash", "-c", "exec 3<>/dev/tcp/"+host+"/"+port).CombinedOutput(); err == nil || !strings.Contains(string(out), "not permitted") {
		t.Fatalf("%s: %v, %s", address, err, out)
	}
}

func (f *fixture) withLink(t testing.TB, p pin.Place, name string, fn func(path string, l *attach.Link) error) {
	t.Helper()
	e, err := f.Root.Entry(p)
	if err != nil {
		t.Fatal(err)
	}
	l, err := attach.OpenPinned(e.LinkPath(name))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := fn(e.LinkPath(name), l); err != nil {
		t.Fatal(err)
	}
}

// viewer is a running watcher.
type viewer struct {
	mu     sync.Mutex
	events []Event
	warned []error
	end    func() error
}

func (f *fixture) watch(t testing.TB, change ...func(*Options)) *viewer {
	t.Helper()
	v := &viewer{}
	o := Options{Pins: pin.Options{Path: f.bpffs}, Interval: 50 * time.Millisecond, Warn: func(err error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.warned = append(v.warned, err)
	}}
	for _, c := range change {
		c(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, o, func(e Event) error {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.events = append(v.events, e)
			return nil
		})
	}()
	v.end = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := v.end(); err != nil {
			t.Error(err)
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, err := range v.warned {
			t.Error("warning:", err)
		}
		if t.Failed() {
			for _, e := range v.events {
				t.Log(e.text())
			}
		}
	})
	return v
}

func (e Event) text() string {
	id := ""
	if e.Item.Record != nil {
		id = e.Item.Record.Identity.ContainerID + " " + e.Item.Record.Policy
	}
	return fmt.Sprintf("%s %v %s %s %s reason=%s %s", e.Kind, e.Initial, id, e.Program, e.Problem, e.Reason, e.Detail)
}

// find waits for an event.
func (v *viewer) find(t testing.TB, what string, is func(Event) bool) Event {
	t.Helper()
	var found Event
	bpftest.Eventually(t, what, func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, e := range v.events {
			if is(e) {
				found = e
				return nil
			}
		}
		return errors.New("no such event")
	})
	return found
}

func (v *viewer) kind(t testing.TB, k Kind) Event {
	t.Helper()
	return v.find(t, string(k), func(e Event) bool { return e.Kind == k })
}

// all returns the events so far.
func (v *viewer) all(is func(Event) bool) []Event {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []Event
	for _, e := range v.events {
		if is(e) {
			out = append(out, e)
		}
	}
	return out
}

func (v *viewer) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.events = nil
}
