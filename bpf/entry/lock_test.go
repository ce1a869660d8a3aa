// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"testing"

	"github.com/linkpin/linkpin/bpf/pin"
)

// A sweeper that was stopped with its lock in hand keeps nobody from making the container
// anew, nor from taking away what has ended. When it goes on, the new one is not its business.
func TestNobodyWaitsForAStoppedSweeper(t *testing.T) {
	f := newFixture(t, plans{"a": plan(t, "a", program("connect4", "cgroup/connect4"))})
	stopped := f.another(t)
	c := newContainer(t, "web")
	f.mustAttach(t, c, "a")
	c.end(t)
	rec := f.mustLook(t, pin.ContainerEntry(c.key, "a")).Record
	held, err := stopped.Root.TrySweep(pin.Container(c.key))
	if err != nil {
		t.Fatal(err)
	}
	over, err := stopped.containerEnded(rec)
	if err != nil || !over {
		t.Fatalf("over: %v, %v", over, err)
	}

	again := newContainer(t, "web")
	ctx, cancel := context.WithTimeout(context.Background(), pin.LockTimeout)
	defer cancel()
	l, err := f.Lock(ctx, pin.Container(again.key))
	if err != nil {
		t.Fatalf("waited in vain: %v", err)
	}
	if have, err := f.ClaimContainer(ctx, again.key, again.sub, map[string]string{"a": "digest-a"}); err != nil || len(have) > 0 {
		t.Fatalf("%v, %v", have, err)
	}
	if _, err := f.Attach(ctx, again.sub, again.wants("a")); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if live, retired := f.entries(t); live != 1 || retired != 1 {
		t.Errorf("%d live, %d retired; want 1 and 1", live, retired)
	}

	// It goes on from where it was.
	if err := stopped.retire(pin.ContainerEntry(c.key, "a"), reasonEnded); err != nil {
		t.Error(err)
	}
	if err := held.Release(); err != nil {
		t.Error(err)
	}
	if got := f.mustLook(t, pin.ContainerEntry(again.key, "a")); got.Record.PID != again.pid || got.Retired != nil {
		t.Errorf("the new container's entry is %+v", got.Record)
	}
}

// The same with a sandbox: CNI DEL and another ADD do not wait.
func TestNobodyWaitsForAStoppedSweeperOfASandbox(t *testing.T) {
	f := newFixture(t, interfacePlans(t))
	stopped := f.another(t)
	s := newSandbox(t, "pod", "lpst0")
	f.mustAdd(t, s, "tcx")
	s.kill(t)
	held, err := stopped.Root.TrySweep(pin.Sandbox(s.sub.Sandbox))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := held.Release(); err != nil {
			t.Error(err)
		}
	}()
	if err := f.DelInterface(context.Background(), Deletion{ContainerID: "pod", Network: "net", Interface: "eth0"}); err != nil {
		t.Errorf("DEL: %v", err)
	}
	f.mustAdd(t, newSandbox(t, "pod", "lpst1"), "tcx")
}

// Sweeps lock nobody whose entries are in force: stopped at whatever moment, they hold
// up no container that runs.
func TestSweepsDoNotLockWhatRuns(t *testing.T) {
	ps := interfacePlans(t)
	ps["cg"] = plan(t, "cg", program("connect4", "cgroup/connect4"))
	f := newFixture(t, ps)
	s, c := newSandbox(t, "", "lpsl0"), newContainer(t, "web")
	f.joined(t, s, c, onInterface(s, "tcx"))
	for _, o := range []pin.Owner{pin.Container(c.key), pin.Sandbox(c.sub.Sandbox)} {
		held := f.lock(t, o)
		if r, err := f.another(t).GC(context.Background(), GCOptions{}); err != nil || r.Busy != 0 {
			t.Errorf("%v: %+v, %v: it tried to lock it", o, r, err)
		}
		if err := held.Release(); err != nil {
			t.Error(err)
		}
	}
}

// Members that have ended are taken away when the next one joins.
func TestMembersThatHaveEnded(t *testing.T) {
	ps := interfacePlans(t)
	ps["cg"] = plan(t, "cg", program("connect4", "cgroup/connect4"))
	f := newFixture(t, ps)
	s, first := newSandbox(t, "", "lpme0"), newContainer(t, "first")
	f.joined(t, s, first, onInterface(s, "tcx"))
	first.end(t)
	if err := f.retireAlone(first); err != nil { // its sandbox was busy
		t.Fatal(err)
	}
	key, lock, err := f.LockSandbox(context.Background(), s.sub.Netns, "")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	if _, err := f.ClaimSandbox(key, s.sub); err != nil {
		t.Fatal(err)
	}
	if members, err := f.Root.Members(key); err != nil || len(members) != 0 {
		t.Errorf("members %v, %v", members, err)
	}
}

// retireAlone retires a container's entry and leaves its sandbox as it is.
func (f *fixture) retireAlone(c *container) (err error) {
	l, err := f.Root.TrySweep(pin.Container(c.key))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Release()) }()
	return f.retire(pin.ContainerEntry(c.key, "cg"), reasonEnded)
}

func (f *fixture) mustLook(t testing.TB, p pin.Place) Item {
	t.Helper()
	it, ok := f.Look(p)
	if !ok || it.Err != nil {
		t.Fatalf("%s: %v, %v", p, ok, it.Err)
	}
	return it
}
