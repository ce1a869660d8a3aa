// SPDX-License-Identifier: Apache-2.0

package hook

import (
	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/specs"
)

// keys are the annotations in which a caller itself writes who a container is.
// Only the keys of the caller that the installer named are read: under another
// caller the same keys are whatever the author of the container wrote.
type keys struct {
	container, pod, namespace, image, sandbox string
}

var callerKeys = map[specs.Caller]keys{
	// containerd, internal/cri/annotations (pkg/cri/annotations before 2.0).
	specs.CallerContainerd: {
		container: "io.kubernetes.cri.container-name",
		pod:       "io.kubernetes.cri.sandbox-name",
		namespace: "io.kubernetes.cri.sandbox-namespace",
		image:     "io.kubernetes.cri.image-name",
		sandbox:   "io.kubernetes.cri.sandbox-id",
	},
	// CRI-O, pkg/annotations, and the kubelet's labels that it copies.
	specs.CallerCRIO: {
		container: "io.kubernetes.container.name",
		pod:       "io.kubernetes.pod.name",
		namespace: "io.kubernetes.pod.namespace",
		image:     "io.kubernetes.cri-o.ImageName",
		sandbox:   "io.kubernetes.cri-o.SandboxID",
	},
}

// identify says who a container is. Fields for which the caller has no keys stay empty.
func identify(caller specs.Caller, st *oci.State) specs.Identity {
	k := callerKeys[caller]
	get := func(key string) string {
		if key == "" {
			return ""
		}
		return st.Annotations[key]
	}
	return specs.Identity{
		Caller:      caller,
		ContainerID: st.ID,
		Container:   get(k.container),
		Pod:         get(k.pod),
		Namespace:   get(k.namespace),
		Image:       get(k.image),
		SandboxID:   get(k.sandbox),
		Annotations: st.Annotations,
	}
}
