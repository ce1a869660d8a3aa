// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

func TestLifeOfAContainer(t *testing.T) {
	n := newNode(t, deny("all", connect, tcxHost, xdpInside))
	c := newContainer(t, "web", "lphlife0")
	n.must(CreateRuntime, c)
	n.wantEntries(2)
	c.wantPrograms(t, 1, 1)
	live, _ := n.items()
	for _, it := range live {
		if it.Record.Identity.ContainerID != "web" || it.Record.By != pin.ByHook || it.Record.Sandbox == "" || it.Record.Cgroup.Path != c.cgroup {
			t.Errorf("%s: %+v", it.Place, it.Record)
		}
	}
	n.must(Poststop, c) // of somebody else with this id: ours runs
	n.wantEntries(2)
	c.wantPrograms(t, 1, 1)
	c.kill(t)
	n.must(Poststop, c)
	n.must(Poststop, c)
	n.wantEntries(0)
	if len(n.warnings) > 0 {
		t.Errorf("warnings: %v", n.warnings)
	}
}

// What can't be protected does not start and leaves nothing, if a policy says deny;
// with allow it starts, and the reason is told.
func TestRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		policy policy // its onError is set to both
		host   string
		change func(t *testing.T, n *node, c *container)
		is     error
		say    string
	}{
		{"no interface", deny("p", tcxHost), "", nil, entry.ErrNothing, "select: networks"},
		{"host's network", deny("p", tcxHost), "", func(t *testing.T, _ *node, c *container) {
			c.state["pid"] = bpftest.CgroupProcess(t, bpftest.Cgroup(t)).Pid
		}, target.ErrForbidden, "it is the host's"},
		{"host's network for a namespace program", deny("p", specs.Attachment{Name: "connect4", Hook: specs.HookNetfilter,
			Netfilter: &specs.Netfilter{Family: "ipv4", Hook: "input"}}), "", func(t *testing.T, _ *node, c *container) {
			c.state["pid"] = bpftest.CgroupProcess(t, bpftest.Cgroup(t)).Pid
		}, target.ErrForbidden, "it is the host's"},
		{"our own cgroup", deny("p", connect), "", func(_ *testing.T, _ *node, c *container) { c.state["pid"] = os.Getpid() }, target.ErrForbidden, ""},
		{"pid 1", deny("p", connect), "", func(_ *testing.T, _ *node, c *container) { c.state["pid"] = 1 }, target.ErrForbidden, "pid 1"},
		{"pid 1 for an interface", deny("p", tcxHost), "", func(_ *testing.T, _ *node, c *container) { c.state["pid"] = 1 }, nil, "/proc/1/ns/net"},
		{"pid gone", deny("p", connect), "", func(t *testing.T, _ *node, c *container) { c.kill(t) }, target.ErrGone, "pid"},
		{"a program that does not load", deny("p", connect, broken), "lphref0", nil, nil, "policy p"},
		{"a cgroup program that does not load", deny("p", tcxHost, nothing), "lphref1", nil, nil, "policy p"},
		{"no bpffs", deny("p", connect), "", func(t *testing.T, n *node, _ *container) { n.hook.BPFFS.Path = t.TempDir() }, pin.ErrNoBPFFS, "mount -t bpf"},
	} {
		for _, onError := range []specs.OnError{specs.Deny, specs.Allow} {
			t.Run(tc.name+"/"+string(onError), func(t *testing.T) {
				tc.policy.onError = onError
				n := newNode(t, tc.policy)
				bpffs := n.hook.BPFFS
				c := newContainer(t, "web", tc.host)
				if tc.change != nil {
					tc.change(t, n, c)
				}
				err := n.create(c)
				if onError == specs.Allow {
					if err != nil || len(n.warnings) != 1 {
						t.Fatalf("got %v, warnings %v", err, n.warnings)
					}
					err = n.warnings[0]
				} else if err == nil {
					t.Fatal("it started")
				}
				if tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.say) {
					t.Errorf("got %v, want %v and %q", err, tc.is, tc.say)
				}
				if text := fault.OneLine(err.Error()); onError == specs.Deny && (text != err.Error() || !strings.HasPrefix(text, "container web: ")) {
					t.Errorf("not one line about the container: %q", err)
				}
				n.hook.BPFFS = bpffs
				n.wantNothing()
				c.wantPrograms(t, 0, 0)
			})
		}
	}
}

// A state without a pid is refused whatever the policies say: it is no container's.
func TestStateWithoutPID(t *testing.T) {
	n := newNode(t, allow("p", connect))
	c := newContainer(t, "web", "")
	for _, pid := range []int{0, -1} {
		c.state["pid"] = pid
		if err := n.create(c); !errors.Is(err, ErrState) || fault.ExitCode(err) != fault.ExitInput {
			t.Errorf("pid %d: %v", pid, err)
		}
	}
	n.wantNothing()
}

// What one policy can't have is no concern of another that does not need it.
func TestAllowDoesNotStopOthers(t *testing.T) {
	n := newNode(t, deny("guard", connect), allow("extra", tcxHost), allow("half", connect, broken))
	c := newContainer(t, "web", "")
	c.state["pid"] = bpftest.CgroupProcess(t, c.cgroup).Pid // on the host's network
	n.must(CreateRuntime, c)
	n.wantEntries(1)
	c.wantPrograms(t, 1, 0)
	if len(n.warnings) != 2 {
		t.Errorf("warnings: %v", n.warnings)
	}
}

// The sandbox's lock is needed by those with interface programs only.
func TestBusySandbox(t *testing.T) {
	for _, onError := range []specs.OnError{specs.Deny, specs.Allow} {
		t.Run(string(onError), func(t *testing.T) {
			extra := deny("extra", tcxHost)
			extra.onError = onError
			n := newNode(t, deny("guard", connect), extra)
			c := newContainer(t, "web", "lphbusy0")
			ns, err := target.OpenNetns(c.ns.Path())
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			_, lock, err := n.session().LockSandbox(context.Background(), ns, "")
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Release()
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			err = n.run(ctx, CreateRuntime, c)
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("waited %v", took)
			}
			if onError == specs.Deny {
				if !errors.Is(err, pin.ErrDeadline) {
					t.Errorf("got %v, want ErrDeadline", err)
				}
				c.wantPrograms(t, 0, 0)
			} else if !errors.Is(n.warnings[0], pin.ErrDeadline) {
				t.Errorf("warnings: %v", n.warnings)
			}
		})
	}
}

// A policy with onError: allow comes whole or not at all.
func TestAllowIsNeverHalf(t *testing.T) {
	n := newNode(t, allow("half", connect, broken), allow("other", connect))
	c := newContainer(t, "web", "lphhalf0")
	n.must(CreateRuntime, c)
	c.wantPrograms(t, 1, 0)
	n.wantEntries(1)
	if len(n.warnings) != 1 || !strings.Contains(n.warnings[0].Error(), "half") {
		t.Errorf("warnings: %v", n.warnings)
	}
}

// The same if only its last kind of target is missing.
func TestAllowIsNeverHalfOfTwoTargets(t *testing.T) {
	bpftest.NeedKernel(t, 6, 4, "netfilter links")
	filter := specs.Attachment{Name: "connect4", Hook: specs.HookNetfilter, Netfilter: &specs.Netfilter{Family: "ipv4", Hook: "input", Priority: 10}}
	n := newNode(t, allow("half", filter, tcxHost), deny("guard", connect))
	c := newContainer(t, "web", "")
	n.must(CreateRuntime, c)
	n.wantEntries(1)
	n.apply(deny("filter", filter))
	n.must(CreateRuntime, c)
	n.must(CreateRuntime, c) // once only
	n.wantEntries(2)         // nothing of the policies that are no more
}

func TestWithoutPolicies(t *testing.T) {
	for _, tc := range []struct {
		name string
		want error
		harm func(t *testing.T, n *node)
	}{
		{"missing", applied.ErrMissing, func(t *testing.T, n *node) {
			if err := os.RemoveAll(n.hook.Applied.Dir); err != nil {
				t.Fatal(err)
			}
		}},
		{"damaged", applied.ErrDamaged, func(t *testing.T, n *node) {
			sets, err := filepath.Glob(n.hook.Applied.Dir + "/sets/*/set.json")
			if err != nil || len(sets) != 1 {
				t.Fatal(sets, err)
			}
			if err := os.WriteFile(sets[0], []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNode(t, deny("guard", connect))
			tc.harm(t, n)
			c := newContainer(t, "web", "")
			if err := n.create(c); !errors.Is(err, tc.want) || fault.ExitCode(err) != fault.ExitConfig || !strings.Contains(err.Error(), "linkpin policy apply") {
				t.Errorf("got %v", err)
			}
			if err := os.WriteFile(n.hook.Exempt, []byte("namespace=kube-system\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			c.state["annotations"] = map[string]string{"io.kubernetes.cri.sandbox-namespace": "kube-system"}
			if err := n.create(c); !errors.Is(err, tc.want) {
				t.Errorf("exempt by an annotation that its author wrote: %v", err)
			}
			n.hook.Caller = specs.CallerContainerd
			n.must(CreateRuntime, c)
			if len(n.warnings) != 1 {
				t.Errorf("warnings: %v", n.warnings)
			}
			n.wantNothing()
		})
	}
}

// Only the caller's own annotations say who a container is.
func TestForgedAnnotations(t *testing.T) {
	prod := deny("prod", connect)
	prod.sel = specs.Select{Fields: specs.Fields{Namespaces: []string{"prod"}}}
	other := deny("other", connect)
	other.sel = specs.Select{Fields: specs.Fields{All: true}, Exclude: &specs.Fields{Namespaces: []string{"prod"}}}
	for caller, want := range map[specs.Caller]string{
		specs.CallerContainerd: "prod", specs.CallerNone: "other", specs.CallerCRIO: "other", specs.CallerPodman: "other", specs.CallerCDI: "other",
	} {
		n := newNode(t, prod, other)
		n.hook.Caller = caller
		c := newContainer(t, "web", "")
		c.state["annotations"] = map[string]string{"io.kubernetes.cri.sandbox-namespace": "prod"}
		n.must(CreateRuntime, c)
		if live, _ := n.items(); len(live) != 1 || live[0].Record.Policy != want {
			t.Errorf("%s: %d entries, want policy %s", caller, len(live), want)
		}
	}
}

func TestAnnotationAsksForWhatItCantHave(t *testing.T) {
	asked := allow("asked", connect)
	asked.sel = specs.Select{OptIn: true}
	for _, value := range []string{"missing", "fixed", "../asked", "asked,missing"} {
		n := newNode(t, asked, allow("fixed", connect))
		c := newContainer(t, "web", "")
		c.state["annotations"] = map[string]string{specs.OptInAnnotation: value}
		if err := n.create(c); err == nil || !strings.HasPrefix(err.Error(), "container web: ") {
			t.Errorf("%q: %v", value, err)
		}
		n.wantNothing()
	}
}

// Programs on the host see nothing of a container in a virtual machine.
func TestVirtualMachine(t *testing.T) {
	for _, name := range vmPrograms {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, deny("guard", connect), deny("net", tcxHost))
			c := newContainer(t, "web", "lphvm0")
			// A proc whose exe link says so; the rest is the real one.
			proc := t.TempDir()
			pid := filepath.Join(proc, "4711")
			if err := os.Mkdir(pid, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("/usr/bin/"+name, pid+"/exe"); err != nil {
				t.Fatal(err)
			}
			real := filepath.Dir(c.ns.Path())
			for _, file := range []string{"stat", "cgroup", "ns"} {
				if err := os.Symlink(filepath.Join(filepath.Dir(real), file), filepath.Join(pid, file)); err != nil {
					t.Fatal(err)
				}
			}
			n.hook.Roots.Proc, c.state["pid"] = proc, 4711
			if err := n.create(c); !errors.Is(err, ErrVM) {
				t.Fatalf("got %v, want ErrVM", err)
			}
			n.wantNothing()
			// Its interfaces can be watched from outside all the same.
			n.apply(deny("net", tcxHost))
			n.must(CreateRuntime, c)
			c.wantPrograms(t, 0, 1)
		})
	}
}

// A hook that stands at poststart by mistake comes too late, and says so. The state
// of a container that is restored is not "creating" either.
func TestTooLate(t *testing.T) {
	n := newNode(t, deny("guard", connect))
	c := newContainer(t, "web", "")
	c.state["status"] = "running"
	if err := n.create(c); !errors.Is(err, ErrTooLate) || !strings.Contains(err.Error(), "createRuntime") {
		t.Errorf("got %v", err)
	}
	n.wantNothing()
	for _, status := range []string{"creating", "created", "stopped"} {
		c.state["status"] = status
		n.must(CreateRuntime, c)
		c.wantPrograms(t, 1, 0)
	}
}

// A process that was moved, or another one with its pid, is not what was found.
func TestRecheck(t *testing.T) {
	n := newNode(t, deny("guard", connect, tcxHost))
	c := newContainer(t, "web", "lphchk0")
	set, chosen, err := entry.Selection{Applied: n.hook.Applied}.Choose(specs.Identity{ContainerID: "web"})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	st, err := readState(strings.NewReader(`{"id":"web","bundle":"/"}`), stateTimeout)
	if err != nil {
		t.Fatal(err)
	}
	st.Pid = c.ns.PID()
	cr := &creation{Hook: &n.hook, set: set, chosen: chosen, state: st}
	defer cr.closeTargets()
	if err := cr.findTargets(); err != nil {
		t.Fatal(err)
	}
	cr.subject.Sandbox = "x"
	if err := cr.subject.Recheck(); err != nil {
		t.Fatalf("nothing has changed: %v", err)
	}
	cr.subject.Netns.Inode++
	if err := cr.recheck(); !errors.Is(err, target.ErrMismatch) {
		t.Errorf("another namespace: %v", err)
	}
	cr.subject.Netns.Inode--
	cr.subject.Start--
	if err := cr.recheck(); !errors.Is(err, target.ErrGone) {
		t.Errorf("another process: %v", err)
	}
	cr.subject.Start++
	if err := os.WriteFile(bpftest.Cgroup(t)+"/cgroup.procs", []byte(strings.TrimSpace(filepath.Base(filepath.Dir(filepath.Dir(c.ns.Path()))))), 0); err != nil {
		t.Fatal(err)
	}
	if err := cr.recheck(); !errors.Is(err, target.ErrMismatch) {
		t.Errorf("moved to another cgroup: %v", err)
	}
	c.kill(t)
}

// detachAll takes every link of an entry off by force, as another root process could.
func detachAll(t *testing.T, n *node, p pin.Place) {
	t.Helper()
	e, err := n.session().Root.Entry(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range e.Links() {
		l, err := attach.OpenPinned(e.LinkPath(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Detach(); err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}
