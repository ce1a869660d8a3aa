// SPDX-License-Identifier: Apache-2.0

// Package chain drives a chain of CNI plugins through libcni, as runtimes do, for
// demo and tests.
package chain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// ReferencePlugins is where Debian's containernetworking-plugins are.
const ReferencePlugins = "/usr/lib/cni"

// Main runs one verb and returns the exit code:
//
//	cni add|check|del|gc|status CONFLIST [ID NETNS [IFNAME]]
//
// linkpin-cni is looked up in PATH. CNI_ARGS and, as JSON, CAPABILITIES are taken
// from the environment. gc keeps the attachments that libcni has in its cache.
func Main() int {
	err := Run(context.Background(), os.Args[1:])
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*types.Error](err); ok {
		fmt.Fprintf(os.Stderr, "code %d: ", e.Code)
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// Run is Main with its arguments; a plugin's error is a *types.Error.
func Run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: cni add|check|del|gc|status CONFLIST [ID NETNS [IFNAME]]")
	}
	plugin, err := exec.LookPath("linkpin-cni")
	if err != nil {
		return err
	}
	list, err := libcni.ConfListFromFile(args[1])
	if err != nil {
		return err
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{filepath.Dir(plugin), ReferencePlugins}, "/var/lib/cni/cache", nil)
	rt := &libcni.RuntimeConf{IfName: "eth0"}
	if len(args) > 3 {
		rt.ContainerID, rt.NetNS = args[2], args[3]
	}
	if len(args) > 4 {
		rt.IfName = args[4]
	}
	for pair := range strings.SplitSeq(os.Getenv("CNI_ARGS"), ";") {
		if k, v, ok := strings.Cut(pair, "="); ok {
			rt.Args = append(rt.Args, [2]string{k, v})
		}
	}
	if text := os.Getenv("CAPABILITIES"); text != "" {
		if err := json.Unmarshal([]byte(text), &rt.CapabilityArgs); err != nil {
			return err
		}
	}
	switch args[0] {
	case "add":
		result, err := cni.AddNetworkList(ctx, list, rt)
		if err != nil {
			return err
		}
		return result.PrintTo(os.Stdout)
	case "check":
		return cni.CheckNetworkList(ctx, list, rt)
	case "del":
		return cni.DelNetworkList(ctx, list, rt)
	case "status":
		return cni.GetStatusNetworkList(ctx, list)
	case "gc":
		attachments, err := cni.GetCachedAttachments("")
		if err != nil {
			return err
		}
		gc := &libcni.GCArgs{}
		for _, a := range attachments {
			if a.Network == list.Name {
				gc.ValidAttachments = append(gc.ValidAttachments, types.GCAttachment{ContainerID: a.ContainerID, IfName: a.IfName})
			}
		}
		return cni.GCNetworkList(ctx, list, gc)
	}
	return fmt.Errorf("unknown verb %q", args[0])
}
