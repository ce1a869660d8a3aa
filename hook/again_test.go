// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// A runtime that is configured for both stages calls twice.
func TestPrestartAndCreateRuntime(t *testing.T) {
	n := newNode(t, deny("all", connect, tcxHost))
	c := newContainer(t, "web", "lphtwo0")
	n.must(Prestart, c)
	before, _ := n.items()
	n.must(CreateRuntime, c)
	after, _ := n.items()
	if len(before) != 2 || len(after) != 2 || before[0].Record.Programs[0].LinkID != after[0].Record.Programs[0].LinkID {
		t.Errorf("%d entries, then %d", len(before), len(after))
	}
	c.wantPrograms(t, 1, 1)

	// What was taken off in between is there again when the container starts.
	for _, it := range after {
		detachAll(t, n, it.Place)
	}
	c.wantPrograms(t, 0, 0)
	n.must(CreateRuntime, c)
	c.wantPrograms(t, 1, 1)
	n.wantEntries(2)

	// And what was applied in between is in force.
	changed := deny("all", connect, tcxHost)
	changed.comment = "changed"
	n.apply(changed)
	n.must(CreateRuntime, c)
	c.wantPrograms(t, 1, 1)
	live, _ := n.items()
	if live[0].Place.Kind() != pin.ContainerPlace || live[0].Record.Digest == after[0].Record.Digest {
		t.Errorf("%s still has the digest of the policy before", live[0].Place)
	}
}

// A container may have several hooks of ours: that of its runtime, and one for each
// device that it was given. Each brings its own policies and leaves the others'.
func TestSeveralHooks(t *testing.T) {
	asked := deny("asked", connect)
	asked.sel = specs.Select{OptIn: true}
	other := asked
	other.name = "other"
	n := newNode(t, deny("all", connect, tcxHost), asked, other)
	c := newContainer(t, "web", "lphsev0")
	request := func(names ...string) {
		t.Helper()
		n.hook.Requests = names
		n.must(CreateRuntime, c)
	}
	request("asked")
	c.wantPrograms(t, 1, 0)
	request()
	c.wantPrograms(t, 2, 1)
	request("other")
	c.wantPrograms(t, 3, 1)
	n.wantEntries(4)
	request("asked", "other")
	c.wantPrograms(t, 3, 1)

	// A policy that this very call selects is made anew when it has changed.
	other.comment = "changed"
	n.apply(deny("all", connect, tcxHost), asked, other)
	request("other")
	c.wantPrograms(t, 3, 1)
	n.wantEntries(4)

	n.hook.Requests = []string{"all"}
	if err := n.create(c); err == nil {
		t.Error("a device gave a policy that is not optIn")
	}
	n.hook.Requests = []string{"other"}
	c.kill(t)
	n.must(Poststop, c)
	n.wantEntries(0)
}

// A container that gets no policy is not under those of the one that was in its cgroup
// before.
func TestWithoutPoliciesNothingIsInherited(t *testing.T) {
	n := newNode(t, deny("all", connect))
	c := newContainer(t, "web", "")
	n.must(CreateRuntime, c)
	c.wantPrograms(t, 1, 0)
	c.kill(t)
	n.must(Poststop, c)
	c.wantPrograms(t, 1, 0) // it drains: the cgroup is still there
	asked := deny("all", connect)
	asked.sel = specs.Select{OptIn: true}
	n.apply(asked)
	c.state["pid"] = bpftest.CgroupProcess(t, c.cgroup).Pid
	n.must(CreateRuntime, c)
	c.wantPrograms(t, 0, 0)
	n.wantNothing()
}

// A failure leaves what an earlier call made.
func TestFailureKeepsWhatWasThere(t *testing.T) {
	n := newNode(t, deny("all", connect, tcxHost))
	c := newContainer(t, "web", "lphkeep0")
	n.must(Prestart, c)
	n.apply(deny("all", connect, tcxHost), deny("bad", broken))
	if err := n.create(c); err == nil {
		t.Fatal("a policy that does not load was attached")
	}
	n.wantEntries(2)
	c.wantPrograms(t, 1, 1)
	s := n.session()
	live, _ := n.items()
	members, err := s.Root.Members(live[0].Record.Sandbox)
	if err != nil || len(members) != 1 {
		t.Errorf("members %v, %v", members, err)
	}
	// Nor does anybody take it for abandoned.
	if _, err := s.GC(context.Background(), entry.GCOptions{}); err != nil {
		t.Fatal(err)
	}
	n.wantEntries(2)
}

// Two runtimes may use one id at the same time; one runtime may not.
func TestSameID(t *testing.T) {
	n := newNode(t, deny("all", connect, tcxHost))
	first, second := newContainer(t, "web", "lphid0"), newContainer(t, "web", "lphid1")
	n.must(CreateRuntime, first)
	n.must(CreateRuntime, second)
	n.wantEntries(4)
	third := newContainer(t, "web", "lphid2")
	third.state["bundle"] = first.state["bundle"]
	if err := n.create(third); !errors.Is(err, entry.ErrInUse) {
		t.Fatalf("got %v, want ErrInUse", err)
	}
	third.wantPrograms(t, 0, 0)
	n.must(Poststop, third)
	n.wantEntries(4)
	first.wantPrograms(t, 1, 1)

	// When the first has ended, nobody told us, and its id comes back.
	first.kill(t)
	n.must(CreateRuntime, third)
	n.wantEntries(4)
	third.wantPrograms(t, 1, 1)
	n.must(Poststop, first) // late: it names what is now the third
	third.wantPrograms(t, 1, 1)
	n.wantEntries(4)
}

// A new process in the cgroup that was left over is a new container.
func TestCgroupIsUsedAgain(t *testing.T) {
	n := newNode(t, deny("all", connect))
	c := newContainer(t, "web", "")
	n.must(CreateRuntime, c)
	second := c.join(t, "web")
	second.state["bundle"] = c.state["bundle"]
	second.state["pid"] = bpftest.CgroupProcess(t, c.cgroup).Pid
	if err := n.create(second); !errors.Is(err, entry.ErrInUse) {
		t.Fatalf("two containers in one cgroup: %v", err)
	}
	c.kill(t)
	second.state["pid"] = bpftest.CgroupProcess(t, c.cgroup).Pid
	n.must(CreateRuntime, second)
	c.wantPrograms(t, 1, 0)
	live, _ := n.items()
	if len(live) != 1 || live[0].Record.PID != second.state["pid"] {
		t.Errorf("%d entries", len(live))
	}
}

// Containers of one namespace share what is attached to it.
func TestSharedNamespace(t *testing.T) {
	n := newNode(t, deny("all", connect, tcxHost, xdpInside))
	first := newContainer(t, "first", "lphshr0")
	second := first.join(t, "second")
	n.must(CreateRuntime, first)
	n.must(CreateRuntime, second)
	n.wantEntries(3)
	first.wantPrograms(t, 1, 1)
	second.wantPrograms(t, 1, 1)

	// What somebody took off of the first is mended when the second comes.
	live, _ := n.items()
	for _, it := range live {
		if it.Place.Kind() == pin.HookInterfacePlace {
			detachAll(t, n, it.Place)
		}
	}
	third := first.join(t, "third")
	n.must(CreateRuntime, third)
	third.wantPrograms(t, 1, 1)
	if len(n.warnings) == 0 {
		t.Error("nothing was said")
	}
	n.warnings = nil

	for i, c := range []*container{first, second, third} {
		third.wantPrograms(t, min(3-i, 1), 1)
		c.kill(t)
		n.must(Poststop, c)
	}
	n.wantEntries(0)
	if len(n.warnings) > 0 {
		t.Errorf("warnings: %v", n.warnings)
	}
}

// In a pod whose namespace outlives its container, the container may be started
// again and again.
func TestStartedAgainInTheSameNamespace(t *testing.T) {
	n := newNode(t, deny("all", connect, tcxHost, xdpInside))
	pod, other := newContainer(t, "pod", "lphpod0"), newContainer(t, "other", "lphpod1")
	n.must(CreateRuntime, other)
	aside := other.join(t, "aside") // holds the namespace
	other.kill(t)
	n.must(Poststop, other)
	aside.wantPrograms(t, 0, 1) // it drains
	var before *container
	for i := range 3 {
		c := pod.join(t, "app")
		n.must(CreateRuntime, c)
		c.wantPrograms(t, 1, 1)
		n.wantEntries(2)
		// What drains elsewhere, and for sockets of the one before, stays.
		aside.wantPrograms(t, 0, 1)
		if before != nil {
			before.wantPrograms(t, 1, 1)
		}
		before = c
		c.kill(t)
		if i > 0 { // poststop may never come
			n.must(Poststop, c)
		}
		n.must(Poststop, c)
	}
}

// The hook leaves alone what CNI has attached, and adds what CNI could not select.
func TestCoveredByCNI(t *testing.T) {
	n := newNode(t, deny("all", connect, tcxHost), deny("hook", xdpInside))
	n.hook.Caller = specs.CallerContainerd
	c := newContainer(t, "web", "lphcni0")
	set, _, err := entry.Selection{Applied: n.hook.Applied}.Choose(specs.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	s := n.session()
	s.Plans = set
	ns, err := target.OpenNetns(c.ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	iface, err := ns.Interface("eth0")
	if err != nil {
		t.Fatal(err)
	}
	key, lock, err := s.LockSandbox(context.Background(), ns, "pod")
	if err != nil {
		t.Fatal(err)
	}
	sub := &entry.Subject{Identity: specs.Identity{ContainerID: "pod", Network: "net"}, Netns: ns, Sandbox: key}
	if _, err := s.Attach(context.Background(), sub, []entry.Want{{
		Policy: "all", Kind: specs.TargetInterface, Interface: iface, Place: pin.InterfaceEntry(key, "net", "eth0", "all"),
	}}); err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ claimed, want string }{{"pod", "pod"}, {"other", ""}} {
		app := c.join(t, "app-"+tc.claimed)
		app.state["annotations"] = map[string]string{"io.kubernetes.cri.sandbox-id": tc.claimed}
		n.must(CreateRuntime, app)
		app.wantPrograms(t, 1, 1)
		item, ok := s.Look(pin.ContainerEntry(pin.ContainerKey("app-"+tc.claimed, app.state["bundle"].(string)), "all"))
		if !ok || item.Record.Identity.SandboxID != tc.want || item.Record.Sandbox != key {
			t.Errorf("claimed %s: %+v", tc.claimed, item.Record)
		}
	}
	n.wantEntries(6) // CNI's, the hook's XDP, and two for each container
}

// Poststop finds a container by its id if its bundle can't be resolved any more.
func TestPoststopWithoutBundle(t *testing.T) {
	for name, harm := range map[string]func(link, real string) error{
		"gone":         func(link, real string) error { return errors.Join(os.Remove(link), os.Remove(real)) },
		"link gone":    func(link, _ string) error { return os.Remove(link) },
		"link changed": func(link, _ string) error { return errors.Join(os.Remove(link), os.Symlink("/", link)) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, deny("all", connect))
			c := newContainer(t, "a.web", "")
			real := c.state["bundle"].(string)
			link := filepath.Join(t.TempDir(), "bundle")
			if err := os.Symlink(real, link); err != nil {
				t.Fatal(err)
			}
			c.state["bundle"] = link
			n.must(CreateRuntime, c)
			// So many that a sweep hardly finds it by chance.
			const others = 16
			for i := range others {
				n.must(CreateRuntime, newContainer(t, fmt.Sprintf("web-%d", i), ""))
			}
			if err := harm(link, real); err != nil {
				t.Fatal(err)
			}
			n.must(Poststop, c) // it still runs
			n.wantEntries(1 + others)
			c.kill(t)
			n.must(Poststop, c)
			n.wantEntries(others)
		})
	}
}

func TestPoststopWithoutState(t *testing.T) {
	n := newNode(t, deny("all", connect))
	c := newContainer(t, "web", "")
	n.must(Poststop, c)
	if _, err := os.Stat(n.hook.BPFFS.Path + "/linkpin"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("poststop made state: %v", err)
	}
	n.hook.BPFFS.Path = t.TempDir()
	n.must(Poststop, c)
}

// Start and stop of one container at the same time, from many processes: all of it
// is there afterwards, or nothing.
func TestParallelCreateAndPoststop(t *testing.T) {
	n := newNode(t, deny("one", connect), deny("two", tcxHost))
	var mu sync.Mutex
	n.hook.Warn = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		n.warnings = append(n.warnings, err)
	}
	c := newContainer(t, "web", "lphpar0")
	storm := func() (failed []error) {
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				stage := CreateRuntime
				if i%2 == 1 {
					stage = Poststop
				}
				if err := n.run(context.Background(), stage, c); err != nil {
					mu.Lock()
					defer mu.Unlock()
					failed = append(failed, fmt.Errorf("%s: %w", stage, err))
				}
			})
		}
		wg.Wait()
		return failed
	}
	if failed := storm(); len(failed) > 0 {
		t.Errorf("%d failed: %v", len(failed), failed[0])
	}
	n.wantEntries(3)
	c.wantPrograms(t, 1, 1)
	if len(n.warnings) > 0 {
		t.Errorf("warnings: %v", n.warnings)
	}
	c.kill(t)
	storm() // createRuntime fails now, poststop takes it all
	n.wantEntries(0)
}
