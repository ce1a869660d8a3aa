// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"encoding/json"
	"strings"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/specs"
)

// keys are the annotations in which a caller itself writes who a container is.
// Only the keys of the caller that the installer named are read: under another
// caller the same keys are whatever the author of the container wrote.
type keys struct {
	container, pod, namespace, sandbox string
	images                             []string // the first that has a value counts
	kind                               string   // "container", or "sandbox" for what holds a pod's namespaces
}

// kindSandbox is a container that has neither a name nor an image of its own: what
// stands under these keys there came with the pod's annotations.
const kindSandbox = "sandbox"

var callerKeys = map[specs.Caller]keys{
	// containerd, internal/cri/annotations (pkg/cri/annotations before 2.0), the same
	// from 1.6 to 2.4. It writes them after the annotations of pod and container that
	// its configuration lets through, so that these can't change them.
	specs.CallerContainerd: {
		container: "io.kubernetes.cri.container-name",
		pod:       "io.kubernetes.cri.sandbox-name",
		namespace: "io.kubernetes.cri.sandbox-namespace",
		sandbox:   "io.kubernetes.cri.sandbox-id",
		images:    []string{"io.kubernetes.cri.image-name"},
		kind:      "io.kubernetes.cri.container-type",
	},
	// CRI-O, pkg/annotations, and the kubelet's labels, which it writes last of all.
	// The second key of the image is what the kubelet asked for, often an id.
	specs.CallerCRIO: {
		container: "io.kubernetes.container.name",
		pod:       "io.kubernetes.pod.name",
		namespace: "io.kubernetes.pod.namespace",
		sandbox:   "io.kubernetes.cri-o.SandboxID",
		images:    []string{"io.kubernetes.cri-o.ImageName", "io.kubernetes.cri-o.Image"},
		kind:      "io.kubernetes.cri-o.ContainerType",
	},
}

// identify says who a container is. Fields for which the caller has no keys stay empty.
func identify(caller specs.Caller, st *oci.State) specs.Identity {
	id := specs.Identity{Caller: caller, ContainerID: st.ID, Annotations: st.Annotations}
	k, ok := callerKeys[caller]
	if !ok || caller == specs.CallerCRIO && !madeByCRIO(st.Annotations) {
		return id
	}
	id.Container = st.Annotations[k.container]
	id.Pod = st.Annotations[k.pod]
	id.Namespace = st.Annotations[k.namespace]
	id.SandboxID = st.Annotations[k.sandbox]
	for _, key := range k.images {
		if id.Image == "" {
			id.Image = st.Annotations[key]
		}
	}
	if caller == specs.CallerCRIO {
		withoutLabels(&id, st.Annotations)
	}
	if st.Annotations[k.kind] == kindSandbox {
		id.Container, id.Image = "", ""
	}
	return id
}

// madeByCRIO is false for containers of podman, which may read the same directory of
// hooks as CRI-O, and then calls with CRI-O's arguments.
func madeByCRIO(annotations map[string]string) bool {
	manager, ok := annotations["io.container.manager"]
	return !ok || manager == "cri-o"
}

// withoutLabels prefers what CRI-O itself says of pod and container to the labels. The
// kubelet always sets those, other clients of the CRI may not: then the annotations of
// the pod, which come first in the state, would stand in their place.
func withoutLabels(id *specs.Identity, annotations map[string]string) {
	// server/naming.go and internal/lib/sandbox/builder.go: k8s_NAME_NAMESPACE_UID_ATTEMPT.
	// Names of Kubernetes have no "_".
	if parts := strings.Split(annotations["io.kubernetes.cri-o.SandboxName"], "_"); len(parts) == 5 && parts[0] == "k8s" {
		id.Pod, id.Namespace = parts[1], parts[2]
	}
	var metadata struct {
		Name string `json:"name"`
	}
	// Other words than CRI-O's are none.
	if err := json.Unmarshal([]byte(annotations["io.kubernetes.cri-o.Metadata"]), &metadata); err == nil && metadata.Name != "" {
		id.Container = metadata.Name
	}
}
