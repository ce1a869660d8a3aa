// SPDX-License-Identifier: Apache-2.0

package specs

// Caller is the program that made a runtime call linkpin. The installer writes
// it into the hook's arguments; it is never guessed.
type Caller string

// The callers that linkpin knows.
const (
	CallerNone       Caller = "none" // plain runc or crun, or nothing was said
	CallerPodman     Caller = "podman"
	CallerCRIO       Caller = "crio"
	CallerContainerd Caller = "containerd"
	CallerCDI        Caller = "cdi"
)

// Callers lists every valid Caller.
var Callers = []Caller{CallerNone, CallerPodman, CallerCRIO, CallerContainerd, CallerCDI}

// HasPods reports whether a caller says which pod a container belongs to. Under the
// others such words are those of the container's author.
func (c Caller) HasPods() bool { return c == CallerCRIO || c == CallerContainerd }

// OptInAnnotation asks for policies that are marked optIn: names, separated by
// commas or spaces.
const OptInAnnotation = "linkpin.io/policies"

// Identity is what linkpin knows of a container or of an interface that is being
// added to a sandbox. A field that the caller can't vouch for is empty, and an
// empty field matches no selector.
type Identity struct {
	Caller      Caller            `json:"caller"`
	ContainerID string            `json:"containerId"`           // OCI id, or CNI_CONTAINERID
	Container   string            `json:"container,omitempty"`   // name of the container inside its pod
	Pod         string            `json:"pod,omitempty"`         // name of the pod
	Namespace   string            `json:"namespace,omitempty"`   // namespace of the pod
	Image       string            `json:"image,omitempty"`       // image name as the caller gives it
	SandboxID   string            `json:"sandboxId,omitempty"`   // CRI sandbox id
	Network     string            `json:"network,omitempty"`     // CNI network name; empty in the OCI hook
	Annotations map[string]string `json:"annotations,omitempty"` // of the container (hook) or the pod (CNI)
	// Requests are the policies that the hook's own arguments name, as a CDI device
	// does. Such a call is about them and nothing else.
	Requests []string `json:"requests,omitempty"`
}
