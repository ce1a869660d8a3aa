// SPDX-License-Identifier: Apache-2.0

package cost

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/integration/faults/tracer"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
)

// binEnv names the directory where TestMain has built the programs.
const binEnv = "LINKPIN_COST_BIN"

// object has programs of every kind; its sources are in bpf/load/testdata.
const object = "../../bpf/load/testdata/basic.bpf.o"

func TestMain(m *testing.M) { os.Exit(built(m)) }

// built builds the programs once; bpftest then runs the tests in a process of their own.
func built(m *testing.M) int {
	if os.Getenv(binEnv) == "" {
		dir, err := os.MkdirTemp("", "linkpin-cost-")
		if err != nil {
			fmt.Fprintln(os.Stderr, "cost:", err)
			return 1
		}
		defer os.RemoveAll(dir)
		cmd := exec.Command("go", "build", "-buildvcs=false", "-o", dir+"/", "../../cmd/linkpin-hook", "../../cmd/linkpin-cni")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "cost: go build: %v\n%s", err, out)
			return 1
		}
		if err := os.Setenv(binEnv, dir); err != nil {
			fmt.Fprintln(os.Stderr, "cost:", err)
			return 1
		}
	}
	return bpftest.Main(m)
}

// node is a host on which nothing has happened yet: a bpffs and applied policies of its
// own, which go with the test.
type node struct{ made int }

func newNode(t *testing.T) *node {
	t.Helper()
	// Not stacked on another one: linkpin reports that.
	for unix.Unmount("/sys/fs/bpf", unix.MNT_DETACH) == nil {
	}
	for _, m := range [][3]string{{"bpf", "/sys/fs/bpf", "mode=0700"}, {"tmpfs", filepath.Dir(applied.DefaultDir), "mode=0755"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, m[2]); err != nil {
			t.Fatalf("mounting %s: %v", m[1], err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(m[1], unix.MNT_DETACH); err != nil {
				t.Errorf("umount %s: %v", m[1], err)
			}
		})
	}
	data, err := os.ReadFile(object)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	set := applied.NewSet{Objects: map[string][]byte{digest: data}}
	for name, p := range map[string]struct {
		sel specs.Select
		at  specs.Attachment
	}{
		// The hook's, the hook's on an interface, and the plugin's.
		"cgroup":    {specs.Select{Annotations: map[string]string{"policies": "yes"}}, specs.Attachment{Name: "connect4", Hook: "cgroup/connect4"}},
		"interface": {specs.Select{Annotations: map[string]string{"policies": "yes"}}, specs.Attachment{Name: "read_ifindex", Hook: specs.HookTCXIngress, Side: specs.SideHost}},
		"network":   {specs.Select{Fields: specs.Fields{Networks: []string{"net"}}}, specs.Attachment{Name: "read_ifindex", Hook: specs.HookTCXIngress, Side: specs.SideHost}},
	} {
		set.Policies = append(set.Policies, applied.NewPolicy{Select: p.sel, Plan: specs.Plan{
			Version: specs.PlanVersion, Name: name, Source: name + ".yaml", OnError: specs.Deny, Scope: specs.ScopeContainer, Teardown: specs.Drain, TCFallback: specs.FallbackClsact,
			Objects:  []specs.PlanObject{{SHA256: digest, Origin: object}},
			Programs: []specs.PlanProgram{{Key: p.at.Name, Symbol: p.at.Name, Hook: p.at.Hook, Attachments: []specs.Attachment{p.at}}},
		}})
	}
	if _, err := applied.Write(applied.Options{}, set); err != nil {
		t.Fatal(err)
	}
	return &node{}
}

// container is what a runtime would call linkpin for: a process in a cgroup and a network
// namespace of its own, with a veth.
type container struct {
	id, bundle, cgroup, host string
	ns                       *bpftest.NS
	pid                      int
	policies, network        string // "yes" and "net": there are policies for it
}

func (n *node) container(t *testing.T) *container {
	t.Helper()
	n.made++
	c := &container{id: fmt.Sprint("c", n.made), bundle: t.TempDir(), cgroup: bpftest.Cgroup(t), host: fmt.Sprint("lpcost", n.made), policies: "yes", network: "net"}
	c.ns = bpftest.NetNSProcess(t, c.cgroup)
	c.pid = c.ns.PID()
	bpftest.Veth(t, c.ns, c.host, "eth0")
	return c
}

// kill ends the container's process, as far as its cgroup can tell.
func (c *container) kill(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(c.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	bpftest.Eventually(t, "cgroup is empty", func() error {
		data, err := os.ReadFile(filepath.Join(c.cgroup, "cgroup.procs"))
		if err == nil && len(data) > 0 {
			err = errors.New("still populated")
		}
		return err
	})
}

// call is one way in which linkpin is invoked for a container.
type call string

const (
	createRuntime call = "createRuntime"
	poststop      call = "poststop"
	add           call = "ADD"
	del           call = "DEL"
)

// run makes a call, which must succeed, and returns how many system calls that matter it
// has made (see package tracer).
func (c *container) run(t *testing.T, what call) (calls int, names []string) {
	t.Helper()
	o := tracer.Options{Trace: func(c tracer.Call) { names = append(names, c.Name) }}
	var input any
	switch what {
	case createRuntime, poststop:
		state := map[string]any{"ociVersion": "1.0.2", "id": c.id, "status": "stopped", "bundle": c.bundle}
		if what == createRuntime {
			state["status"], state["pid"], state["annotations"] = "creating", c.pid, map[string]string{"policies": c.policies}
		}
		o.Path, o.Args, input = "linkpin-hook", []string{string(what)}, state
	case add, del:
		o.Path = "linkpin-cni"
		o.Env = []string{"CNI_COMMAND=" + string(what), "CNI_CONTAINERID=" + c.id, "CNI_NETNS=" + c.ns.Path(), "CNI_IFNAME=eth0", "CNI_PATH=" + os.Getenv(binEnv)}
		input = map[string]any{
			"cniVersion": "1.1.0", "name": c.network, "type": "linkpin-cni",
			"prevResult": map[string]any{"cniVersion": "1.1.0", "interfaces": []any{
				map[string]any{"name": c.host}, map[string]any{"name": "eth0", "sandbox": c.ns.Path()},
			}},
		}
	}
	o.Path = filepath.Join(os.Getenv(binEnv), o.Path)
	text, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	o.Files = [3]*os.File{file(t, text), nil, file(t, nil)}
	r, err := tracer.Run(o)
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.ReadFile(o.Files[2].Name())
	if err != nil || r.Exit != 0 || len(said) > 0 {
		t.Fatalf("%s: exit status %d, %v: %s", what, r.Exit, err, said)
	}
	return r.Calls, names
}

// file returns an open file with a text.
func file(t *testing.T, text []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
