// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

func TestEveryVerbOverEveryVersion(t *testing.T) {
	for i, version := range versions {
		t.Run(version, func(t *testing.T) {
			n := newNode(t)
			n.apply(policy{name: "tcx", sel: everybody, symbol: "read_ifindex", at: tcxHost},
				policy{name: "xdp", sel: everybody, symbol: "pass", at: xdpInside})
			p := newPod(t, "pod.with.dots", fmt.Sprintf("lpverb%d", i), version)
			var printed, prev map[string]any
			if err := json.Unmarshal([]byte(n.mustAdd(p)), &printed); err != nil {
				t.Fatal(err)
			}
			data, _ := json.Marshal(p.conf["prevResult"])
			if err := json.Unmarshal(data, &prev); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(printed, prev) {
				t.Errorf("result %v, want the previous one %v", printed, prev)
			}
			n.wantState(2, 0, 2)
			if err := n.Check(p.cmd(t)); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			if err := n.Status(p.cmd(t)); err != nil {
				t.Errorf("STATUS: %v", err)
			}
			p.conf["cni.dev/valid-attachments"] = []any{map[string]any{"containerID": p.id, "ifname": "eth0"}}
			if err := n.GC(p.cmd(t)); err != nil {
				t.Errorf("GC: %v", err)
			}
			n.wantState(2, 0, 2)
			for range 2 {
				if err := n.Del(p.cmd(t)); err != nil {
					t.Errorf("DEL: %v", err)
				}
			}
			n.wantState(0, 2, 0)
			if err := n.Check(p.cmd(t)); code(t, err) != CodeDrift {
				t.Errorf("CHECK after DEL: %v", err)
			}
			if len(n.warnings) > 0 {
				t.Errorf("warnings: %v", n.warnings)
			}
		})
	}
}

// DEL is called with whatever is left of a sandbox.
func TestDelNeedsNothing(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "tcx", sel: everybody, symbol: "read_ifindex", at: tcxHost})
	p := newPod(t, "pod", "lpdel0", "1.1.0")
	if err := n.Del(p.cmd(t)); err != nil {
		t.Errorf("before any ADD: %v", err)
	}
	n.mustAdd(p)
	if err := os.RemoveAll(n.Applied.Dir); err != nil {
		t.Fatal(err)
	}
	delete(p.conf, "prevResult")
	cmd := p.cmd(t)
	cmd.Netns = ""
	if err := n.Del(cmd); err != nil {
		t.Errorf("without namespace, previous result and policies: %v", err)
	}
	n.wantState(0, 1, 0)
	p.ns.Kill(t)
	bpftest.Eventually(t, "a later call sweeps what is severed", func() error {
		if err := n.Del(cmd); err != nil {
			return err
		}
		if _, retired, _ := n.state(); retired != 0 {
			return errors.New("still draining")
		}
		return nil
	})
}

func TestAddRefuses(t *testing.T) {
	forbidden := policy{name: "tcx", sel: everybody, symbol: "read_ifindex", at: tcxHost}
	wrong := policy{name: "wrong", sel: everybody, symbol: "wild", at: tcxHost} // its map has no size in the object
	requested := policy{name: "asked", sel: specs.Select{OptIn: true}, symbol: "pass", at: xdpInside}
	for i, tc := range []struct {
		name     string
		policies []policy
		change   func(t *testing.T, n *node, p *pod, cmd *skel.CmdArgs)
		want     uint
		say      string
	}{
		{"no previous result", []policy{forbidden}, func(_ *testing.T, _ *node, p *pod, _ *skel.CmdArgs) { delete(p.conf, "prevResult") },
			types.ErrInvalidNetworkConfig, "must follow a plugin that makes the interface"},
		{"broken previous result", []policy{forbidden}, func(_ *testing.T, _ *node, p *pod, _ *skel.CmdArgs) {
			p.conf["prevResult"] = map[string]any{"cniVersion": "1.1.0", "ips": 3}
		}, types.ErrDecodingFailure, "prevResult"},
		{"unknown caller", []policy{forbidden}, func(_ *testing.T, _ *node, p *pod, _ *skel.CmdArgs) { p.conf["caller"] = "docker" },
			types.ErrInvalidNetworkConfig, `unknown caller "docker"`},
		{"vanished namespace", []policy{forbidden}, func(t *testing.T, _ *node, _ *pod, cmd *skel.CmdArgs) { cmd.Netns = filepath.Join(t.TempDir(), "gone") },
			types.ErrUnknownContainer, "no longer exists"},
		{"host's namespace", []policy{forbidden}, func(_ *testing.T, _ *node, _ *pod, cmd *skel.CmdArgs) { cmd.Netns = "/proc/self/ns/net" },
			CodeRefused, "it is the host's"},
		{"no such interface", []policy{forbidden}, func(_ *testing.T, _ *node, _ *pod, cmd *skel.CmdArgs) { cmd.IfName = "eth7" },
			types.ErrUnknownContainer, "eth7"},
		{"no applied set", []policy{forbidden}, func(t *testing.T, n *node, _ *pod, _ *skel.CmdArgs) {
			if err := os.RemoveAll(n.Applied.Dir); err != nil {
				t.Fatal(err)
			}
		}, CodeNoPolicies, "linkpin policy apply"},
		{"a program that does not load", []policy{forbidden, wrong}, nil, CodeRefused, "policy wrong"},
		{"an unknown policy is asked for", []policy{requested}, func(_ *testing.T, _ *node, p *pod, _ *skel.CmdArgs) { ask(p, "asked,other") },
			CodeRefused, "no such policy"},
		{"a path is asked for", []policy{requested}, func(_ *testing.T, _ *node, p *pod, _ *skel.CmdArgs) { ask(p, "../asked") },
			CodeRefused, "is not the name of a policy"},
		{"a policy that is not optIn is asked for", []policy{forbidden}, func(_ *testing.T, _ *node, p *pod, _ *skel.CmdArgs) { ask(p, "tcx") },
			CodeRefused, "not optIn"},
		{"no bpffs", []policy{forbidden}, func(t *testing.T, n *node, _ *pod, _ *skel.CmdArgs) { n.BPFFS.Path = t.TempDir() },
			CodeUnavailable, "is not a bpf filesystem"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNode(t)
			n.t = t
			bpffs := n.BPFFS
			n.apply(tc.policies...)
			p := newPod(t, "pod", fmt.Sprintf("lpbad%d", i), "1.1.0")
			cmd := &skel.CmdArgs{}
			if tc.change != nil {
				tc.change(t, n, p, cmd)
			}
			full := p.cmd(t)
			if cmd.Netns != "" {
				full.Netns = cmd.Netns
			}
			if cmd.IfName != "" {
				full.IfName = cmd.IfName
			}
			var err error
			out := stdout(t, func() { err = n.Add(full) })
			if err == nil || code(t, err) != tc.want || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("got %v, want code %d and %q", err, tc.want, tc.say)
			}
			if out != "" {
				t.Errorf("printed %q beside the error", out)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
			n.BPFFS = bpffs
			n.wantState(0, 0, 0)
		})
	}
}

func ask(p *pod, policies string) {
	p.conf["runtimeConfig"] = map[string]any{"io.kubernetes.cri.pod-annotations": map[string]string{specs.OptInAnnotation: policies}}
}

func TestAddSelectsByPodAndAnnotation(t *testing.T) {
	n := newNode(t)
	n.apply(
		policy{name: "prod", sel: specs.Select{Fields: specs.Fields{Namespaces: []string{"prod"}}}, symbol: "read_ifindex", at: tcxHost},
		policy{name: "dev", sel: specs.Select{Fields: specs.Fields{Namespaces: []string{"dev"}}}, symbol: "landing", at: specs.Attachment{Hook: specs.HookTCXEgress, Side: specs.SideHost}},
		policy{name: "net", sel: specs.Select{Fields: specs.Fields{Networks: []string{"ne?"}}}, symbol: "jump", at: tcxHost},
		policy{name: "asked", sel: specs.Select{OptIn: true}, symbol: "pass", at: xdpInside},
		policy{name: "cgroup", sel: everybody, symbol: "connect4", at: specs.Attachment{Hook: "cgroup/connect4"}},
	)
	p := newPod(t, "pod", "lpsel0", "1.1.0")
	ask(p, " asked ")
	n.mustAdd(p)
	root, err := pin.Open(n.BPFFS)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	places, err := root.Entries(pin.Sandbox(pin.SandboxKey("pod")))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, place := range places {
		got = append(got, place.Policy())
	}
	if want := []string{entry.Note, "asked", "net", "prod"}; !reflect.DeepEqual(got, want) {
		t.Errorf("policies %v, want %v", got, want)
	}
}

func TestAllowGoesOnWithout(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "wrong", sel: everybody, onError: specs.Allow, symbol: "wild", at: tcxHost},
		policy{name: "tcx", sel: everybody, symbol: "read_ifindex", at: tcxHost})
	n.mustAdd(newPod(t, "pod", "lpallow0", "1.1.0"))
	n.wantState(1, 0, 1)
	if len(n.warnings) != 1 || !strings.Contains(n.warnings[0].Error(), "wrong") {
		t.Errorf("warnings: %v", n.warnings)
	}
}

func TestExemptSandbox(t *testing.T) {
	n := newNode(t)
	p := newPod(t, "pod", "lpex0", "1.1.0")
	if err := os.WriteFile(n.Exempt, []byte("namespace=prod\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.mustAdd(p)
	if len(n.warnings) != 1 {
		t.Errorf("warnings: %v", n.warnings)
	}
	p.args = "K8S_POD_NAMESPACE=dev;K8S_POD_NAME=web-1"
	if _, err := n.add(p); code(t, err) != CodeNoPolicies {
		t.Errorf("got %v", err)
	}
	if err := n.Status(p.cmd(t)); code(t, err) != codeNotAvailable {
		t.Errorf("STATUS: %v", err)
	}
}

// CHECK sees each way in which an attachment can be lost.
func TestCheckFindsDrift(t *testing.T) {
	for i, tc := range []struct {
		name  string
		steal func(t *testing.T, path string)
		say   string
	}{
		{"force-detached", func(t *testing.T, path string) {
			l, err := attach.OpenPinned(path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if err := l.Detach(); err != nil {
				t.Fatal(err)
			}
		}, "severed"},
		{"replaced by another program", func(t *testing.T, path string) {
			other, err := ebpf.NewProgram(&ebpf.ProgramSpec{
				Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			l, err := attach.OpenPinned(path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if err := l.Update(other); err != nil {
				t.Fatal(err)
			}
		}, "program"},
		{"unpinned", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, "gone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNode(t)
			n.apply(policy{name: "tcx", sel: everybody, symbol: "read_ifindex", at: tcxHost})
			p := newPod(t, "pod", fmt.Sprintf("lpdrift%d", i), "1.1.0")
			n.mustAdd(p)
			root, err := pin.Open(n.BPFFS)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			e, err := root.Entry(pin.InterfaceEntry(pin.SandboxKey("pod"), "net", "eth0", "tcx"))
			if err != nil {
				t.Fatal(err)
			}
			tc.steal(t, e.LinkPath("read_ifindex"))
			err = n.Check(p.cmd(t))
			if err == nil || code(t, err) != CodeDrift || !strings.Contains(err.Error(), tc.say) {
				t.Fatalf("got %v, want code %d and %q", err, CodeDrift, tc.say)
			}
		})
	}
}

// GC knows attachments by network: another network's are none of its business.
func TestGCByNetwork(t *testing.T) {
	n := newNode(t)
	n.apply(policy{name: "tcx", sel: everybody, symbol: "read_ifindex", at: tcxHost})
	ours, stale, other := newPod(t, "ours", "lpgc0", "1.1.0"), newPod(t, "stale", "lpgc1", "1.1.0"), newPod(t, "other", "lpgc2", "1.1.0")
	other.conf["name"] = "other-net"
	for _, p := range []*pod{ours, stale, other} {
		n.mustAdd(p)
	}
	ours.conf["cni.dev/valid-attachments"] = []any{map[string]any{"containerID": "ours", "ifname": "eth0"}}
	if err := n.GC(ours.cmd(t)); err != nil {
		t.Fatal(err)
	}
	n.wantState(2, 1, 2)
	if err := n.Check(ours.cmd(t)); err != nil {
		t.Error(err)
	}
	if err := n.Check(other.cmd(t)); err != nil {
		t.Error(err)
	}
	if err := n.Check(stale.cmd(t)); code(t, err) != CodeDrift {
		t.Errorf("CHECK of what GC took: %v", err)
	}
}
