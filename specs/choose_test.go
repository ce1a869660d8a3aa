// SPDX-License-Identifier: Apache-2.0

package specs_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

func names(candidates []specs.Candidate) []string {
	var out []string
	for _, c := range candidates {
		out = append(out, c.Name)
	}
	return out
}

func candidates() []specs.Candidate {
	prod := specs.Fields{Namespaces: []string{"prod-*"}}
	return []specs.Candidate{
		{Name: "zeta", Select: specs.Select{Fields: specs.Fields{All: true}}},
		{Name: "ask-prod", Select: specs.Select{OptIn: true, Fields: prod}},
		{Name: "ask-any", Select: specs.Select{OptIn: true}},
		{Name: "ask-dev", Select: specs.Select{OptIn: true, Fields: specs.Fields{Namespaces: []string{"dev"}}}},
		{Name: "ask-nginx", Select: specs.Select{OptIn: true, Fields: specs.Fields{Containers: []string{"nginx"}}}},
		{Name: "ask-not-web", Select: specs.Select{OptIn: true, Exclude: &specs.Fields{Pods: []string{"web-*"}}}},
		{Name: "prod", Select: specs.Select{Fields: prod}},
		{Name: "dev", Select: specs.Select{Fields: specs.Fields{Namespaces: []string{"dev"}}}},
	}
}

func TestChoose(t *testing.T) {
	many := make([]string, 70)
	for i := range many {
		many[i] = fmt.Sprintf("p%d", i)
	}
	for _, tc := range []struct {
		name, annotation string
		want             []string
		err              string
	}{
		{name: "no annotation", want: []string{"zeta", "prod"}},
		{name: "blank", annotation: " \n", want: []string{"zeta", "prod"}},
		{name: "one", annotation: "ask-any", want: []string{"zeta", "ask-any", "prod"}},
		{name: "in the candidates' order", annotation: "ask-any,ask-prod", want: []string{"zeta", "ask-prod", "ask-any", "prod"}},
		{name: "spaces and twice", annotation: " ask-any ,\task-any", want: []string{"zeta", "ask-any", "prod"}},
		{name: "separated by spaces", annotation: "ask-any  ask-prod\task-any", want: []string{"zeta", "ask-prod", "ask-any", "prod"}},
		{name: "commas and spaces", annotation: "ask-any ask-prod, ask-nginx", want: []string{"zeta", "ask-prod", "ask-any", "ask-nginx", "prod"}},
		{name: "container name", annotation: "ask-nginx", want: []string{"zeta", "ask-nginx", "prod"}},
		{name: "unknown", annotation: "ask-any,nope", err: "no such policy"},
		{name: "not optIn", annotation: "prod", err: "not optIn"},
		{name: "not optIn and not selected", annotation: "dev", err: "not optIn"},
		{name: "not for this namespace", annotation: "ask-dev", err: "does not let this container ask"},
		{name: "excluded", annotation: "ask-not-web", err: "does not let this container ask"},
		{name: "path", annotation: "../../etc/x", err: `"../../etc/x" is not the name`},
		{name: "absolute path", annotation: "/etc/x.yaml", err: "is not the name"},
		{name: "empty element", annotation: "ask-any,,ask-prod", err: `"" is not the name`},
		{name: "comma at the end", annotation: "ask-any,", err: `"" is not the name`},
		{name: "upper case", annotation: "ASK-ANY", err: "is not the name"},
		{name: "escapes", annotation: "a\x1b[2J", err: `"a\x1b[2J" is not the name`},
		{name: "too many", annotation: strings.Join(many, ","), err: "more than 64"},
		{name: "too long", annotation: strings.Repeat("ask-any,", 600) + "ask-any", err: "longer than 4096"},
		{name: "often the same", annotation: strings.Repeat("ask-any,", 500) + "ask-any", want: []string{"zeta", "ask-any", "prod"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id := web()
			if tc.annotation != "" {
				id.Annotations[specs.OptInAnnotation] = tc.annotation
			}
			got, err := specs.Choose(id, candidates())
			if tc.err == "" {
				if err != nil || !slices.Equal(names(got), tc.want) {
					t.Fatalf("got %v, %v; want %v", names(got), err, tc.want)
				}
				return
			}
			var f *fault.Error
			if !errors.As(err, &f) || !strings.Contains(err.Error(), tc.err) || f.Remedy == "" ||
				fault.ExitCode(err) != fault.ExitFailed || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("error %v, want one with %q and a remedy", err, tc.err)
			}
			if got != nil {
				t.Errorf("an error, and yet %v", names(got))
			}
		})
	}
}

// A call that is about named policies gives these, whatever else would select the
// container, and by the same rules.
func TestChooseRequests(t *testing.T) {
	for _, tc := range []struct {
		name     string
		requests []string
		want     []string
		err      string
	}{
		{name: "in the candidates' order", requests: []string{"ask-any", "ask-prod"}, want: []string{"ask-prod", "ask-any"}},
		{name: "unknown", requests: []string{"ask-any", "nope"}, err: "no such policy"},
		{name: "not optIn", requests: []string{"zeta"}, err: "not optIn"},
		{name: "not for this namespace", requests: []string{"ask-dev"}, err: "does not let this container ask"},
		{name: "excluded", requests: []string{"ask-not-web"}, err: "does not let this container ask"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id := web()
			id.Requests = tc.requests
			id.Annotations[specs.OptInAnnotation] = "ask-nginx, not a name"
			got, err := specs.Choose(id, candidates())
			switch {
			case tc.err == "" && (err != nil || !slices.Equal(names(got), tc.want)):
				t.Errorf("got %v, %v; want %v", names(got), err, tc.want)
			case tc.err != "" && (err == nil || got != nil || !strings.Contains(err.Error(), tc.err) || !strings.Contains(err.Error(), "--policy") || strings.Contains(err.Error(), "annotation")):
				t.Errorf("got %v and error %v, want one with %q", names(got), err, tc.err)
			}
		})
	}
}

// A CNI plugin can't tell containers apart: what depends on their names is the
// hook's, neither given nor refused.
func TestChooseWithoutContainer(t *testing.T) {
	id := specs.Identity{Network: "pods", Namespace: "prod-eu", Annotations: map[string]string{specs.OptInAnnotation: "ask-nginx,ask-any"}}
	got, err := specs.Choose(id, candidates())
	if want := []string{"zeta", "ask-any", "prod"}; err != nil || !slices.Equal(names(got), want) {
		t.Errorf("CNI: got %v, %v; want %v", names(got), err, want)
	}
	id.Network = ""
	if _, err := specs.Choose(id, candidates()); err == nil {
		t.Error("hook: a container without a name may ask for a policy of nginx")
	}
	limited := []specs.Candidate{{Name: "ask", Select: specs.Select{OptIn: true, Fields: specs.Fields{
		Containers: []string{"nginx"}, Namespaces: []string{"dev"}}}}}
	id = specs.Identity{Network: "pods", Namespace: "prod-eu", Annotations: map[string]string{specs.OptInAnnotation: "ask"}}
	if _, err := specs.Choose(id, limited); err == nil {
		t.Error("CNI: the other fields are not looked at")
	}
}

// A selector that can't be understood must not select nothing in silence.
func TestChooseRefusesMalformedGlobs(t *testing.T) {
	bad := []string{"a["}
	for _, s := range []specs.Select{
		{Fields: specs.Fields{Namespaces: bad}},
		{Fields: specs.Fields{Pods: bad}},
		{Fields: specs.Fields{Containers: bad}},
		{Fields: specs.Fields{Networks: bad}},
		{Annotations: map[string]string{"a": "["}},
		{Fields: specs.Fields{All: true}, Exclude: &specs.Fields{Pods: bad}},
	} {
		_, err := specs.Choose(web(), []specs.Candidate{{Name: "p", Select: s}})
		if fault.ExitCode(err) != fault.ExitConfig {
			t.Errorf("%+v: %v", s, err)
		}
	}
}
