// SPDX-License-Identifier: Apache-2.0

package install_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/hook/install"
	"github.com/linkpin/linkpin/specs/change"
)

const (
	containerdMainFile = "/etc/containerd/config.toml"
	containerdCRI2     = "plugins.'io.containerd.grpc.v1.cri'.containerd"
)

// Whoever gives no options gets those of the install before.
func TestContainerdRecovers(t *testing.T) {
	const k3s = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"
	for _, tc := range []struct {
		name, config string
		files        map[string]string
		c            install.Containerd
		handler      string
	}{
		{name: "handler of a file", handler: "runc", c: install.Containerd{Handler: "runc", Version: "1.7"}, files: map[string]string{
			containerdMainFile: "version = 2\n[" + containerdCRI2 + ".runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\npod_annotations = ['a/b']\n",
		}},
		{name: "built-in runc", handler: "runc", c: install.Containerd{Handler: "runc", Version: "1.6"}, files: map[string]string{containerdMainFile: "version = 2\n"}},
		{name: "own handler", handler: "linkpin", c: install.Containerd{Version: "2.2"}, files: map[string]string{containerdMainFile: "version = 3\n"}},
		{name: "other name", handler: "net", c: install.Containerd{Handler: "net", Version: "2.3"}, files: map[string]string{containerdMainFile: "version = 4\nimports = ['conf.d/*.toml']\n"}},
		{name: "other configuration", handler: "linkpin", c: install.Containerd{Config: k3s, Version: "2.1"}, files: map[string]string{k3s: "version = 3\n", containerdMainFile: "disabled_plugins = ['cri']\n"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := containerdRoot(t, tc.files)
			containerdPut(t, h, containerdHook, "#!\n")
			before := containerdFiles(t, h)
			c := tc.c
			c.Hook, c.Spec, c.Annotations = containerdHook, []byte(containerdSpec), []string{"team/x", "a/*"}
			plan, err := c.Install(h)
			containerdApply(t, h, plan, err)

			bare := install.Containerd{Hook: containerdHook, Spec: c.Spec, Version: c.Version}
			plan, err = bare.Install(h)
			containerdEmpty(t, plan, err)
			want := `ok containerd's runtime handler "` + tc.handler + `": calls ` + containerdHook + "\n"
			if got := containerdFindings(bare.Check(h)); got != want {
				t.Errorf("check: %swant %s", got, want)
			}
			if got := containerdFindings(install.Containerd{Hook: containerdHook}.Check(h)); got != want {
				t.Errorf("check without version: %swant %s", got, want)
			}
			if !(install.Containerd{}).Uses(h, containerdHook) || (install.Containerd{}).Calls(h) != containerdHook {
				t.Error("the hook is not known")
			}
			plan, err = install.Containerd{}.Uninstall(h)
			containerdApply(t, h, plan, err)
			after := containerdFiles(t, h)
			delete(after, "/etc/linkpin/")
			delete(after, "/etc/containerd/conf.d/")
			if d := cmp.Diff(before, after); d != "" {
				t.Error(d)
			}
		})
	}
}

// Every handler that calls linkpin is judged, also one made by hand.
func TestContainerdCheckAllHandlers(t *testing.T) {
	h := containerdRoot(t, map[string]string{containerdMainFile: "version = 2\n", containerdHook: "#!\n"})
	c := install.Containerd{Hook: containerdHook, Spec: []byte(containerdSpec), Version: "1.7"}
	plan, err := c.Install(h)
	containerdApply(t, h, plan, err)
	text := containerdFiles(t, h)[containerdMainFile] + "[" + containerdCRI2 + ".runtimes.mine]\nruntime_type = 'x'\nbase_runtime_spec = '/etc/linkpin/containerd/linkpin.json'\npod_annotations = ['linkpin.io/*']\n"
	containerdPut(t, h, containerdMainFile, text)
	if got, want := containerdFindings(c.Check(h)), `fail containerd's runtime handler "mine": container_annotations lacks "linkpin.io/*"`; !strings.HasPrefix(got, want) ||
		!strings.Contains(got, `ok containerd's runtime handler "linkpin"`) {
		t.Errorf("got %s", got)
	}
}

// Two daemons don't share a base spec.
func TestContainerdTwoConfigs(t *testing.T) {
	const k3s = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"
	h := containerdRoot(t, map[string]string{containerdMainFile: "version = 2\n", k3s: "version = 3\n", containerdHook: "#!\n"})
	one := install.Containerd{Hook: containerdHook, Config: containerdMainFile, Spec: []byte(containerdSpec), Version: "1.7"}
	two := install.Containerd{Hook: containerdHook, Config: k3s, Spec: []byte(containerdSpec), Version: "2.1", Handler: "net"}
	three := two
	three.Config, three.Handler = "/"+strings.Repeat("long/", 50)+"config.toml", ""
	containerdPut(t, h, three.Config, "version = 3\n")
	all := []install.Containerd{one, two, three}
	for _, c := range all {
		plan, err := c.Install(h)
		containerdApply(t, h, plan, err)
	}
	for _, c := range all {
		plan, err := c.Install(h)
		containerdEmpty(t, plan, err)
	}
	for i, c := range all {
		plan, err := c.Uninstall(h)
		containerdApply(t, h, plan, err)
		for _, other := range all[i+1:] {
			if got := containerdFindings(other.Check(h)); !strings.HasPrefix(got, "ok ") {
				t.Errorf("%s after the uninstall of %s: %s", other.Config, c.Config, got)
			}
		}
	}
	for p := range containerdFiles(t, h) {
		if strings.HasPrefix(p, "/etc/linkpin/containerd") {
			t.Errorf("%s is left", p)
		}
	}
}

// What users add to our handler outside of our lines stays theirs, and it ours.
func TestContainerdTuned(t *testing.T) {
	const (
		options = "[" + containerdCRI2 + ".runtimes.linkpin.options]\nSystemdCgroup = true\n"
		foo     = "[" + containerdCRI2 + ".runtimes.foo]\nruntime_type = 'io.containerd.runc.v2'\n"
	)
	for name, tc := range map[string]struct{ add, want string }{
		"options":         {options, containerdMainFile + `:11: is a part of the runtime handler "linkpin", which is to go`},
		"another handler": {foo, containerdMainFile + `:11: beside a runtime handler of a file, here "foo", containerd has no built-in runc`},
	} {
		t.Run(name, func(t *testing.T) {
			h := containerdRoot(t, map[string]string{containerdMainFile: "version = 2\n"})
			c := install.Containerd{Hook: containerdHook, Spec: []byte(containerdSpec), Version: "1.6"}
			plan, err := c.Install(h)
			containerdApply(t, h, plan, err)
			containerdPut(t, h, containerdMainFile, containerdFiles(t, h)[containerdMainFile]+tc.add)
			plan, err = c.Install(h)
			containerdEmpty(t, plan, err)
			if _, err := c.Uninstall(h); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("uninstall: %v", err)
			}
			c.Annotations = []string{"team/x"}
			plan, err = c.Install(h)
			containerdApply(t, h, plan, err)
			plan, err = c.Install(h)
			containerdEmpty(t, plan, err)
			text := containerdFiles(t, h)[containerdMainFile]
			if strings.Count(text, tc.add) != 1 || !strings.Contains(text, "team/x") {
				t.Error(text)
			}

			// The real daemon reads it. The release here merges as the package's does.
			binary, major := containerdReal(t)
			if major != "1" {
				return
			}
			conf := filepath.Join(h.Dir, containerdMainFile)
			_, cri := containerdDump(t, binary, conf)
			runtimes, _ := cri["runtimes"].(map[string]any)
			for _, handler := range []string{"linkpin", "runc"} {
				table, _ := runtimes[handler].(map[string]any)
				if table["runtime_type"] != "io.containerd.runc.v2" {
					t.Errorf("handler %s: %v", handler, table)
				}
				opts, _ := table["options"].(map[string]any)
				if handler == "linkpin" && name == "options" && opts["SystemdCgroup"] != true {
					t.Errorf("the user's option is lost: %v", table)
				}
			}
			containerdLoads(t, binary, h)
		})
	}
}

// containerdLoads starts the real daemon with a root's configuration, and fails unless
// its CRI plugin comes up.
func containerdLoads(t *testing.T, binary string, h change.Host) {
	t.Helper()
	dir := t.TempDir()
	text := strings.ReplaceAll(containerdFiles(t, h)[containerdMainFile], "/etc/linkpin/", h.Dir+"/etc/linkpin/")
	text = strings.Replace(text, "version = 2\n", "version = 2\nroot = '"+dir+"/root'\nstate = '"+dir+"/state'\n", 1)
	text += "[grpc]\naddress = '" + dir + "/s'\n[ttrpc]\naddress = '" + dir + "/t'\n[plugins.'io.containerd.internal.v1.opt']\npath = '" + dir + "/opt'\n"
	conf := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	logs, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	cmd := exec.CommandContext(ctx, binary, "--config", conf)
	cmd.Stderr = logs
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it was interrupted
	}()
	ctr := filepath.Join(filepath.Dir(binary), "ctr")
	for ctx.Err() == nil {
		out, err := exec.CommandContext(ctx, ctr, "--address", dir+"/s", "plugins", "ls").Output()
		for line := range strings.Lines(string(out)) {
			fields := strings.Fields(line)
			if err != nil || len(fields) < 4 || fields[0] != "io.containerd.grpc.v1" || fields[1] != "cri" {
				continue
			}
			if fields[3] != "ok" {
				log, _ := os.ReadFile(logs.Name())
				t.Errorf("the CRI plugin did not load:\n%s", log)
			}
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	log, _ := os.ReadFile(logs.Name())
	t.Errorf("containerd did not answer:\n%s", log)
}

// Programs of an image are never run, and of this machine only root's, once.
func TestContainerdRunsPrograms(t *testing.T) {
	h := containerdRoot(t, nil)
	ran := filepath.Join(h.Dir, "ran")
	script := "#!/bin/sh\necho \"$@\" >>" + ran + "\n[ \"$1\" = oci ] && echo '" + strings.ReplaceAll(containerdSpec, "\n", " ") + "' || echo containerd x v1.7.28 y\n"
	for p, data := range map[string]string{containerdMainFile: "version = 2\n", "/usr/bin/containerd": script, "/usr/bin/ctr": script, containerdHook: "#!\n"} {
		containerdPut(t, h, p, data)
	}
	c := install.Containerd{Hook: containerdHook}
	if _, err := c.Install(h); err == nil || !strings.Contains(err.Error(), "--containerd-version") || !strings.Contains(err.Error(), "--spec") {
		t.Errorf("install without a version: %v", err)
	}
	c.Version = "1.7"
	if _, err := c.Install(h); err == nil || !strings.Contains(err.Error(), "--spec") {
		t.Errorf("install without a spec: %v", err)
	}
	c.Spec = []byte(containerdSpec)
	plan, err := c.Install(h)
	containerdApply(t, h, plan, err)
	c = install.Containerd{Hook: containerdHook}
	if got := containerdFindings(c.Check(h)); !strings.HasPrefix(got, "ok ") {
		t.Errorf("check: %s", got)
	}
	if !c.Uses(h, containerdHook) || c.Calls(h) != containerdHook {
		t.Error("the hook is not known")
	}
	install.ConfiguredCNI(h)
	if plan, err = c.Uninstall(h); err != nil || plan.Empty() {
		t.Errorf("uninstall: %v", err)
	}
	if data, err := os.ReadFile(ran); err == nil {
		t.Fatalf("programs of the image were run:\n%s", data)
	}

	bin := filepath.Join(h.Dir, "usr/bin")
	c = install.Containerd{Hook: containerdHook, Config: filepath.Join(h.Dir, "none.toml"), Daemon: filepath.Join(bin, "containerd")}
	for _, spoil := range []func() error{
		func() error { return os.Chmod(c.Daemon, 0o757) },
		func() error { return os.Chmod(c.Daemon, 0o775) },
		func() error { return os.Chown(c.Daemon, 1000, 0) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Install(change.Host{}); err == nil || !strings.Contains(err.Error(), "others than root may write to it") {
			t.Errorf("install: %v", err)
		}
		if err := os.Chown(c.Daemon, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(c.Daemon, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := os.ReadFile(ran); err == nil {
		t.Fatalf("programs of others were run:\n%s", data)
	}
	for range 3 {
		if _, err := c.Install(change.Host{}); err != nil {
			t.Fatal(err)
		}
		c.Check(change.Host{})
	}
	data, err := os.ReadFile(ran)
	if got := string(data); err != nil || got != "--version\noci spec\n" {
		t.Errorf("ran %q, %v", got, err)
	}
}

// Docker's own containerd starts no pods: nothing is wrong with it.
func TestContainerdCheckOff(t *testing.T) {
	for text, want := range map[string]string{
		"disabled_plugins = [\"cri\"]\n":                                  "ok " + containerdMainFile + ": its CRI plugin is off (disabled_plugins): no pods run here; for docker there is linkpin install cdi\n",
		"version = 2\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n": "ok " + containerdMainFile + ": its CRI plugin is off",
		"root = '/x'\n": "warn " + containerdMainFile + ": is a configuration of version 1",
	} {
		h := containerdRoot(t, map[string]string{containerdMainFile: text, "/usr/bin/containerd": "#!\n"})
		got := install.Containerd{Hook: containerdHook}.Check(h)
		if s := containerdFindings(got); len(got) != 1 || !strings.HasPrefix(s, want) {
			t.Errorf("%q: %s", text, s)
		}
	}
}

// Policies that select by themselves don't reach pods of an uncovered default.
func TestContainerdCheckDefault(t *testing.T) {
	h := containerdRoot(t, map[string]string{containerdMainFile: "version = 2\n", containerdHook: "#!\n"})
	c := install.Containerd{Hook: containerdHook, Spec: []byte(containerdSpec), Version: "1.7", SelfSelecting: true}
	plan, err := c.Install(h)
	containerdApply(t, h, plan, err)
	got := c.Check(h)
	if s := containerdFindings(got); len(got) != 2 || !strings.HasPrefix(s, `warn containerd's default runtime handler "runc": does not call linkpin`) ||
		!strings.Contains(got[0].Remedy, "--handler runc") || !strings.Contains(got[0].Remedy, "linkpin install nri") {
		t.Error(s)
	}
	containerdPut(t, h, "/etc/nri/conf.d/linkpin-nri.conf", "{}")
	if s := containerdFindings(c.Check(h)); !strings.HasPrefix(s, "ok ") {
		t.Errorf("with NRI: %s", s)
	}
	plan, err = c.Uninstall(h)
	containerdApply(t, h, plan, err)
	c.Handler = "runc"
	plan, err = c.Install(h)
	containerdApply(t, h, plan, err)
	if s := containerdFindings(c.Check(h)); !strings.HasPrefix(s, "ok ") {
		t.Errorf("covered: %s", s)
	}
}

// Of several hooks the same one is named each time.
func TestContainerdCallsFirst(t *testing.T) {
	text := "version = 2\n"
	files := map[string]string{}
	for _, n := range []string{"d", "b", "a", "c", "e", "f"} {
		text += "[" + containerdCRI2 + ".runtimes." + n + "]\nruntime_type = 'x'\nbase_runtime_spec = '/" + n + ".json'\n"
		files["/"+n+".json"] = `{"ociVersion": "1.1.0", "hooks": {"poststop": [{"path": "/post/` + n + `", "args": ["linkpin-hook", "poststop", "--caller", "containerd"]}],
 "createRuntime": [{"path": "/create/` + n + `", "args": ["linkpin-hook", "createRuntime", "--caller", "containerd"]}]}}`
	}
	files[containerdMainFile] = text
	h := containerdRoot(t, files)
	for range 20 {
		if got := (install.Containerd{}).Calls(h); got != "/create/a" {
			t.Fatal(got)
		}
	}
}
