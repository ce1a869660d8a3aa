// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
)

func TestMain(m *testing.M) { os.Exit(bpftest.Main(m)) }

// versions are all that the plugin claims to speak.
var versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

const object = "../bpf/load/testdata/basic.bpf.o"

// node is a plugin with a bpffs and an applied set of its own.
type node struct {
	Plugin
	t        testing.TB
	warnings []error
}

func newNode(t testing.TB) *node {
	n := &node{t: t}
	n.Plugin = Plugin{
		BPFFS:   pin.Options{Path: bpftest.TempBPFFS(t)},
		Applied: applied.Options{Dir: filepath.Join(t.TempDir(), "applied")},
		Exempt:  filepath.Join(t.TempDir(), "exempt"),
		Warn:    func(err error) { n.warnings = append(n.warnings, err) },
	}
	return n
}

// policy describes one policy of a test.
type policy struct {
	name    string
	sel     specs.Select
	onError specs.OnError
	symbol  string
	at      specs.Attachment
	cgroup  specs.CgroupOf
}

var (
	everybody = specs.Select{Fields: specs.Fields{All: true}}
	tcxHost   = specs.Attachment{Hook: specs.HookTCXIngress, Side: specs.SideHost}
	xdpInside = specs.Attachment{Hook: specs.HookXDP, Side: specs.SideContainer}
)

// apply puts policies into effect.
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
		p.at.Name = p.symbol
		if p.onError == "" {
			p.onError = specs.Deny
		}
		set.Policies = append(set.Policies, applied.NewPolicy{Select: p.sel, Plan: specs.Plan{
			Version: specs.PlanVersion, Name: p.name, Source: p.name + ".yaml",
			OnError: p.onError, Scope: specs.ScopeContainer, Cgroup: p.cgroup, Teardown: specs.Drain,
			Objects:  []specs.PlanObject{{SHA256: digest, Origin: object}},
			Programs: []specs.PlanProgram{{Key: p.symbol, Symbol: p.symbol, Hook: p.at.Hook, Attachments: []specs.Attachment{p.at}}},
		}})
	}
	if _, err := applied.Write(n.Applied, set); err != nil {
		n.t.Fatal(err)
	}
}

// pod is a namespace with one veth, and what a runtime would say of it.
type pod struct {
	ns   *bpftest.NS
	id   string
	conf map[string]any
	args string
}

func newPod(t testing.TB, id, host, version string) *pod {
	t.Helper()
	ns := bpftest.NetNS(t)
	bpftest.Veth(t, ns, host, "eth0")
	prev := map[string]any{
		"cniVersion": version,
		"interfaces": []any{
			map[string]any{"name": host},
			map[string]any{"name": "eth0", "sandbox": ns.Path()},
		},
		"ips": []any{map[string]any{"address": bpftest.CtrIPv4 + "/24", "interface": 1}},
		"dns": map[string]any{"nameservers": []any{"192.0.2.53"}},
	}
	if version < "1.0.0" {
		prev["ips"].([]any)[0].(map[string]any)["version"] = "4"
	}
	return &pod{ns: ns, id: id, args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-1", conf: map[string]any{
		"cniVersion": version, "name": "net", "type": "linkpin-cni", "prevResult": prev,
		"unknown": map[string]any{"a": 1},
	}}
}

func (p *pod) cmd(t testing.TB) *skel.CmdArgs {
	t.Helper()
	stdin, err := json.Marshal(p.conf)
	if err != nil {
		t.Fatal(err)
	}
	return &skel.CmdArgs{ContainerID: p.id, Netns: p.ns.Path(), IfName: "eth0", Args: p.args, StdinData: stdin}
}

// add runs ADD and returns what it printed.
func (n *node) add(p *pod) (string, error) {
	n.t.Helper()
	var err error
	out := stdout(n.t, func() { err = n.Add(p.cmd(n.t)) })
	return out, err
}

func (n *node) mustAdd(p *pod) string {
	n.t.Helper()
	out, err := n.add(p)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// stdout returns what fn writes to standard output, where results go.
func stdout(t testing.TB, fn func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	saved := os.Stdout
	os.Stdout = w
	done := make(chan []byte)
	go func() {
		data, _ := io.ReadAll(r)
		done <- data
	}()
	fn()
	os.Stdout = saved
	w.Close()
	return string(<-done)
}

// state counts what is recorded and how many links of it live.
func (n *node) state() (entries, retired, live int) {
	n.t.Helper()
	root, err := pin.Open(n.BPFFS)
	if errors.Is(err, pin.ErrNoState) {
		return 0, 0, 0
	}
	if err != nil {
		n.t.Fatal(err)
	}
	defer root.Close()
	s := &entry.Session{Root: root}
	if err := s.Walk(func(it entry.Item) error {
		if it.Retired != nil {
			retired++
			return nil
		}
		entries++
		for _, l := range it.Links {
			if l.Err == nil && l.Info.State == "live" {
				live++
			}
		}
		return nil
	}); err != nil {
		n.t.Fatal(err)
	}
	return entries, retired, live
}

func (n *node) wantState(entries, retired, live int) {
	n.t.Helper()
	e, r, l := n.state()
	if e != entries || r != retired || l != live {
		n.t.Errorf("%d entries, %d retired, %d live links; want %d, %d, %d", e, r, l, entries, retired, live)
	}
}

// code returns the CNI error code of err.
func code(t testing.TB, err error) uint {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is not a CNI error", fmt.Sprint(err))
	}
	return e.Code
}
