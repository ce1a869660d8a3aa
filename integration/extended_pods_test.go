// SPDX-License-Identifier: Apache-2.0

//go:build extended

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// cmdPodsBelow makes a cgroup, as a kubelet does for a pod, and puts the pods that
// are run from now on into it: pods-below NAME is $CG2$CGPARENT/NAME. pods-below
// alone is the machine's cgroup again.
func cmdPodsBelow(ts *testscript.TestScript, neg bool, args []string) {
	c, ok := ts.Value(criKey{}).(*criClient)
	if !ok || neg || len(args) > 1 {
		ts.Fatalf("usage: pods-below [NAME]")
	}
	c.parent = ts.Getenv("CGPARENT")
	if len(args) == 1 {
		c.parent += "/" + args[0]
		ts.Check(os.MkdirAll(filepath.Join(ts.Getenv("CG2"), c.parent), 0o755))
	}
}

// cmdEnd stops and removes all pods as a kubelet does, and fails if something of
// them, or of linkpin, is left: end.
func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: end")
	}
	conn, err := dialContainerd()
	ts.Check(err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), criTimeout)
	defer cancel()
	ts.Check(removePods(ctx, cri.NewRuntimeServiceClient(conn)))
	ts.Check(ts.Exec("linkpin", "gc", "--wait=5s"))
	state := ts.Getenv("STATE")
	ts.Check(ts.Exec("links", "pinned", state))
	if pinned := ts.ReadFile("stdout"); pinned != "" {
		ts.Fatalf("links are left:\n%s", pinned)
	}
	for _, dir := range []string{"containers", "staging", "retired", "sandboxes", "netns"} {
		entries, err := os.ReadDir(filepath.Join(state, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			ts.Fatalf("%v", err)
		}
		for _, e := range entries {
			ts.Fatalf("%s is left in %s", e.Name(), dir)
		}
	}
}

// removePods stops and removes every pod, and returns an error if the runtime still
// knows one, or a container, afterwards.
func removePods(ctx context.Context, service cri.RuntimeServiceClient) error {
	pods, err := service.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	if len(pods.Items) == 0 {
		return errors.New("no pod to remove: the end would say nothing")
	}
	for _, p := range pods.Items {
		if _, err := service.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.Id}); err != nil {
			return err
		}
		if _, err := service.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.Id}); err != nil {
			return err
		}
	}
	if pods, err = service.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{}); err != nil {
		return err
	}
	containers, err := service.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return err
	}
	if len(pods.Items)+len(containers.Containers) > 0 {
		return fmt.Errorf("the runtime still has pods %v and containers %v", pods.Items, containers.Containers)
	}
	return nil
}
