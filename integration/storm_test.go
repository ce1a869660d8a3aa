// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/containernetworking/cni/pkg/invoke"
)

// stormMain calls linkpin-cni alone, many times at once, for interfaces that are
// there already:
//
//	storm VERB,VERB… COUNT ID NETNS     each call for the same sandbox
//	storm VERB,VERB… COUNT ID PREFIX%    call N for sandbox ID-N in namespace PREFIXN
//
// It prints what failed and how many calls there were.
func stormMain() {
	var verbs []string
	var count int
	if len(os.Args) == 5 {
		verbs = strings.Split(os.Args[1], ",")
		_, _ = fmt.Sscan(os.Args[2], &count) // 0 is refused below
	}
	if count == 0 {
		fmt.Fprintln(os.Stderr, "usage: storm VERB,VERB… COUNT ID NETNS")
		os.Exit(1)
	}
	id, netns := os.Args[3], os.Args[4]
	var wg sync.WaitGroup
	errs := make([]error, count*len(verbs))
	start := make(chan struct{})
	for i := range count {
		for j, verb := range verbs {
			call := &invoke.Args{Command: verb, ContainerID: id, NetNS: netns, IfName: "eth0", Path: os.Getenv("PATH")}
			if prefix, ok := strings.CutSuffix(netns, "%"); ok {
				call.ContainerID, call.NetNS = fmt.Sprintf("%s-%d", id, i), fmt.Sprintf("%s%d", prefix, i)
			}
			wg.Go(func() {
				<-start
				errs[i*len(verbs)+j] = callPlugin(call)
			})
		}
	}
	close(start)
	wg.Wait()
	failed := 0
	for _, err := range errs {
		if err != nil {
			failed++
			fmt.Fprintln(os.Stderr, err)
		}
	}
	fmt.Printf("%d calls, %d failed\n", len(errs), failed)
	if failed > 0 {
		os.Exit(1)
	}
}

// callPlugin calls linkpin-cni as the last of a chain whose result names only the
// interface.
func callPlugin(args *invoke.Args) error {
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "storm", "type": "linkpin-cni",
		"prevResult": map[string]any{
			"cniVersion": "1.0.0",
			"interfaces": []any{map[string]any{"name": args.IfName, "sandbox": args.NetNS}},
		},
	})
	if err != nil {
		return err
	}
	plugin, err := exec.LookPath("linkpin-cni")
	if err != nil {
		return err
	}
	if args.Command == "ADD" {
		_, err = invoke.ExecPluginWithResult(context.Background(), plugin, conf, args, nil)
	} else {
		err = invoke.ExecPluginWithoutResult(context.Background(), plugin, conf, args, nil)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", args.Command, args.ContainerID, err)
	}
	return nil
}
