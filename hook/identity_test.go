// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"maps"
	"reflect"
	"testing"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// forged are all keys in which a CRI runtime says who a container is, as a
// container's or pod's author would write them.
var forged = map[string]string{
	"io.kubernetes.cri.container-type":        "sandbox",
	"io.kubernetes.cri.container-name":        "forged",
	"io.kubernetes.cri.sandbox-name":          "forged",
	"io.kubernetes.cri.sandbox-namespace":     "kube-system",
	"io.kubernetes.cri.sandbox-id":            "forged",
	"io.kubernetes.cri.sandbox-uid":           "forged",
	"io.kubernetes.cri.image-name":            "forged",
	"io.kubernetes.cri.podsandbox.image-name": "forged",
	"io.container.manager":                    "cri-o",
	"io.kubernetes.container.name":            "forged",
	"io.kubernetes.pod.name":                  "forged",
	"io.kubernetes.pod.namespace":             "kube-system",
	"io.kubernetes.pod.uid":                   "forged",
	"io.kubernetes.cri-o.ContainerID":         "forged",
	"io.kubernetes.cri-o.ContainerName":       "forged",
	"io.kubernetes.cri-o.ContainerType":       "sandbox",
	"io.kubernetes.cri-o.Image":               "forged",
	"io.kubernetes.cri-o.ImageName":           "forged",
	"io.kubernetes.cri-o.ImageRef":            "forged",
	"io.kubernetes.cri-o.KubeName":            "forged",
	"io.kubernetes.cri-o.Labels":              `{"io.kubernetes.pod.namespace": "kube-system"}`,
	"io.kubernetes.cri-o.Metadata":            `{"name": "forged"}`,
	"io.kubernetes.cri-o.Name":                "forged",
	"io.kubernetes.cri-o.Namespace":           "kube-system",
	"io.kubernetes.cri-o.SandboxID":           "forged",
	"io.kubernetes.cri-o.SandboxName":         "k8s_forged_kube-system_1_0",
}

// merged puts annotations together as a runtime does: the last one wins.
func merged(layers ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, l := range layers {
		maps.Copy(out, l)
	}
	return out
}

// What containerd writes into a container's spec, after the annotations that its
// configuration lets through (container_create_linux.go of 1.6,
// internal/cri/annotations of 2.x).
var containerdOwn = map[string]string{
	"io.kubernetes.cri.container-type":    "container",
	"io.kubernetes.cri.sandbox-id":        "4f",
	"io.kubernetes.cri.sandbox-namespace": "prod",
	"io.kubernetes.cri.sandbox-uid":       "u1",
	"io.kubernetes.cri.sandbox-name":      "web-1",
	"io.kubernetes.cri.container-name":    "app",
	"io.kubernetes.cri.image-name":        "registry.example/app:1",
}

// What CRI-O writes after the pod's annotations (internal/factory/container of
// 1.34), and the labels that the kubelet sets, after those.
var (
	crioOwn = map[string]string{
		"io.kubernetes.cri-o.Image":         "sha256:12ab",
		"io.kubernetes.cri-o.ImageName":     "registry.example/app:1",
		"io.kubernetes.cri-o.ImageRef":      "12ab",
		"io.kubernetes.cri-o.Name":          "k8s_app_web-1_prod_u1_0",
		"io.kubernetes.cri-o.ContainerID":   "web",
		"io.kubernetes.cri-o.SandboxID":     "4f",
		"io.kubernetes.cri-o.SandboxName":   "k8s_web-1_prod_u1_0",
		"io.kubernetes.cri-o.ContainerType": "container",
		"io.container.manager":              "cri-o",
		"io.kubernetes.cri-o.Metadata":      `{"name":"app"}`,
		"io.kubernetes.cri-o.Labels":        `{}`,
	}
	kubeletLabels = map[string]string{
		"io.kubernetes.container.name": "app",
		"io.kubernetes.pod.name":       "web-1",
		"io.kubernetes.pod.namespace":  "prod",
		"io.kubernetes.pod.uid":        "u1",
	}
)

func TestIdentify(t *testing.T) {
	pod := specs.Identity{
		ContainerID: "web", Container: "app", Pod: "web-1", Namespace: "prod", Image: "registry.example/app:1", SandboxID: "4f",
	}
	none := specs.Identity{ContainerID: "web"}
	infra := specs.Identity{ContainerID: "web", Pod: "web-1", Namespace: "prod", SandboxID: "4f"}
	unnamed := pod
	unnamed.Image = "sha256:12ab"
	for _, tc := range []struct {
		name        string
		caller      specs.Caller
		annotations map[string]string
		want        specs.Identity
	}{
		{"a bundle", specs.CallerNone, forged, none},
		{"podman run --annotation", specs.CallerPodman, merged(forged, map[string]string{"io.container.manager": "libpod"}), none},
		{"podman run --annotation, with the manager", specs.CallerPodman, forged, none},
		{"a device", specs.CallerCDI, forged, none},
		{"a device in CRI-O's pod", specs.CallerCDI, merged(forged, crioOwn, kubeletLabels), none},

		{"containerd", specs.CallerContainerd, containerdOwn, pod},
		{"containerd, forged by the pod", specs.CallerContainerd, merged(forged, containerdOwn), pod},
		{"containerd, CRI-O's keys", specs.CallerContainerd, merged(containerdOwn, crioOwn, kubeletLabels), pod},
		{"containerd, a sandbox", specs.CallerContainerd, merged(forged, containerdOwn, map[string]string{
			"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.container-name": "forged", "io.kubernetes.cri.image-name": "forged",
		}), infra},
		{"containerd, nothing", specs.CallerContainerd, nil, none},

		{"CRI-O", specs.CallerCRIO, merged(crioOwn, kubeletLabels), pod},
		{"CRI-O, forged by the pod", specs.CallerCRIO, merged(forged, crioOwn, kubeletLabels), pod},
		{"CRI-O, a client without labels", specs.CallerCRIO, merged(forged, crioOwn), pod},
		{"CRI-O, containerd's keys", specs.CallerCRIO, merged(crioOwn, kubeletLabels, containerdOwn), pod},
		{"CRI-O, an image without a name", specs.CallerCRIO, merged(crioOwn, kubeletLabels, map[string]string{"io.kubernetes.cri-o.ImageName": ""}), unnamed},
		{"CRI-O, an old one without a manager", specs.CallerCRIO, func() map[string]string {
			m := merged(crioOwn, kubeletLabels)
			delete(m, "io.container.manager")
			return m
		}(), pod},
		{"CRI-O, a sandbox", specs.CallerCRIO, merged(crioOwn, kubeletLabels, map[string]string{"io.kubernetes.cri-o.ContainerType": "sandbox"}), infra},
		{"CRI-O, names with underscores", specs.CallerCRIO, merged(crioOwn, kubeletLabels, map[string]string{
			"io.kubernetes.cri-o.SandboxName": "k8s_a_b_prod_u1_0", "io.kubernetes.cri-o.Metadata": "[]",
		}), pod},
		{"podman in CRI-O's directory", specs.CallerCRIO, merged(forged, map[string]string{"io.container.manager": "libpod"}), none},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.want.Caller, tc.want.Annotations = tc.caller, tc.annotations
			if got := identify(tc.caller, &oci.State{ID: "web", Annotations: tc.annotations}); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

// What is forged selects nothing and is recorded nowhere.
func TestForgedKeys(t *testing.T) {
	for _, caller := range []specs.Caller{specs.CallerNone, specs.CallerPodman, specs.CallerCDI} {
		t.Run(string(caller), func(t *testing.T) {
			system := policy{name: "system", sel: specs.Select{Fields: specs.Fields{Namespaces: []string{"kube-*"}}}, onError: specs.Deny, programs: []specs.Attachment{connect}}
			n := newNode(t)
			except := deny("except", connect)
			except.sel.Exclude = &specs.Fields{Namespaces: []string{"kube-system"}}
			n.apply(deny("all", connect), system, except)
			n.hook.Caller = caller
			c := newContainer(t, "web", "")
			c.state["annotations"] = forged
			n.must(CreateRuntime, c)
			live, _ := n.items()
			var got []string
			for _, it := range live {
				got = append(got, it.Place.Policy())
				id := it.Record.Identity
				if id.Pod+id.Namespace+id.Container+id.Image+id.SandboxID != "" || it.Place.Kind() != pin.ContainerPlace {
					t.Errorf("%s: %+v", it.Place, id)
				}
			}
			if want := []string{"all", "except"}; !reflect.DeepEqual(got, want) {
				t.Errorf("policies %v, want %v", got, want)
			}
		})
	}
}
