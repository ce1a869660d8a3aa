// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/cni"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/change"
)

// recorder is a plugin that keeps what it was called with.
const recorder = `#!/bin/sh
d=${0%%/*}
n=${0##*/}
echo "$CNI_COMMAND $n" >>"$d/calls"
cat >"$d/$n.$CNI_COMMAND"
[ "$CNI_COMMAND" = DEL ] || echo '{"cniVersion": "%s", "interfaces": [{"name": "eth0", "sandbox": "'$CNI_NETNS'"}]}'
`

// libcni itself, as containerd and CRI-O link it, calls a chain that Install edited:
// our plugin comes last at ADD and first at DEL, gets the arguments of both
// capabilities, and takes its configuration.
func TestLibcniCallsTheEntry(t *testing.T) {
	for file, version := range map[string]string{"10-azure.conflist": "0.3.0", "10-crio-bridge.conf": "0.3.1", "10-flannel.conflist": "0.3.1", "10-containerd-net.conflist": "1.0.0"} {
		t.Run(file, func(t *testing.T) {
			data, err := os.ReadFile("testdata/" + file)
			if err != nil {
				t.Fatal(err)
			}
			h := hostWith(t, map[string]string{file: string(data), "/usr/bin/containerd": ""})
			if err := os.Chmod(at(h, "/usr/bin/containerd"), 0o755); err != nil {
				t.Fatal(err)
			}
			before, err := configLoaded(h, file)
			if err != nil {
				t.Fatal(err)
			}
			install(t, &CNI{}, h)
			list, err := libcni.LoadNetworkConf(at(h, "."), before.Name)
			if err != nil {
				t.Fatal(err)
			}
			bin := t.TempDir()
			for _, p := range list.Plugins {
				if err := os.WriteFile(filepath.Join(bin, p.Network.Type), fmt.Appendf(nil, recorder, version), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			rt := &libcni.RuntimeConf{
				ContainerID: "pod1", NetNS: "/proc/self/ns/net", IfName: "eth0",
				Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "prod"}, {"K8S_POD_NAME", "web"}},
				CapabilityArgs: map[string]any{
					"io.kubernetes.cri.pod-annotations": map[string]string{"linkpin.io/policies": "meter"},
					"cgroupPath":                        "/kubepods.slice/kubepods-pod1.slice",
					"bandwidth":                         map[string]int{"ingressRate": 1},
				},
			}
			runtime := libcni.NewCNIConfigWithCacheDir([]string{bin}, t.TempDir(), nil)
			if _, err := runtime.AddNetworkList(context.Background(), list, rt); err != nil {
				t.Fatal(err)
			}
			if err := runtime.DelNetworkList(context.Background(), list, rt); err != nil {
				t.Fatal(err)
			}
			calls, err := os.ReadFile(filepath.Join(bin, "calls"))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(calls), "ADD linkpin-cni\nDEL linkpin-cni\nDEL ") {
				t.Errorf("calls:\n%s", calls)
			}
			stdin, err := os.ReadFile(filepath.Join(bin, Plugin+".ADD"))
			if err != nil {
				t.Fatal(err)
			}
			accepted(t, stdin)
		})
	}
}

func configLoaded(h change.Host, file string) (*libcni.NetworkConfigList, error) {
	if filepath.Ext(file) == ".conflist" {
		return libcni.ConfListFromFile(at(h, file))
	}
	single, err := libcni.ConfFromFile(at(h, file)) //nolint:staticcheck // deprecated, but runtimes still read single .conf files with it
	if err != nil {
		return nil, err
	}
	return libcni.ConfListFromConf(single) //nolint:staticcheck // deprecated, but runtimes still read single .conf files with it
}

// accepted gives the configuration to the plugin's own parser.
func accepted(t *testing.T, stdin []byte) {
	t.Helper()
	var conf cni.Conf
	if err := json.Unmarshal(stdin, &conf); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"linkpin.io/policies": "meter"}, conf.RuntimeConfig.PodAnnotations); diff != "" {
		t.Errorf("annotations: %s", diff)
	}
	if conf.Caller != specs.CallerContainerd || conf.RawPrevResult == nil {
		t.Errorf("caller %q, prevResult %v", conf.Caller, conf.RawPrevResult)
	}
	var raw struct {
		RuntimeConfig map[string]any `json:"runtimeConfig"`
	}
	if err := json.Unmarshal(stdin, &raw); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"cgroupPath", "io.kubernetes.cri.pod-annotations"}, sorted(raw.RuntimeConfig)); diff != "" {
		t.Errorf("runtimeConfig: %s", diff)
	}
	// ADD goes as far as the applied policies, which this host has not.
	p := cni.Plugin{Applied: applied.Options{Dir: filepath.Join(t.TempDir(), "none")}, Exempt: filepath.Join(t.TempDir(), "exempt")}
	p.BPFFS.Path = t.TempDir()
	err := p.Add(&skel.CmdArgs{ContainerID: "pod1", Netns: "/proc/self/ns/net", IfName: "eth0", StdinData: stdin})
	var e *types.Error
	if !errors.As(err, &e) || e.Code != cni.CodeNoPolicies {
		t.Errorf("ADD: %v, want code %d", err, cni.CodeNoPolicies)
	}
}

// The versions of this package are the plugin's.
func TestVersions(t *testing.T) {
	if diff := cmp.Diff(cni.Versions.SupportedVersions(), spoken); diff != "" {
		t.Error(diff)
	}
}

// An entry that is said to be in order must be one that the plugin takes, and the
// other way round.
func TestEntriesAsThePluginJudges(t *testing.T) {
	for entry, good := range map[string]bool{
		`{"type": "linkpin-cni"}`:                                  true,
		`{"type": "linkpin-cni", "caller": "crio", "unknown": {}}`: true,
		`{"type": "linkpin-cni", "Caller": "none"}`:                true,
		`{"type": "linkpin-cni", "caller": "docker"}`:              false,
		`{"type": "linkpin-cni", "caller": ""}`:                    false,
		`{"type": "linkpin-cni", "caller": 1}`:                     false,
		`{"type": "linkpin-cni", "capabilities": ["a"]}`:           false,
		`{"type": "linkpin-cni", "capabilities": {"a": 1}}`:        false,
	} {
		root, err := parseText([]byte(entry))
		if err != nil {
			t.Fatal(err)
		}
		if got := checkEntry([]byte(entry), root) == nil; got != good {
			t.Errorf("%s: good %v", entry, got)
		}
		err = (&cni.Plugin{Applied: applied.Options{Dir: filepath.Join(t.TempDir(), "none")}}).Status(&skel.CmdArgs{StdinData: []byte(entry)})
		var e *types.Error
		if !errors.As(err, &e) || (e.Code == 50) != good {
			t.Errorf("%s: STATUS says %v", entry, err)
		}
	}
}
