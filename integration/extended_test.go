// SPDX-License-Identifier: Apache-2.0

//go:build extended

package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/linkpin/linkpin/hook/install"
	"github.com/linkpin/linkpin/specs/change"
)

// extendedTools is where `make test-extended` has built the runtimes.
const extendedTools = "../bin/tools/extended"

// extendedHook is a machine's own linkpin-hook, for scripts to take away.
const extendedHook = "/opt/linkpin/linkpin-hook"

// TestExtended runs the scripts of testdata/extended: pods as a kubelet makes them,
// with runtimes that no distribution of ours has: containerd 2 and CRI-O.
func TestExtended(t *testing.T) {
	tools, err := filepath.Abs(extendedTools)
	if err != nil {
		t.Fatal(err)
	}
	//nolint:usetesting // t.Setenv forbids parallel subtests, which scripts are
	if err := os.Setenv("PATH", tools+":"+os.Getenv("PATH")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "crio", "pinns"} {
		if _, err := os.Stat(filepath.Join(tools, name)); err != nil {
			t.Fatalf("%v; run: make test-extended", err)
		}
	}
	needTools(t, "runc", "crun", "conmon", "podman", "umoci", "jq", "busybox", "ip", "bpftool", "clang")
	commands := maps.Clone(scriptCommands)
	commands["containerd"] = cmdContainerd
	commands["cri"] = cmdCRI
	commands["crio"] = cmdCRIO
	commands["create-with"] = cmdCreateWith
	commands["create-labelled"] = cmdCreateLabelled
	commands["check"] = cmdCheck
	commands["pods-below"] = cmdPodsBelow
	commands["end"] = cmdEnd
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/extended",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setUpExtended,
		Cmds:                commands,
	})
}

// setUpExtended gives a script a machine with containerd's configuration and an
// empty /opt, where runtimes look for plugins. The daemons are started by the script.
func setUpExtended(env *testscript.Env) error {
	if err := setUpCRIScript(env, unified); err != nil {
		return err
	}
	// The machine has containerd 2 where Debian's would be.
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		from, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if err := mount(from, "/usr/bin/"+name, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := mount("tmpfs", "/opt", "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	hook, err := os.ReadFile(filepath.Join(built.bin, "linkpin-hook"))
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Dir(extendedHook), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(extendedHook, hook, 0o755); err != nil {
		return err
	}
	env.Values[crioKey{}] = &crioDaemon{path: env.Getenv("PATH")}
	data, err := os.ReadFile(filepath.Join(built.testdata, "extended", "config.toml"))
	if err != nil {
		return err
	}
	return os.WriteFile(containerdConfig, data, 0o644)
}

// cmdCheck prints what `linkpin doctor` has to say of the NRI plugin, a line each.
func cmdCheck(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: check")
	}
	for _, f := range (install.NRI{Hook: extendedHook}).Check(change.Host{}) {
		_, _ = fmt.Fprintf(ts.Stdout(), "%s %s: %s\n", f.Level, f.What, f.Detail) // into memory
	}
}

// cmdCreateWith creates a container with CDI devices, and starts it:
// create-with DEVICE[,DEVICE…] POD NAME [-- PROGRAM [ARGUMENT…]].
func cmdCreateWith(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: create-with DEVICE[,DEVICE…] POD NAME [-- PROGRAM [ARGUMENT…]]")
	}
	config := &cri.ContainerConfig{}
	for device := range strings.SplitSeq(args[0], ",") {
		config.CDIDevices = append(config.CDIDevices, &cri.CDIDevice{Name: device})
	}
	createConfigured(ts, neg, config, args[1:])
}

// cmdCreateLabelled creates a container with the labels that a kubelet gives it, and
// starts it: create-labelled POD NAME [annotation=KEY=VALUE]… [-- PROGRAM [ARGUMENT…]].
func cmdCreateLabelled(ts *testscript.TestScript, neg bool, args []string) {
	c, ok := ts.Value(criKey{}).(*criClient)
	if !ok || len(args) < 2 || c.pods[ts.Getenv(args[0])] == nil {
		ts.Fatalf("usage: create-labelled POD NAME [annotation=KEY=VALUE]… [-- PROGRAM [ARGUMENT…]]")
	}
	pod := c.pods[ts.Getenv(args[0])].Metadata
	createConfigured(ts, neg, &cri.ContainerConfig{Labels: map[string]string{
		"io.kubernetes.container.name": args[1],
		"io.kubernetes.pod.name":       pod.Name,
		"io.kubernetes.pod.namespace":  pod.Namespace,
		"io.kubernetes.pod.uid":        pod.Uid,
	}}, args)
}

// createConfigured creates the container of config, and starts it. args are POD NAME
// [annotation=KEY=VALUE]… [-- PROGRAM [ARGUMENT…]].
func createConfigured(ts *testscript.TestScript, neg bool, config *cri.ContainerConfig, args []string) {
	c, ok := ts.Value(criKey{}).(*criClient)
	if !ok {
		ts.Fatalf("this machine has no pods")
	}
	config.Annotations = map[string]string{}
	for i, arg := range args[2:] {
		if arg == "--" {
			config.Command = args[i+3:]
			break
		}
		key, value, ok := strings.Cut(strings.TrimPrefix(arg, "annotation="), "=")
		if !ok || !strings.HasPrefix(arg, "annotation=") {
			ts.Fatalf("option %q: %v", arg, errUsage)
		}
		config.Annotations[key] = value
	}
	conn, err := dialContainerd()
	ts.Check(err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), criTimeout)
	defer cancel()
	err = createStart(ctx, ts, cri.NewRuntimeServiceClient(conn), c.pods[ts.Getenv(args[0])], config, args[0], args[1])
	if err != nil {
		_, _ = fmt.Fprintln(ts.Stderr(), err)
	}
	expect(ts, neg, err)
}

func createStart(ctx context.Context, ts *testscript.TestScript, service cri.RuntimeServiceClient, sandbox *cri.PodSandboxConfig, config *cri.ContainerConfig, pod, name string) error {
	if sandbox == nil {
		return errors.New("no pod of that name was run")
	}
	config.Metadata = &cri.ContainerMetadata{Name: name}
	config.Image = &cri.ImageSpec{Image: criImage + ":latest"}
	config.LogPath = name + ".log"
	config.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
		NamespaceOptions: namespaceOptions(sandbox.Linux.SecurityContext.NamespaceOptions.Network),
	}}
	r, err := service.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: ts.Getenv(pod), SandboxConfig: sandbox, Config: config})
	if err != nil {
		return err
	}
	ts.Setenv(name, r.ContainerId)
	_, err = service.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: r.ContainerId})
	return err
}
