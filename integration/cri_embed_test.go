// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"

	linkpin "github.com/linkpin/linkpin/hook/containerd"
)

// embedMain is a program that embeds containerd's client and asks for policies by
// our option, as hook/containerd documents it.
//
//	embed run NAME [OPTION…] [-- PROGRAM [ARGUMENT…]]     waits and prints the exit status
//	embed start NAME [OPTION…] [-- PROGRAM [ARGUMENT…]]   prints the pid
//	embed stop NAME                                       kills and removes it
//
// Options: policies=A,B (WithPolicies; any number of times), annotation=KEY=VALUE.
func embedMain() {
	if err := embed(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

func embed(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, "embed"), criTimeout)
	defer cancel()
	c, err := client.New(containerdSocket)
	if err != nil {
		return err
	}
	defer c.Close()
	switch name := args[1]; args[0] {
	case "run":
		return embedRun(ctx, c, name, args[2:])
	case "start":
		_, _, err = embedStart(ctx, c, name, args[2:])
		return err
	case "stop":
		container, err := c.LoadContainer(ctx, name)
		if err != nil {
			return err
		}
		task, err := container.Task(ctx, nil)
		if err != nil {
			return err
		}
		_, err = task.Delete(ctx, client.WithProcessKill)
		return errors.Join(err, container.Delete(ctx, client.WithSnapshotCleanup))
	}
	return errUsage
}

func embedRun(ctx context.Context, c *client.Client, name string, args []string) error {
	container, task, err := embedStart(ctx, c, name, args)
	if err != nil {
		return err
	}
	ended, err := task.Wait(ctx)
	if err != nil {
		return err
	}
	status := <-ended
	code, _, err := status.Result()
	fmt.Println("status", code)
	_, deleteErr := task.Delete(ctx)
	return errors.Join(err, deleteErr, container.Delete(ctx, client.WithSnapshotCleanup))
}

// embedStart starts a container. On error nothing of it is left in containerd.
func embedStart(ctx context.Context, c *client.Client, name string, args []string) (client.Container, client.Task, error) {
	opts, err := embedOptions(name, args)
	if err != nil {
		return nil, nil, err
	}
	image, err := c.GetImage(ctx, criImage+":latest")
	if err != nil {
		return nil, nil, err
	}
	container, err := c.NewContainer(ctx, name,
		client.WithImage(image),
		client.WithSnapshotter("overlayfs"),
		client.WithNewSnapshot(name, image),
		client.WithRuntime("io.containerd.runc.v2", &options.Options{BinaryName: "/run/cri/runtime"}),
		client.WithNewSpec(append([]oci.SpecOpts{oci.WithImageConfig(image)}, opts...)...))
	if err != nil {
		// An option failed; the snapshot was made by an earlier one.
		return nil, nil, errors.Join(err, c.SnapshotService("overlayfs").Remove(ctx, name))
	}
	task, err := container.NewTask(ctx, cio.NullIO)
	if err != nil {
		return nil, nil, errors.Join(err, container.Delete(ctx, client.WithSnapshotCleanup))
	}
	if err := task.Start(ctx); err != nil {
		return nil, nil, err
	}
	fmt.Println("pid", task.Pid())
	return container, task, nil
}

func embedOptions(name string, args []string) ([]oci.SpecOpts, error) {
	opts := []oci.SpecOpts{oci.WithCgroup(filepath.Join(os.Getenv("CGPARENT"), name))}
	ours := linkpin.Options{Hook: filepath.Join(os.Getenv("BIN"), "linkpin-hook")}
	for i, arg := range args {
		if arg == "--" {
			return append(opts, oci.WithProcessArgs(args[i+1:]...)), nil
		}
		option, value, _ := strings.Cut(arg, "=")
		switch option {
		case "policies":
			var names []string
			if value != "" {
				names = strings.Split(value, ",")
			}
			opts = append(opts, ours.WithPolicies(names...))
		case "annotation":
			key, text, _ := strings.Cut(value, "=")
			opts = append(opts, oci.WithAnnotations(map[string]string{key: text}))
		default:
			return nil, fmt.Errorf("option %q: %w", arg, errUsage)
		}
	}
	return opts, nil
}
