// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// errForged means annotations that CRI-O can't have written together.
var errForged = errors.New("its annotations contradict each other about who it is")

// keys are the annotations in which a caller itself writes who a container is.
// Only the keys of the caller that the installer named are read: under another
// caller the same keys are whatever the author of the container wrote.
type keys struct {
	container, pod, namespace, sandbox string
	images                             []string // the first that has a value counts
	kind                               string   // "container", or "sandbox" for what holds a pod's namespaces; may be empty
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
	// CRI-O, pkg/annotations, and the kubelet's labels; see crioIdentity. The second
	// key of the image is what the kubelet asked for, often an id. There is no kind:
	// CRI-O calls no hooks for what holds a pod's namespaces.
	specs.CallerCRIO: {
		container: "io.kubernetes.container.name",
		pod:       "io.kubernetes.pod.name",
		namespace: "io.kubernetes.pod.namespace",
		sandbox:   "io.kubernetes.cri-o.SandboxID",
		images:    []string{"io.kubernetes.cri-o.ImageName", "io.kubernetes.cri-o.Image"},
	},
}

// The keys in which CRI-O names pod and container besides the labels, and the one in
// which it and podman name themselves.
const (
	crioSandboxName = "io.kubernetes.cri-o.SandboxName"
	crioName        = "io.kubernetes.cri-o.Name"
	crioMetadata    = "io.kubernetes.cri-o.Metadata"

	managerKey    = "io.container.manager"
	managerPodman = "libpod"
)

// identify says who a container is. Fields for which the caller has no keys stay
// empty. The error is a *fault.Error: somebody has forged what the caller's keys say.
func identify(caller specs.Caller, st *oci.State) (specs.Identity, error) {
	id := specs.Identity{Caller: caller, ContainerID: st.ID, Annotations: st.Annotations}
	k, ok := callerKeys[caller]
	if !ok {
		return id, nil
	}
	if caller == specs.CallerCRIO && st.Annotations[managerKey] == managerPodman {
		return id, plainPodman(k, st)
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
		if err := crioIdentity(&id, k, st); err != nil {
			return specs.Identity{}, err
		}
	}
	if k.kind != "" && st.Annotations[k.kind] == kindSandbox {
		id.Container, id.Image = "", ""
	}
	return id, nil
}

// plainPodman refuses a container that says it is podman's and has keys that podman
// does not write: podman may read the same directory of hooks as CRI-O, and then
// calls with CRI-O's arguments, but a container of CRI-O could say so as well. podman
// writes io.kubernetes.cri-o.SandboxID and …TTY itself.
func plainPodman(k keys, st *oci.State) error {
	for _, key := range slices.Concat([]string{k.namespace, k.pod, k.container, crioSandboxName, crioName, crioMetadata}, k.images) {
		if _, ok := st.Annotations[key]; ok {
			return fault.New("container "+st.ID, fmt.Errorf("%w: %s is %s, and podman does not write %s", errForged, managerKey, managerPodman, key),
				"if it is podman's, give podman a directory of hooks of its own (`linkpin install podman`); if it is CRI-O's, take out "+managerKey+" where its annotations come from")
		}
	}
	return nil
}

// crioIdentity fills in from CRI-O's own keys what the labels do not say, and refuses
// a container about which they do not agree.
//
// CRI-O writes the annotations of the pod, its own keys, the annotations of the
// container, and last of all the labels (SpecAddAnnotations in
// internal/factory/container of 1.34). Whoever picks the image may have written the
// container's annotations, namely those of a checkpoint (server/container_restore.go),
// so they can change CRI-O's keys, though not the labels that the kubelet sets (versions
// that take labels from a checkpoint as well can't be helped here). Other clients of
// the CRI may set none: then any annotation may stand there.
func crioIdentity(id *specs.Identity, k keys, st *oci.State) error {
	from := map[*string]string{&id.Namespace: k.namespace, &id.Pod: k.pod, &id.Container: k.container}
	agree := func(what string, field *string, key, value string) error {
		switch *field {
		case value:
		case "":
			*field, from[field] = value, key
		default:
			return fault.New("container "+st.ID, fmt.Errorf("%w: %s is %.64q by %s and %.64q by %s", errForged, what, *field, from[field], value, key),
				"somebody has forged one of them: start it without the annotation, or from another image if it is a checkpoint")
		}
		return nil
	}
	// server/naming.go, internal/lib/sandbox/builder.go, internal/factory/container.
	// Names of Kubernetes have no "_"; what has more parts can't be told apart.
	var errs []error
	if p := strings.Split(st.Annotations[crioSandboxName], "_"); len(p) == 5 && p[0] == "k8s" { // k8s_POD_NAMESPACE_UID_ATTEMPT
		errs = append(errs, agree("the namespace", &id.Namespace, crioSandboxName, p[2]), agree("the pod", &id.Pod, crioSandboxName, p[1]))
	}
	if p := strings.Split(st.Annotations[crioName], "_"); len(p) == 6 && p[0] == "k8s" { // k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT
		errs = append(errs, agree("the namespace", &id.Namespace, crioName, p[3]), agree("the pod", &id.Pod, crioName, p[2]),
			agree("the container", &id.Container, crioName, p[1]))
	}
	var metadata struct {
		Name string `json:"name"`
	}
	// Other words than CRI-O's are none.
	if err := json.Unmarshal([]byte(st.Annotations[crioMetadata]), &metadata); err == nil && metadata.Name != "" {
		errs = append(errs, agree("the container", &id.Container, crioMetadata, metadata.Name))
	}
	for _, err := range errs {
		if err != nil {
			return err // the first will do, on one line
		}
	}
	return nil
}
