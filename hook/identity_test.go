// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
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

// without returns annotations that lack some keys.
func without(annotations map[string]string, keys ...string) map[string]string {
	out := maps.Clone(annotations)
	for _, key := range keys {
		delete(out, key)
	}
	return out
}

func one(key, value string) map[string]string { return map[string]string{key: value} }

func TestIdentify(t *testing.T) {
	pod := specs.Identity{
		ContainerID: "web", Container: "app", Pod: "web-1", Namespace: "prod", Image: "registry.example/app:1", SandboxID: "4f",
	}
	none := specs.Identity{ContainerID: "web"}
	infra := specs.Identity{ContainerID: "web", Pod: "web-1", Namespace: "prod", SandboxID: "4f"}
	unnamed := pod
	unnamed.Image = "sha256:12ab"
	labelled := without(kubeletLabels, "io.kubernetes.pod.uid")
	nobody := specs.Identity{ContainerID: "web", Image: pod.Image, SandboxID: "4f"}
	for _, tc := range []struct {
		name        string
		caller      specs.Caller
		annotations map[string]string
		want        specs.Identity
	}{
		{"a bundle", specs.CallerNone, forged, none},
		{"podman run --annotation", specs.CallerPodman, merged(forged, one("io.container.manager", "libpod")), none},
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
		{"CRI-O, a client without labels", specs.CallerCRIO, crioOwn, pod},
		{"CRI-O, a client without labels, empty ones by the pod", specs.CallerCRIO, merged(map[string]string{
			"io.kubernetes.pod.namespace": "", "io.kubernetes.pod.name": "", "io.kubernetes.container.name": "",
		}, crioOwn), pod},
		{"CRI-O, without labels and the sandbox's name", specs.CallerCRIO, without(crioOwn, "io.kubernetes.cri-o.SandboxName"), pod},
		{"CRI-O, without labels and Name", specs.CallerCRIO, without(crioOwn, "io.kubernetes.cri-o.Name"), pod},
		{"CRI-O, without labels, names with underscores", specs.CallerCRIO, merged(crioOwn, map[string]string{
			"io.kubernetes.cri-o.SandboxName": "k8s_web_1_prod_u1_0", "io.kubernetes.cri-o.Name": "k8s_app_web_1_prod_u1_0", "io.kubernetes.cri-o.Metadata": "[]",
		}), nobody},
		{"CRI-O, containerd's keys", specs.CallerCRIO, merged(crioOwn, kubeletLabels, containerdOwn), pod},
		{"CRI-O, an image without a name", specs.CallerCRIO, merged(crioOwn, kubeletLabels, one("io.kubernetes.cri-o.ImageName", "")), unnamed},
		{"CRI-O, an old one without a manager", specs.CallerCRIO, merged(without(crioOwn, "io.container.manager"), kubeletLabels), pod},
		// The labels alone, whatever the container's annotations made of the rest.
		{"CRI-O, another manager", specs.CallerCRIO, merged(crioOwn, one("io.container.manager", "forged"), kubeletLabels), pod},
		{"CRI-O, no manager", specs.CallerCRIO, merged(crioOwn, one("io.container.manager", ""), kubeletLabels), pod},
		{"CRI-O, says that it is a sandbox", specs.CallerCRIO, merged(crioOwn, one("io.kubernetes.cri-o.ContainerType", "sandbox"), kubeletLabels), pod},
		{"CRI-O, own keys that tell nothing", specs.CallerCRIO, merged(crioOwn, map[string]string{
			"io.kubernetes.cri-o.SandboxName": "k8s_a_b_test_u1_0", "io.kubernetes.cri-o.Name": "test", "io.kubernetes.cri-o.Metadata": `{"name":`,
		}, kubeletLabels), pod},
		{"CRI-O, labels only", specs.CallerCRIO, labelled, specs.Identity{ContainerID: "web", Container: "app", Pod: "web-1", Namespace: "prod"}},
		{"podman in CRI-O's directory", specs.CallerCRIO, map[string]string{
			"io.container.manager": "libpod", "io.kubernetes.cri-o.TTY": "false", "io.kubernetes.cri-o.SandboxID": "4f", "io.kubernetes.cri-o.ContainerType": "container",
		}, none},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.want.Caller, tc.want.Annotations = tc.caller, tc.annotations
			got, err := identify(tc.caller, &oci.State{ID: "web", Annotations: tc.annotations})
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, tc.want)
			}
		})
	}
}

// What annotations of a container, which under CRI-O may come from a checkpoint
// image, make of CRI-O's own keys. Each of these once took the container out of the
// policies of its namespace.
var crioForgeries = map[string]map[string]string{
	"io.container.manager":                                 {"io.container.manager": "libpod"},
	"io.kubernetes.cri-o.SandboxName":                      {"io.kubernetes.cri-o.SandboxName": "k8s_web-1_test_u1_0"},
	"io.kubernetes.cri-o.SandboxName, of another pod":      {"io.kubernetes.cri-o.SandboxName": "k8s_web-2_prod_u1_0"},
	"io.kubernetes.cri-o.SandboxName, with nothing":        {"io.kubernetes.cri-o.SandboxName": "k8s____"},
	"io.kubernetes.cri-o.Metadata":                         {"io.kubernetes.cri-o.Metadata": `{"name":"forged"}`},
	"io.kubernetes.cri-o.Name":                             {"io.kubernetes.cri-o.Name": "k8s_app_web-1_test_u1_0"},
	"io.kubernetes.cri-o.Name, of another container":       {"io.kubernetes.cri-o.Name": "k8s_forged_web-1_prod_u1_0"},
	"io.kubernetes.cri-o.SandboxName, and all else agrees": merged(forged, map[string]string{"io.kubernetes.cri-o.Name": "k8s_forged_forged_kube-system_1_0"}),
}

func TestForgedForCRIO(t *testing.T) {
	refused := func(t *testing.T, annotations map[string]string, keys ...string) {
		t.Helper()
		_, err := identify(specs.CallerCRIO, &oci.State{ID: "web", Annotations: annotations})
		var f *fault.Error
		if !errors.As(err, &f) || !errors.Is(err, errForged) || f.Object != "container web" || f.Remedy == "" {
			t.Fatalf("got %v", err)
		}
		for _, key := range keys {
			if !strings.Contains(err.Error(), key) {
				t.Errorf("%q does not say %s", err, key)
			}
		}
	}
	for name, forgery := range crioForgeries {
		key, _, _ := strings.Cut(name, ",")
		t.Run(name, func(t *testing.T) {
			refused(t, merged(crioOwn, forgery, kubeletLabels), key)
		})
	}
	// Without labels CRI-O's own keys must agree with each other, and with what stands
	// in the place of the labels.
	for _, key := range []string{"io.kubernetes.pod.namespace", "io.kubernetes.pod.name", "io.kubernetes.container.name"} {
		t.Run("without labels, "+key, func(t *testing.T) { refused(t, merged(crioOwn, one(key, "forged")), key) })
	}
	t.Run("without labels, Name", func(t *testing.T) {
		refused(t, merged(crioOwn, one("io.kubernetes.cri-o.SandboxName", "k8s_a_test_b_0")), "io.kubernetes.cri-o.Name", "io.kubernetes.cri-o.SandboxName")
	})
	// podman does not write one of these, CRI-O or the kubelet always write all.
	for key, value := range without(merged(crioOwn, kubeletLabels), "io.container.manager", "io.kubernetes.cri-o.SandboxID",
		"io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.ImageRef", "io.kubernetes.cri-o.ContainerID", "io.kubernetes.cri-o.Labels", "io.kubernetes.pod.uid") {
		t.Run("libpod and "+key, func(t *testing.T) {
			refused(t, map[string]string{"io.container.manager": "libpod", key: value}, key, "linkpin install podman")
			refused(t, map[string]string{"io.container.manager": "libpod", key: ""}, key)
		})
	}
}

// Whatever a container's annotations say, it does not start uncovered: it is refused,
// or it has the policy of the namespace that the kubelet names.
func TestForgedStartsNotUncovered(t *testing.T) {
	forgeries := map[string]map[string]string{
		"type":          one("io.kubernetes.cri-o.ContainerType", "sandbox"),
		"other manager": one("io.container.manager", "forged"),
		"no names": {
			"io.kubernetes.cri-o.SandboxName": "", "io.kubernetes.cri-o.Name": "", "io.kubernetes.cri-o.Metadata": "", "io.container.manager": "",
		},
		"labels": {"io.kubernetes.pod.namespace": "test", "io.kubernetes.pod.name": "", "io.kubernetes.container.name": "forged"},
	}
	maps.Copy(forgeries, crioForgeries)
	covered := map[string]bool{"type": true, "other manager": true, "no names": true, "labels": true}
	for name, forgery := range forgeries {
		t.Run(name, func(t *testing.T) {
			prod := deny("prod", connect)
			prod.sel = specs.Select{Fields: specs.Fields{Namespaces: []string{"prod"}, Containers: []string{"app"}}}
			n := newNode(t, prod)
			n.hook.Caller = specs.CallerCRIO
			c := newContainer(t, "web", "")
			c.state["annotations"] = merged(crioOwn, forgery, kubeletLabels)
			err := n.create(c)
			if !covered[name] {
				if !errors.Is(err, errForged) {
					t.Errorf("got %v", err)
				}
				n.wantNothing()
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			n.wantEntries(1)
			c.wantPrograms(t, 1, 0)
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
