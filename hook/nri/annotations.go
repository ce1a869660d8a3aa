// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/nri/pkg/api"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// annotations returns what the container's annotations must get from its pod: the
// state that the hook reads has, with containerd, only those that pod_annotations
// and container_annotations of a runtime handler let through.
//
// They are linkpin.io/policies, with the names that the pod asks for and those that
// the container asks for, and every key by which an applied policy selects, where
// the container's own value wins. This forges nothing: annotations of the pod are
// its author's in the state as well as here, they choose among policies and never
// take one away, and keys in which the runtime itself says who a container is are
// not touched.
func (p *Plugin) annotations(pod *api.PodSandbox, c *api.Container) (map[string]string, error) {
	keys, err := p.selected()
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	if names := union(pod.GetAnnotations()[specs.OptInAnnotation], c.GetAnnotations()[specs.OptInAnnotation]); names != "" {
		out[specs.OptInAnnotation] = names
	}
	for key, policy := range keys {
		value, found := c.GetAnnotations()[key]
		if !found {
			value, found = pod.GetAnnotations()[key]
		}
		switch {
		case !found || key == specs.OptInAnnotation:
		case !obeyed(key):
			// Also if the container has it: containerd shows annotations here that its
			// allow-lists keep out of the state.
			out[key] = value
		case c.GetAnnotations()[key] != value:
			return nil, fault.New("policy "+policy, fmt.Errorf("selects by %s of the pod, which %w", key, ErrAnnotation),
				"select by another annotation")
		}
	}
	return out, nil
}

// selected returns the keys of annotations by which policies select, each with the
// name of one such policy. Without an intact set there are none: then the hook
// refuses the container, or lets it pass as the node's owner has said.
func (p *Plugin) selected() (map[string]string, error) {
	set, err := applied.Open(p.Applied)
	if errors.Is(err, applied.ErrMissing) || errors.Is(err, applied.ErrDamaged) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer set.Close()
	keys := map[string]string{}
	for _, policy := range set.Policies() {
		for key := range policy.Select.Annotations {
			keys[key] = policy.Name
		}
	}
	return keys, nil
}

// obey are beginnings of keys that runtimes and their managers act on or vouch for.
// An author of a pod who could set them in a container's specification would
// command the runtime: runc obeys org.systemd.property.*, crun run.oci.*. The
// allow-lists of containerd are there to prevent it.
var obey = []string{
	"cdi.k8s.io/", "com.github.containers.", "dev.gvisor.", "io.container.", "io.containerd.", "io.katacontainers.",
	"io.kubernetes.", "io.microsoft.", "io.podman.", "module.wasm.image/", "org.criu.", "org.opencontainers.",
	"org.systemd.", "run.oci.",
}

func obeyed(key string) bool {
	return slices.ContainsFunc(obey, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// union returns the names in both lists, each once. It does not judge them: the
// hook does.
func union(lists ...string) string {
	var names []string
	for _, list := range lists {
		if strings.TrimSpace(list) == "" {
			continue
		}
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.TrimSpace(name); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return strings.Join(names, ",")
}
