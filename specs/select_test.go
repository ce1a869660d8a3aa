// SPDX-License-Identifier: Apache-2.0

package specs_test

import (
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs"
)

// web is a container of a pod, as the hook of a CRI runtime knows it.
func web() specs.Identity {
	return specs.Identity{
		Caller: specs.CallerCRIO, ContainerID: "c1", Container: "nginx", Pod: "web-1",
		Namespace: "prod-eu", Annotations: map[string]string{"team": "shop/front", "blank": ""},
	}
}

func TestFieldsMatch(t *testing.T) {
	list := func(s ...string) []string { return s }
	for _, tc := range []struct {
		name   string
		fields specs.Fields
		want   bool
	}{
		{"nothing given", specs.Fields{}, false},
		{"all", specs.Fields{All: true}, true},
		{"namespace", specs.Fields{Namespaces: list("dev-*", "prod-*")}, true},
		{"other namespace", specs.Fields{Namespaces: list("dev-*")}, false},
		{"pod", specs.Fields{Pods: list("web-?")}, true},
		{"other pod", specs.Fields{Pods: list("db-?")}, false},
		{"container", specs.Fields{Containers: list("nginx")}, true},
		{"other container", specs.Fields{Containers: list("envoy")}, false},
		{"caller", specs.Fields{Callers: []specs.Caller{specs.CallerCRIO}}, true},
		{"other caller", specs.Fields{Callers: []specs.Caller{specs.CallerPodman}}, false},
		{"callers are no globs", specs.Fields{Callers: []specs.Caller{"*"}}, false},
		{"an unknown network matches no star", specs.Fields{Networks: list("*")}, false},
		{"all given must match", specs.Fields{Namespaces: list("prod-*"), Pods: list("db-*")}, false},
		{"and do", specs.Fields{Namespaces: list("prod-*"), Pods: list("web-*")}, true},
		{"all does not outweigh another field", specs.Fields{All: true, Pods: list("db-*")}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.fields.Match(web()); got != tc.want {
				t.Errorf("got %t", got)
			}
		})
	}
	if (specs.Fields{Callers: []specs.Caller{specs.CallerNone}}).Match(specs.Identity{}) {
		t.Error("an empty caller is not the caller none")
	}
	if !(specs.Fields{Networks: list("pod-*")}).Match(specs.Identity{Network: "pod-net"}) {
		t.Error("a network that is known does not match")
	}
}

func TestSelectMatch(t *testing.T) {
	prod := specs.Fields{Namespaces: []string{"prod-*"}}
	for _, tc := range []struct {
		name string
		sel  specs.Select
		want bool
	}{
		{"nothing given", specs.Select{}, false},
		{"exclude alone selects nothing", specs.Select{Exclude: &specs.Fields{Pods: []string{"db-*"}}}, false},
		{"fields", specs.Select{Fields: prod}, true},
		{"everybody may ask", specs.Select{OptIn: true}, true},
		{"who may ask", specs.Select{OptIn: true, Fields: prod}, true},
		{"who may not", specs.Select{OptIn: true, Fields: specs.Fields{Namespaces: []string{"dev"}}}, false},
		{"annotation, / is no separator", specs.Select{Annotations: map[string]string{"team": "shop*"}}, true},
		{"annotation with another value", specs.Select{Annotations: map[string]string{"team": "shop"}}, false},
		{"annotation that is missing", specs.Select{Annotations: map[string]string{"none": "*"}}, false},
		{"annotation that is blank", specs.Select{Annotations: map[string]string{"blank": ""}}, true},
		{"keys are no globs", specs.Select{Annotations: map[string]string{"te*": "*"}}, false},
		{"fields and annotations", specs.Select{Fields: prod, Annotations: map[string]string{"none": "*"}}, false},
		{"excluded", specs.Select{Fields: prod, Exclude: &specs.Fields{Pods: []string{"web-*"}}}, false},
		{"exclude another", specs.Select{Fields: prod, Exclude: &specs.Fields{Pods: []string{"db-*"}}}, true},
		{"exclude needs all its fields", specs.Select{Fields: prod, Exclude: &specs.Fields{Pods: []string{"web-*"}, Containers: []string{"envoy"}}}, true},
		{"exclude by what is unknown", specs.Select{Fields: prod, Exclude: &specs.Fields{Networks: []string{"*"}}}, true},
		{"empty exclude", specs.Select{Fields: prod, Exclude: &specs.Fields{}}, true},
		{"opt-in does not outweigh exclude", specs.Select{OptIn: true, Exclude: &specs.Fields{Pods: []string{"web-*"}}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.sel.Match(web()); got != tc.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestValidName(t *testing.T) {
	for _, s := range []string{"a", "0", "egress-web", strings.Repeat("a", 63)} {
		if !specs.ValidName(s) {
			t.Errorf("%q is refused", s)
		}
	}
	for _, s := range []string{"", "-a", "a-", "A", "a_b", "a.b", "a/b", "../a", "é", "a b", "a\x00", strings.Repeat("a", 64)} {
		if specs.ValidName(s) {
			t.Errorf("%q is accepted", s)
		}
	}
}
