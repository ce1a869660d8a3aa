// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	validator "github.com/containerd/nri/plugins/default-validator"
	"golang.org/x/sys/unix"
)

// runtimeSide is NRI as it is in a runtime, with the plugin as it starts it.
type runtimeSide struct {
	*adaptation.Adaptation
	hook, plugins string
	socket        string
}

// newRuntime starts NRI as containerd 2.4 has it, with the built plugin in its
// plugin directory if installed says "plugin".
func newRuntime(t *testing.T, installed, config string, check *validator.DefaultValidatorConfig) *runtimeSide {
	t.Helper()
	adaptation.SetPluginRequestTimeout(500 * time.Millisecond)
	dir := t.TempDir()
	r := &runtimeSide{hook: filepath.Join(dir, "linkpin-hook"), plugins: filepath.Join(dir, "plugins"), socket: filepath.Join(dir, "nri.sock")}
	for _, d := range []string{r.plugins, filepath.Join(dir, "conf.d")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(r.hook, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	config = strings.ReplaceAll(config, "HOOK", r.hook)
	if err := os.WriteFile(filepath.Join(dir, "conf.d", Name+".conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	if installed == "plugin" {
		buildPlugin(t, filepath.Join(r.plugins, Index+"-"+Name))
	}
	sync := func(ctx context.Context, cb adaptation.SyncCB) error {
		_, err := cb(ctx, nil, nil)
		return err
	}
	update := func(context.Context, []*adaptation.ContainerUpdate) ([]*adaptation.ContainerUpdate, error) {
		return nil, nil
	}
	a, err := adaptation.New("containerd", "v2.4.2", sync, update, adaptation.WithPluginPath(r.plugins),
		adaptation.WithPluginConfigPath(filepath.Join(dir, "conf.d")), adaptation.WithSocketPath(r.socket), adaptation.WithDefaultValidator(check))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Stop)
	r.Adaptation = a
	return r
}

func buildPlugin(t *testing.T, path string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../../cmd/linkpin-nri")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
}

// create asks for a container, as the runtime does.
func (r *runtimeSide) create(t *testing.T) (*api.ContainerAdjustment, error) {
	t.Helper()
	rpl, err := r.CreateContainer(t.Context(), &adaptation.CreateContainerRequest{
		Pod:       &api.PodSandbox{Id: "p", Name: "pod", Annotations: map[string]string{"linkpin.io/policies": "web"}},
		Container: &api.Container{Id: "c", Name: "ctr", PodSandboxId: "p"},
	})
	return rpl.GetAdjust(), err
}

// process returns the pid of the plugin that was started from the directory.
func (r *runtimeSide) process(t *testing.T) int {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, exe := range entries {
		if to, err := os.Readlink(exe); err == nil && filepath.Dir(to) == r.plugins {
			pid := 0
			for _, c := range filepath.Base(filepath.Dir(exe)) {
				pid = pid*10 + int(c-'0')
			}
			return pid
		}
	}
	t.Fatal("the plugin does not run")
	return 0
}

func refused(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("%v; want an error with %q", err, want)
	}
}

func TestStartedByARuntime(t *testing.T) {
	r := newRuntime(t, "plugin", "hook: HOOK\n", nil)
	adjust, err := r.create(t)
	if err != nil {
		t.Fatal(err)
	}
	if h := adjust.GetHooks().GetCreateRuntime(); len(h) != 1 || h[0].Path != r.hook || h[0].GetTimeout().GetValue() != 60 {
		t.Errorf("hooks: %v", adjust.GetHooks())
	}
	if got := adjust.Annotations["linkpin.io/policies"]; got != "web" {
		t.Errorf("annotation %q", got)
	}
	if err := os.Remove(r.hook); err != nil {
		t.Fatal(err)
	}
	_, err = r.create(t)
	refused(t, err, r.hook+": can't be run as a hook")
}

// A configuration that can't be used must not leave the plugin out.
func TestStartedWithABadConfiguration(t *testing.T) {
	r := newRuntime(t, "plugin", "hok: HOOK\n", nil)
	_, err := r.create(t)
	refused(t, err, "linkpin-nri.conf: can't be used")
}

// A runtime does without a plugin that does not answer in time, unless the plugin
// has asked for better.
func TestPluginThatHangs(t *testing.T) {
	r := newRuntime(t, "plugin", "hook: HOOK\n", nil)
	if _, err := r.create(t); err != nil {
		t.Fatal(err)
	}
	pid := r.process(t)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_, err := r.create(t)
	refused(t, err, "plugin 10-linkpin-nri failed to handle CreateContainer request")
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	adjust, err := r.create(t)
	if err != nil || len(adjust.GetHooks().GetCreateRuntime()) != 1 {
		t.Errorf("after it has come back: %v, %v", adjust, err)
	}
}

// Once a plugin has ended, only required_plugins stands between a container and
// life without policies.
func TestPluginThatHasEnded(t *testing.T) {
	for _, tc := range []struct {
		name  string
		check *validator.DefaultValidatorConfig
		want  string // error; none: the container comes without hooks
	}{
		{"required", &validator.DefaultValidatorConfig{Enable: true, RequiredPlugins: []string{Name}}, `required plugin "linkpin-nri" not present`},
		{"not required", nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRuntime(t, "plugin", "hook: HOOK\n", tc.check)
			if _, err := r.create(t); err != nil {
				t.Fatal(err)
			}
			if err := unix.Kill(r.process(t), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			deadline := time.Now().Add(5 * time.Second)
			for {
				adjust, err := r.create(t)
				naked := err == nil && len(adjust.GetHooks().GetCreateRuntime()) == 0
				switch {
				case tc.want == "" && naked, tc.want != "" && err != nil && strings.Contains(err.Error(), tc.want):
					return
				case tc.want != "" && naked:
					t.Fatal("a container without hooks")
				case time.Now().After(deadline):
					t.Fatalf("%v, %v", adjust, err)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
}

// A plugin that an administrator starts connects by itself.
func TestConnects(t *testing.T) {
	r := newRuntime(t, "", "", &validator.DefaultValidatorConfig{Enable: true, RequiredPlugins: []string{Name}})
	_, err := r.create(t)
	refused(t, err, `required plugin "linkpin-nri" not present`)

	binary := filepath.Join(t.TempDir(), Name)
	buildPlugin(t, binary)
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, binary, "--connect", r.socket)
	cmd.Env = []string{}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // killed
	}()
	deadline := time.Now().Add(5 * time.Second)
	for {
		// Its hook is at the default path, which the test does not make.
		_, err := r.create(t)
		if err == nil || strings.Contains(err.Error(), DefaultHook+": can't be run as a hook") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v; the plugin says: %s", err, &stderr)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
