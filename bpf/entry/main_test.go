// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

func TestMain(m *testing.M) { os.Exit(bpftest.Main(m)) }

// object is a compiled object with programs of every kind of target; its sources
// are in bpf/load/testdata.
const object = "../load/testdata/basic.bpf.o"

// plans is an applied set in memory.
type plans map[string]*specs.Plan

func (plans) Generation() string { return "test" }

func (p plans) Plan(name string) (*specs.Plan, string, error) {
	if plan, ok := p[name]; ok {
		return plan, "digest-" + name, nil
	}
	return nil, "", fmt.Errorf("no plan %s", name)
}

func (p plans) PlanByDigest(digest string) (*specs.Plan, error) {
	for name, plan := range p {
		if digest == "digest-"+name {
			return plan, nil
		}
	}
	return nil, fmt.Errorf("no plan with digest %s", digest)
}

func (plans) Object(string) ([]byte, error) { return os.ReadFile(object) }

func program(symbol string, hook specs.Hook, more ...func(*specs.Attachment)) specs.PlanProgram {
	a := specs.Attachment{Name: symbol, Hook: hook}
	if hook.Target() == specs.TargetInterface {
		a.Side = specs.SideContainer
	}
	for _, m := range more {
		m(&a)
	}
	return specs.PlanProgram{Key: symbol, Symbol: symbol, Hook: hook, Attachments: []specs.Attachment{a}}
}

func onHost(a *specs.Attachment) { a.Side = specs.SideHost }

func plan(t testing.TB, name string, programs ...specs.PlanProgram) *specs.Plan {
	t.Helper()
	data, err := os.ReadFile(object)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	p := &specs.Plan{
		Version: specs.PlanVersion, Name: name, OnError: specs.Deny, Scope: specs.ScopeContainer, Teardown: specs.Drain,
		Objects:  []specs.PlanObject{{SHA256: hex.EncodeToString(sum[:]), Origin: object}},
		Programs: programs,
	}
	one := uint32(1)
	for _, m := range []string{"verdicts", "counters", "slots", "inner", "outer"} {
		pm := specs.PlanMap{Name: m, Members: []specs.MapRef{{Symbol: m}}}
		if m == "verdicts" {
			pm.MaxEntries = &one
		}
		p.Maps = append(p.Maps, pm)
	}
	return p
}

// fixture is a session on a private bpffs.
type fixture struct {
	*Session
	warnings []error
}

func newFixture(t testing.TB, ps plans) *fixture {
	t.Helper()
	root, err := pin.Create(pin.Options{Path: bpftest.TempBPFFS(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	f := &fixture{}
	f.Session = &Session{Root: root, Plans: ps, By: pin.ByHook, Warn: func(err error) { f.warnings = append(f.warnings, err) }}
	return f
}

// container is a process in a cgroup of its own, as a runtime would have made it.
type container struct {
	dir string
	sub *Subject
	key pin.Key
	pid int
}

func newContainer(t testing.TB, id string) *container {
	t.Helper()
	dir := bpftest.Cgroup(t)
	return subject(t, id, dir, bpftest.CgroupProcess(t, dir).Pid)
}

// subject describes a process as the hook would.
func subject(t testing.TB, id, dir string, pid int) *container {
	t.Helper()
	cg, err := target.CgroupOfPID(target.Roots{}, pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cg.Close() })
	start, err := target.StartTime(target.Roots{}, pid)
	if err != nil {
		t.Fatal(err)
	}
	return &container{
		dir: dir, pid: pid, key: pin.ContainerKey(id, "/bundle"),
		sub: &Subject{
			Identity: specs.Identity{Caller: specs.CallerNone, ContainerID: id},
			Bundle:   "/bundle", PID: pid, Start: start, Cgroup: cg,
		},
	}
}

// end kills every process of the container and waits until its cgroup is empty.
func (c *container) end(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(c.dir+"/cgroup.kill", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	bpftest.Eventually(t, "cgroup is empty", func() error {
		populated, err := c.sub.Cgroup.Populated()
		if err == nil && populated {
			err = errors.New("still populated")
		}
		return err
	})
}

func (c *container) wants(policies ...string) []Want {
	var out []Want
	for _, p := range policies {
		out = append(out, Want{Policy: p, OnError: specs.Deny, Kind: specs.TargetCgroup, Place: pin.ContainerEntry(c.key, p)})
	}
	return out
}

func (f *fixture) lock(t testing.TB, o pin.Owner) *pin.Lock {
	t.Helper()
	l, err := f.Root.Lock(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// attach claims, attaches and publishes under the container's lock, as the hook does.
func (f *fixture) attach(t testing.TB, c *container, policies ...string) error {
	t.Helper()
	l := f.lock(t, pin.Container(c.key))
	defer l.Release()
	digests := map[string]string{}
	for _, p := range policies {
		digests[p] = "digest-" + p
	}
	have, err := f.ClaimContainer(context.Background(), c.key, c.sub, digests)
	if err != nil {
		return err
	}
	var wants []Want
	for _, w := range c.wants(policies...) {
		if !have[w.Policy] {
			wants = append(wants, w)
		}
	}
	_, err = f.Attach(context.Background(), c.sub, wants)
	return err
}

func (f *fixture) mustAttach(t testing.TB, c *container, policies ...string) {
	t.Helper()
	if err := f.attach(t, c, policies...); err != nil {
		t.Fatal(err)
	}
}

// entries counts what is in the tree.
func (f *fixture) entries(t testing.TB) (live, retired int) {
	t.Helper()
	if err := f.Walk(func(it Item) error {
		if it.Retired != nil {
			retired++
		} else {
			live++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return live, retired
}

// attached returns how many programs of a hook the kernel runs on a cgroup itself.
func attached(t testing.TB, dir string, at ebpf.AttachType) int {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r, err := link.QueryPrograms(link.QueryOptions{Target: int(d.Fd()), Attach: at})
	if err != nil {
		t.Fatal(err)
	}
	return len(r.Programs)
}

func emptyState(t testing.TB, f *fixture) {
	t.Helper()
	n, err := f.count()
	if err != nil {
		t.Fatal(err)
	}
	if n != 0 {
		_ = f.Walk(func(it Item) error { t.Logf("left: %s %v", it.Place, it.Err); return nil })
		t.Errorf("%d entries, staging directories or index links are left", n)
	}
}
