// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/google/go-cmp/cmp"
	rspec "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/hook/containerd"
	"github.com/linkpin/linkpin/specs/fault"
)

const key = "linkpin.io/policies"

func apply(t *testing.T, s *oci.Spec, opts ...oci.SpecOpts) {
	t.Helper()
	if err := oci.ApplyOpts(t.Context(), nil, nil, s, opts...); err != nil {
		t.Fatal(err)
	}
}

func linkpin(stage string) rspec.Hook {
	return rspec.Hook{
		Path: containerd.DefaultHook, Timeout: new(60),
		Args: []string{"linkpin-hook", stage, "--caller", "none"},
	}
}

func TestAnnotation(t *testing.T) {
	for _, tc := range []struct {
		name, before string
		names        []string
		want         string
	}{
		{"first", "", []string{"web", "meter"}, "web,meter"},
		{"none", "", nil, ""},
		{"blank", " ", []string{"web"}, "web"},
		{"after others", "web", []string{"meter"}, "web,meter"},
		{"once", " web , meter", []string{"meter", "dns", "dns", "web"}, " web , meter,dns"},
		{"nothing new", "web, meter", []string{"meter"}, "web, meter"},
		{"wrong before, left to the hook", "../x", []string{"web"}, "../x,web"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &oci.Spec{}
			if tc.before != "" {
				s.Annotations = map[string]string{key: tc.before, "other": "stays"}
			}
			apply(t, s, containerd.WithPolicies(tc.names...))
			if got := s.Annotations[key]; got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if tc.before != "" && s.Annotations["other"] != "stays" {
				t.Error("another annotation was lost")
			}
		})
	}
}

func TestHooks(t *testing.T) {
	other := rspec.Hook{Path: "/bin/other", Args: []string{"other"}}
	device := rspec.Hook{Path: containerd.DefaultHook, Args: []string{"linkpin-hook", "createRuntime", "--caller", "cdi", "--policy", "meter"}}
	s := &oci.Spec{Hooks: &rspec.Hooks{
		CreateRuntime:   []rspec.Hook{other, device},
		CreateContainer: []rspec.Hook{other},
	}}
	apply(t, s, containerd.WithPolicies("web"), containerd.WithPolicies("meter"), containerd.WithPolicies("web"))
	want := &rspec.Hooks{
		CreateRuntime:   []rspec.Hook{other, device, linkpin("createRuntime")},
		CreateContainer: []rspec.Hook{other},
		Poststop:        []rspec.Hook{linkpin("poststop")},
	}
	if diff := cmp.Diff(want, s.Hooks); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}

	// The last one's timeout counts, and another path is another hook.
	apply(t, s, containerd.Options{Timeout: 90*time.Second + 1}.WithPolicies(), containerd.Options{Hook: "/usr/bin//linkpin-hook"}.WithPolicies())
	got := s.Hooks.Poststop
	if len(got) != 2 || *got[0].Timeout != 91 || got[1].Path != "/usr/bin/linkpin-hook" || *got[1].Timeout != 60 {
		t.Errorf("poststop: %+v", got)
	}
}

// A program may make all its specifications from one.
func TestSharedSpec(t *testing.T) {
	common := oci.Spec{
		Annotations: map[string]string{"a": "b"},
		Hooks:       &rspec.Hooks{Poststop: append(make([]rspec.Hook, 0, 8), rspec.Hook{Path: "/bin/other"})},
	}
	one, two := common, common
	apply(t, &one, containerd.WithPolicies("one"))
	apply(t, &two, containerd.Options{Hook: "/opt/linkpin-hook"}.WithPolicies("two"))
	if len(common.Annotations) != 1 || len(common.Hooks.Poststop) != 1 || common.Hooks.CreateRuntime != nil {
		t.Errorf("the common specification was changed: %+v %+v", common.Annotations, common.Hooks)
	}
	if one.Annotations[key] != "one" || one.Hooks.Poststop[1].Path != containerd.DefaultHook {
		t.Errorf("the second specification changed the first: %+v %+v", one.Annotations, one.Hooks)
	}
}

func TestErrors(t *testing.T) {
	var many []string
	for i := range 65 {
		many = append(many, fmt.Sprint("p", i))
	}
	for _, tc := range []struct {
		name string
		opt  oci.SpecOpts
		is   error
		text string
	}{
		{"empty name", containerd.WithPolicies(""), containerd.ErrName, `policy "": `},
		{"path", containerd.WithPolicies("web", "../x"), containerd.ErrName, `policy "../x": `},
		{"two in one", containerd.WithPolicies("a,b"), containerd.ErrName, `policy "a,b": `},
		{"line end", containerd.WithPolicies("a\n"), containerd.ErrName, `policy "a\n": `},
		{"too many", containerd.WithPolicies(many...), containerd.ErrTooMany, "67 names"},
		{"relative hook", containerd.Options{Hook: "linkpin-hook"}.WithPolicies("a"), containerd.ErrOption, "not absolute"},
		{"hook with a zero byte", containerd.Options{Hook: "/bin/\x00"}.WithPolicies("a"), containerd.ErrOption, "hook"},
		{"short timeout", containerd.Options{Timeout: 44 * time.Second}.WithPolicies("a"), containerd.ErrOption, "44s"},
		{"negative timeout", containerd.Options{Timeout: -1}.WithPolicies("a"), containerd.ErrOption, "timeout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &oci.Spec{Annotations: map[string]string{key: "x,y"}}
			err := oci.ApplyOpts(t.Context(), nil, nil, s, tc.opt)
			var f *fault.Error
			if !errors.As(err, &f) || !errors.Is(err, tc.is) || f.Remedy == "" {
				t.Fatalf("got %v (%T), want a fault.Error that is %v, with a remedy", err, err, tc.is)
			}
			if !strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want one line with %q", err, tc.text)
			}
			if diff := cmp.Diff(&oci.Spec{Annotations: map[string]string{key: "x,y"}}, s); diff != "" {
				t.Errorf("the specification was changed:\n%s", diff)
			}
		})
	}
}

// Blanks count, too: linkpin-hook refuses an annotation that is too long.
func TestTooLong(t *testing.T) {
	s := &oci.Spec{Annotations: map[string]string{key: "x" + strings.Repeat(" ", 4090)}}
	apply(t, s, containerd.WithPolicies("abcd"))
	err := oci.ApplyOpts(t.Context(), nil, nil, s, containerd.WithPolicies("e"))
	if !errors.Is(err, containerd.ErrTooMany) || len(s.Annotations[key]) != 4096 {
		t.Errorf("got %v with %d bytes, want ErrTooMany with 4096", err, len(s.Annotations[key]))
	}
}
