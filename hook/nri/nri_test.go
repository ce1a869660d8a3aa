// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/nri/pkg/api"
	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/change"
)

// configured returns a plugin as it is after Configure, and its hook.
func configured(t *testing.T, runtime string) (*Plugin, string) {
	t.Helper()
	hook := filepath.Join(t.TempDir(), "linkpin-hook")
	if err := os.WriteFile(hook, []byte("#!/bin/true\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := &Plugin{Applied: applied.Options{Dir: filepath.Join(t.TempDir(), "none")}}
	if _, err := p.Configure(t.Context(), "hook: "+hook, runtime, "v2.4.2"); err != nil {
		t.Fatal(err)
	}
	return p, hook
}

func oneHook(path string, args ...string) []*api.Hook {
	return []*api.Hook{{Path: path, Args: args, Timeout: api.Int(int(change.HookTimeout.Seconds()))}}
}

func TestEveryContainerGetsTheHooks(t *testing.T) {
	for runtime, caller := range map[string]string{"containerd": "containerd", "cri-o": "crio"} {
		p, path := configured(t, runtime)
		adjust, updates, err := p.CreateContainer(t.Context(), &api.PodSandbox{}, &api.Container{})
		if err != nil || updates != nil {
			t.Fatal(err, updates)
		}
		want := &api.Hooks{
			CreateRuntime: oneHook(path, "linkpin-hook", "createRuntime", "--caller", caller),
			Poststop:      oneHook(path, "linkpin-hook", "poststop", "--caller", caller),
		}
		if diff := cmp.Diff(want.String(), adjust.GetHooks().String()); diff != "" {
			t.Errorf("%s: %s", runtime, diff)
		}
	}
}

func TestNoHookTwice(t *testing.T) {
	p, path := configured(t, "containerd")
	ours := func(stage string, more ...string) []*api.Hook {
		return oneHook(path, append([]string{"linkpin-hook", stage}, more...)...)
	}
	for _, tc := range []struct {
		name              string
		have              *api.Hooks
		wantCreate, wantE bool
	}{
		{"nothing", nil, true, true},
		{"both", &api.Hooks{CreateRuntime: ours("createRuntime", "--caller", "containerd"), Poststop: ours("poststop", "--caller=containerd")}, false, false},
		{"prestart", &api.Hooks{Prestart: ours("prestart", "--caller", "containerd")}, false, true},
		{"elsewhere", &api.Hooks{CreateRuntime: oneHook("/old/linkpin-hook", "linkpin-hook", "createRuntime", "--caller", "containerd")}, false, true},
		{"of another caller", &api.Hooks{CreateRuntime: ours("createRuntime", "--caller", "none")}, true, true},
		{"of no caller", &api.Hooks{CreateRuntime: ours("createRuntime")}, true, true},
		{"of a CDI device", &api.Hooks{CreateRuntime: ours("createRuntime", "--caller", "cdi", "--policy", "web")}, true, true},
		{"of some policies", &api.Hooks{CreateRuntime: ours("createRuntime", "--caller", "containerd", "--policy=web")}, true, true},
		{"another program", &api.Hooks{CreateRuntime: oneHook("/bin/other", "linkpin-hook", "createRuntime", "--caller", "containerd")}, true, true},
		{"at the wrong stage", &api.Hooks{CreateRuntime: ours("poststop", "--caller", "containerd")}, true, true},
		{"without arguments", &api.Hooks{CreateRuntime: oneHook(path)}, true, true},
	} {
		adjust, _, err := p.CreateContainer(t.Context(), &api.PodSandbox{}, &api.Container{Hooks: tc.have})
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if got := len(adjust.GetHooks().GetCreateRuntime()) > 0; got != tc.wantCreate {
			t.Errorf("%s: createRuntime is added: %t", tc.name, got)
		}
		if got := len(adjust.GetHooks().GetPoststop()) > 0; got != tc.wantE {
			t.Errorf("%s: poststop is added: %t", tc.name, got)
		}
	}
}

func TestRefuses(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "linkpin-hook")
	plain := filepath.Join(t.TempDir(), "linkpin-hook")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, config, runtime string
		want                  error
		text                  string
	}{
		{"no hook", "hook: " + missing, "containerd", ErrNoHook, missing},
		{"not executable", "hook: " + plain, "containerd", ErrNoHook, "no executable file"},
		{"a directory", "hook: /", "containerd", ErrNoHook, "no executable file"},
		{"unknown key", "hok: /x", "containerd", ErrConfig, "field hok not found"},
		{"relative", "hook: linkpin-hook", "containerd", ErrConfig, "no absolute path"},
		{"no YAML", "{", "containerd", ErrConfig, DefaultFile[len("/etc/nri/conf.d/"):]},
		{"two documents", "hook: /a\n---\nhook: /b", "containerd", ErrConfig, "more than one document"},
		{"large", strings.Repeat("#", maxConfig+1), "containerd", ErrConfig, "larger than"},
		{"another runtime", "hook: /bin/true", "docker", ErrRuntime, "docker"},
	} {
		p := &Plugin{}
		events, err := p.Configure(t.Context(), tc.config, tc.runtime, "v1.0.0")
		if err != nil || !events.IsSet(api.Event_CREATE_CONTAINER) {
			t.Errorf("%s: Configure: %v: the runtime would go on without the plugin", tc.name, err)
		}
		_, _, err = p.CreateContainer(t.Context(), &api.PodSandbox{}, &api.Container{})
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want %v with %q", tc.name, err, tc.want, tc.text)
		}
	}
}

func TestConfigFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "linkpin-nri.conf")
	p := &Plugin{File: file}
	if c, err := p.config(" \n"); err != nil || c.Hook != DefaultHook {
		t.Errorf("no file: %+v, %v", c, err)
	}
	if err := os.WriteFile(file, []byte("# where it is\nhook: /opt/linkpin/../linkpin-hook\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if c, err := p.config(""); err != nil || c.Hook != "/opt/linkpin-hook" {
		t.Errorf("the file: %+v, %v", c, err)
	}
	if c, err := p.config(`{"hook": "/json"}`); err != nil || c.Hook != "/json" {
		t.Errorf("what the runtime sends: %+v, %v", c, err)
	}
}

// An NRI that does not know validators turns away a plugin that wants to be one.
func TestValidatesWhereItCan(t *testing.T) {
	for version, want := range map[string]bool{
		"v0.8.0": false, "v0.9.1-0.20250219030224-e597e7849f24": false, "v0.10.0": true, "v0.12.3": true, "v1.0.0": true,
		"0.0.0-unknown": false, "(devel)": false, "": false, "unknown": false,
	} {
		p := &Plugin{NRIVersion: func() string { return version }}
		events, err := p.Configure(t.Context(), "", "containerd", "v2.0.0")
		if got := events.IsSet(api.Event_VALIDATE_CONTAINER_ADJUSTMENT); err != nil || got != want {
			t.Errorf("%s: validates: %t, %v", version, got, err)
		}
	}
}

func TestValidate(t *testing.T) {
	p, _ := configured(t, "containerd")
	adjust, _, err := p.CreateContainer(t.Context(), &api.PodSandbox{}, &api.Container{})
	if err != nil {
		t.Fatal(err)
	}
	c := &api.Container{Name: "web"}
	if err := p.ValidateContainerAdjustment(t.Context(), &api.ValidateContainerAdjustmentRequest{Container: c, Adjust: adjust}); err != nil {
		t.Error(err)
	}
	inSpec := &api.Container{Name: "web", Hooks: adjust.Hooks}
	if err := p.ValidateContainerAdjustment(t.Context(), &api.ValidateContainerAdjustmentRequest{Container: inSpec}); err != nil {
		t.Error(err)
	}
	err = p.ValidateContainerAdjustment(t.Context(), &api.ValidateContainerAdjustmentRequest{Container: c, Adjust: &api.ContainerAdjustment{}})
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "container web") {
		t.Errorf("without hooks: %v", err)
	}
}

func TestAnnotationsOfThePod(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "linkpin")
	policy := func(name string, annotations map[string]string) applied.NewPolicy {
		return applied.NewPolicy{Plan: specs.Plan{Version: specs.PlanVersion, Name: name, OnError: specs.Deny, Scope: specs.ScopeContainer, Teardown: specs.Drain},
			Select: specs.Select{Annotations: annotations}}
	}
	_, err := applied.Write(applied.Options{Dir: dir}, applied.NewSet{Policies: []applied.NewPolicy{
		policy("tier", map[string]string{"example.com/tier": "web*", "example.com/zone": "*"}),
		policy("crun", map[string]string{"run.oci.handler": "*"}),
		policy("own", map[string]string{"io.kubernetes.cri.sandbox-namespace": "prod"}),
		policy("optin", map[string]string{specs.OptInAnnotation: "*"}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := configured(t, "containerd")
	const optIn = specs.OptInAnnotation
	for _, tc := range []struct {
		name           string
		pod, ctr, want map[string]string
		refused        string
	}{
		{name: "none"},
		{name: "of the pod", pod: map[string]string{optIn: "a", "example.com/tier": "web", "other": "x"},
			want: map[string]string{optIn: "a", "example.com/tier": "web"}},
		{name: "of both", pod: map[string]string{optIn: "a, b", "example.com/tier": "web", "example.com/zone": "1"},
			ctr:  map[string]string{optIn: "b,c", "example.com/tier": "db"},
			want: map[string]string{optIn: "a,b,c", "example.com/tier": "db", "example.com/zone": "1"}},
		{name: "of the container", ctr: map[string]string{optIn: "c"}, want: map[string]string{optIn: "c"}},
		{name: "blank", pod: map[string]string{optIn: " "}},
		{name: "malformed, for the hook to refuse", pod: map[string]string{optIn: "../x,,"}, want: map[string]string{optIn: "../x,"}},
		{name: "what the runtime vouches for", ctr: map[string]string{"io.kubernetes.cri.sandbox-namespace": "prod"}},
		{name: "what runtimes obey", pod: map[string]string{"run.oci.handler": "wasm"}, refused: "policy crun"},
		{name: "what vouches, from the pod", pod: map[string]string{"io.kubernetes.cri.sandbox-namespace": "prod"}, refused: "policy own"},
	} {
		p.Applied.Dir = dir
		adjust, _, err := p.CreateContainer(t.Context(), &api.PodSandbox{Annotations: tc.pod}, &api.Container{Annotations: tc.ctr})
		if tc.refused != "" {
			if !errors.Is(err, ErrAnnotation) || !strings.Contains(err.Error(), tc.refused) {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if len(tc.want)+len(adjust.Annotations) > 0 && !cmp.Equal(tc.want, adjust.Annotations) {
			t.Errorf("%s: %s", tc.name, cmp.Diff(tc.want, adjust.Annotations))
		}
	}
}

// Without an intact set the hook decides, not the plugin.
func TestAnnotationsWithoutASet(t *testing.T) {
	p, _ := configured(t, "cri-o")
	pod := &api.PodSandbox{Annotations: map[string]string{specs.OptInAnnotation: "a", "example.com/tier": "web"}}
	adjust, _, err := p.CreateContainer(t.Context(), pod, &api.Container{})
	if err != nil || !cmp.Equal(adjust.Annotations, map[string]string{specs.OptInAnnotation: "a"}) {
		t.Errorf("%v, %v", adjust, err)
	}
}
