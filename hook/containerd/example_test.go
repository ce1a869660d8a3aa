// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/linkpin/linkpin/hook/containerd"
)

// A program gives the option wherever it gives others: in client.WithNewSpec, as
// in
//
//	container, err := c.NewContainer(ctx, "web",
//		client.WithNewSnapshot("web", image),
//		client.WithNewSpec(oci.WithImageConfig(image), containerd.WithPolicies("egress-web")))
//
// or, as here, in oci.GenerateSpec.
func ExampleWithPolicies() {
	ctx := namespaces.WithNamespace(context.Background(), "example")
	spec, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: "web"},
		oci.WithProcessArgs("/bin/server"),
		containerd.WithPolicies("egress-web", "meter"),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(spec.Annotations)
	for _, hook := range append(spec.Hooks.CreateRuntime, spec.Hooks.Poststop...) {
		fmt.Println(hook.Path, hook.Args[1:], "timeout", *hook.Timeout)
	}
	// Output:
	// map[linkpin.io/policies:egress-web,meter]
	// /usr/local/bin/linkpin-hook [createRuntime --caller none] timeout 60
	// /usr/local/bin/linkpin-hook [poststop --caller none] timeout 60
}

// linkpin-hook from a package that installs to /usr, with more time on a node that
// starts many containers at once.
func ExampleOptions_WithPolicies() {
	linkpin := containerd.Options{Hook: "/usr/bin/linkpin-hook", Timeout: 2 * time.Minute}

	ctx := namespaces.WithNamespace(context.Background(), "example")
	spec, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: "web"}, linkpin.WithPolicies("meter"))
	if err != nil {
		fmt.Println(err)
		return
	}
	hook := spec.Hooks.CreateRuntime[0]
	fmt.Println(hook.Path, "timeout", *hook.Timeout)
	// Output: /usr/bin/linkpin-hook timeout 120
}
