// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criTimeout bounds a call; starting a pod with a busy machine takes a second.
const criTimeout = 90 * time.Second

// criOptions are what scripts change in pods and containers.
type criOptions struct {
	annotations map[string]string
	namespace   string // of a pod; "default" if not given
	handler     string // of a pod: a runtime of config.toml; "linkpin" if not given
	network     cri.NamespaceMode
	attempt     uint32
	args        []string // after "--"; what the image says if there are none
}

// criClient does what a kubelet does, for one script.
type criClient struct {
	cri.RuntimeServiceClient
	parent string // cgroup of all pods
	// pods are the configurations of what was run, by id: a kubelet keeps them, too.
	pods map[string]*cri.PodSandboxConfig
}

type criKey struct{}

// cmdCRI is a kubelet by hand; README.md lists the verbs. What the daemon answers
// to a refused call is there for `stderr`, as `kubectl describe` would show it.
func cmdCRI(ts *testscript.TestScript, neg bool, args []string) {
	c, ok := ts.Value(criKey{}).(*criClient)
	if !ok || len(args) == 0 {
		ts.Fatalf("usage: cri VERB …")
	}
	conn, err := dialContainerd()
	ts.Check(err)
	defer conn.Close()
	c.RuntimeServiceClient = cri.NewRuntimeServiceClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), criTimeout)
	defer cancel()

	out, err := c.do(ctx, ts, args[0], args[1:])
	if errors.Is(err, errUsage) {
		ts.Fatalf("cri %s: %v", strings.Join(args, " "), err)
	}
	_, _ = fmt.Fprint(ts.Stdout(), out) // into memory
	if err != nil {
		_, _ = fmt.Fprintln(ts.Stderr(), err)
	}
	expect(ts, neg, err)
}

// dialContainerd connects to the machine's containerd. The caller must Close the
// connection, and must have entered the machine: the threads of gRPC have not.
func dialContainerd() (*grpc.ClientConn, error) {
	socket, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: containerdSocket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///containerd",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return socket, nil }))
}

// do calls one verb and returns what it prints.
func (c *criClient) do(ctx context.Context, ts *testscript.TestScript, verb string, args []string) (string, error) {
	switch verb {
	case "pods", "ps":
		return c.list(ctx, verb)
	case "status":
		return c.status(ctx)
	}
	if len(args) == 0 {
		return "", errUsage
	}
	// Names of pods and containers stand for the ids that they got.
	name := args[0]
	id := ts.Getenv(name)
	var err error
	switch verb {
	case "runp":
		return c.runPod(ctx, ts, name, args[1:])
	case "create", "run":
		if len(args) < 2 {
			return "", errUsage
		}
		if err = c.create(ctx, ts, id, args[1], args[2:]); err == nil && verb == "run" {
			_, err = c.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: ts.Getenv(args[1])})
		}
	case "start":
		_, err = c.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: id})
	case "stop":
		_, err = c.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id, Timeout: 5})
	case "rm":
		_, err = c.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id})
	case "stopp":
		_, err = c.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
	case "rmp":
		_, err = c.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	case "exec":
		return c.exec(ctx, id, args[1:])
	case "wait":
		return c.wait(ctx, id)
	default:
		return "", errUsage
	}
	return "", err
}

func (c *criClient) runPod(ctx context.Context, ts *testscript.TestScript, name string, args []string) (string, error) {
	o, err := parseCRI(ts, args)
	if err != nil {
		return "", err
	}
	config := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Uid: name + "-uid", Namespace: o.namespace, Attempt: o.attempt},
		LogDirectory: filepath.Join("/run/pods", name),
		Annotations:  o.annotations,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    c.parent,
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: namespaceOptions(o.network)},
		},
	}
	if o.network == cri.NamespaceMode_POD {
		config.Hostname = name
	}
	r, err := c.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: o.handler})
	if err != nil {
		return "", err
	}
	c.pods[r.PodSandboxId] = config
	ts.Setenv(name, r.PodSandboxId)
	return r.PodSandboxId + "\n", nil
}

func (c *criClient) create(ctx context.Context, ts *testscript.TestScript, pod, name string, args []string) error {
	o, err := parseCRI(ts, args)
	if err != nil {
		return err
	}
	sandbox := c.pods[pod]
	if sandbox == nil {
		return fmt.Errorf("no pod of that name was run: %w", errUsage)
	}
	r, err := c.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId:  pod,
		SandboxConfig: sandbox,
		Config: &cri.ContainerConfig{
			Metadata:    &cri.ContainerMetadata{Name: name, Attempt: o.attempt},
			Image:       &cri.ImageSpec{Image: criImage + ":latest"},
			Command:     o.args,
			Annotations: o.annotations,
			LogPath:     fmt.Sprintf("%s_%d.log", name, o.attempt),
			Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: namespaceOptions(sandbox.Linux.SecurityContext.NamespaceOptions.Network),
			}},
		},
	})
	if err != nil {
		return err
	}
	ts.Setenv(name, r.ContainerId)
	return nil
}

// namespaceOptions are a kubelet's defaults: containers of a pod share all but
// their processes.
func namespaceOptions(network cri.NamespaceMode) *cri.NamespaceOption {
	return &cri.NamespaceOption{Network: network, Ipc: cri.NamespaceMode_POD, Pid: cri.NamespaceMode_CONTAINER}
}

// exec runs a program in a container; its failure is an error.
func (c *criClient) exec(ctx context.Context, id string, args []string) (string, error) {
	r, err := c.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: args, Timeout: 20})
	if err != nil {
		return "", err
	}
	out := string(r.Stdout) + string(r.Stderr)
	if r.ExitCode != 0 {
		return out, fmt.Errorf("exit status %d", r.ExitCode)
	}
	return out, nil
}

// wait waits for a container's end and prints its exit code.
func (c *criClient) wait(ctx context.Context, id string) (string, error) {
	for {
		r, err := c.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			return "", err
		}
		if r.Status.State == cri.ContainerState_CONTAINER_EXITED {
			return fmt.Sprintln(r.Status.ExitCode), nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// list prints the name and state of every pod or container, one a line.
func (c *criClient) list(ctx context.Context, what string) (string, error) {
	var out strings.Builder
	if what == "pods" {
		r, err := c.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
		for _, p := range r.GetItems() {
			fmt.Fprintf(&out, "%s %s\n", p.Metadata.Name, p.State)
		}
		return out.String(), err
	}
	r, err := c.ListContainers(ctx, &cri.ListContainersRequest{})
	for _, p := range r.GetContainers() {
		fmt.Fprintf(&out, "%s %d %s\n", p.Metadata.Name, p.Metadata.Attempt, p.State)
	}
	return out.String(), err
}

// status prints what a kubelet makes its node's conditions of, one a line.
func (c *criClient) status(ctx context.Context) (string, error) {
	r, err := c.Status(ctx, &cri.StatusRequest{})
	var out strings.Builder
	for _, s := range r.GetStatus().GetConditions() {
		fmt.Fprintf(&out, "%s=%t %s\n", s.Type, s.Status, s.Message)
	}
	return out.String(), err
}

func parseCRI(ts *testscript.TestScript, args []string) (criOptions, error) {
	o := criOptions{annotations: map[string]string{}, namespace: "default", handler: "linkpin"}
	for i, arg := range args {
		if arg == "--" {
			o.args = args[i+1:]
			break
		}
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "annotation":
			key, text, ok := strings.Cut(value, "=")
			if !ok {
				return o, fmt.Errorf("option %q: %w", arg, errUsage)
			}
			// What no line of a script can hold comes from a file.
			if file, ok := strings.CutPrefix(text, "<"); ok {
				text = ts.ReadFile(file)
			}
			o.annotations[key] = text
		case "namespace":
			o.namespace = value
		case "handler":
			o.handler = value
		case "network":
			if value != "host" {
				return o, fmt.Errorf("option %q: %w", arg, errUsage)
			}
			o.network = cri.NamespaceMode_NODE
		case "attempt":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return o, fmt.Errorf("option %q: %w", arg, errUsage)
			}
			o.attempt = uint32(n)
		default:
			return o, fmt.Errorf("option %q: %w", arg, errUsage)
		}
	}
	return o, nil
}
