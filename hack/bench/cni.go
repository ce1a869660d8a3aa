// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/linkpin/linkpin/hack/chain"
)

const interfacePolicy = `apiVersion: linkpin.io/v1
kind: Policy
metadata: {name: meter-interface}
object: {builtin: egress}
select: {all: true}
onError: deny
programs:
  from_container: {direction: from-container}
constants: {default_deny: false}
...
`

// benchCNI measures ADD and DEL of a chain bridge + host-local, alone and followed
// by each of the plugins. The chain of linkpin-cni attaches one TCX program.
func benchCNI(c config) error {
	if err := os.WriteFile("/etc/linkpin/policies.d/interface.yaml", []byte(interfacePolicy), 0o644); err != nil {
		return err
	}
	if err := command(filepath.Join(c.bin, "linkpin"), "policy", "apply"); err != nil {
		return err
	}
	ns := "/run/netns/bench"
	if err := command("ip", "netns", "add", "bench"); err != nil {
		return err
	}
	defer command("ip", "netns", "del", "bench")
	cni := libcni.NewCNIConfigWithCacheDir([]string{chain.ReferencePlugins, c.bin}, filepath.Join(c.work, "cni-cache"), nil)

	var adds, dels []*variant
	for i, last := range []map[string]any{
		nil,
		{"type": "bandwidth", "ingressRate": 1 << 30, "ingressBurst": 1 << 30, "egressRate": 1 << 30, "egressBurst": 1 << 30},
		{"type": "linkpin-cni"},
	} {
		list, name, err := confList(i, last)
		if err != nil {
			return err
		}
		rt := &libcni.RuntimeConf{ContainerID: "bench", NetNS: ns, IfName: "eth0"}
		ctx := context.Background()
		add := &variant{name: name, run: func() error {
			_, err := cni.AddNetworkList(ctx, list, rt)
			return err
		}}
		del := &variant{name: name, run: func() error { return cni.DelNetworkList(ctx, list, rt) }}
		adds, dels = append(adds, add), append(dels, del)
	}
	if err := measurePairs(c.runs, adds, dels); err != nil {
		return err
	}
	fmt.Printf("\n== CNI chain bridge + host-local, and what a third plugin adds, %d runs each, medians\n", c.runs)
	for _, verb := range []struct {
		name     string
		variants []*variant
	}{{"ADD", adds}, {"DEL", dels}} {
		base, peer := verb.variants[0], verb.variants[1]
		fmt.Printf("%s %-20s %s\n", verb.name, base.name, ms(median(base.took)))
		for _, v := range verb.variants[1:] {
			fmt.Printf("%s %-20s +%s   %.2f × bandwidth\n", verb.name, v.name, ms(v.added(base)), float64(v.added(base))/float64(peer.added(base)))
		}
	}
	return command(filepath.Join(c.bin, "linkpin"), "gc", "--wait=5s")
}

// measurePairs is measure for verbs that undo each other.
func measurePairs(runs int, adds, dels []*variant) error {
	const warmup = 3
	for i := range warmup + runs {
		for j := range adds {
			for _, v := range []*variant{adds[j], dels[j]} {
				start := time.Now()
				if err := v.run(); err != nil {
					return fmt.Errorf("%s: %w", v.name, err)
				}
				if i >= warmup {
					v.took = append(v.took, time.Since(start))
				}
			}
		}
	}
	return nil
}

func confList(i int, last map[string]any) (*libcni.NetworkConfigList, string, error) {
	name := "bridge"
	list := []map[string]any{{
		"type": "bridge", "bridge": fmt.Sprintf("lpbench%d", i), "isGateway": true,
		"ipam": map[string]any{"type": "host-local", "subnet": fmt.Sprintf("198.18.%d.0/24", i)},
	}}
	if last != nil {
		name = "+ " + last["type"].(string)
		list = append(list, last)
	}
	data, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": fmt.Sprintf("bench%d", i), "plugins": list})
	if err != nil {
		return nil, "", err
	}
	parsed, err := libcni.ConfListFromBytes(data)
	return parsed, name, err
}
