// SPDX-License-Identifier: Apache-2.0

package install_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkpin/linkpin/hook/install"
	"github.com/linkpin/linkpin/specs/change"
)

// containerdFindings writes findings as "level what: detail", a line each.
func containerdFindings(list []change.Finding) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "%s %s: %s\n", f.Level, f.What, f.Detail)
	}
	return b.String()
}

func TestContainerdCheck(t *testing.T) {
	const (
		main = "/etc/containerd/config.toml"
		spec = "/etc/linkpin/containerd/linkpin.json"
	)
	replace := func(name, old, with string) func(*testing.T, change.Host) {
		return func(t *testing.T, h change.Host) {
			t.Helper()
			data := containerdFiles(t, h)[name]
			if !strings.Contains(data, old) {
				t.Fatalf("no %q in %s:\n%s", old, name, data)
			}
			containerdPut(t, h, name, strings.ReplaceAll(data, old, with))
		}
	}
	remove := func(name string) func(*testing.T, change.Host) {
		return func(t *testing.T, h change.Host) {
			t.Helper()
			if err := os.Remove(filepath.Join(h.Dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name  string
		text  string // of the main file; default: version 2 and nothing
		spoil func(*testing.T, change.Host)
		c     install.Containerd
		want  []string // beginnings of lines; none: all in order
	}{
		{name: "in order"},
		{name: "config broken", spoil: replace(main, "version = 2", "version = = 2"), want: []string{"fail " + main + ":1: is not valid TOML"}},
		{name: "version 1", spoil: replace(main, "version = 2", "version = 1"), want: []string{"warn " + main + ": is a configuration of version 1"}},
		{name: "block without end", spoil: replace(main, "# linkpin: end", ""), want: []string{"fail " + main + `:2: "# linkpin: begin`}},
		{name: "handler without spec", spoil: replace(main, "base_runtime_spec", "# "), want: []string{`fail containerd's runtime handler "linkpin": has no base_runtime_spec with linkpin's hooks`}},
		{name: "handler lost to an import", spoil: func(t *testing.T, h change.Host) {
			t.Helper()
			replace(main, "version = 2", "version = 2\nimports = ['x.toml']")(t, h)
			containerdPut(t, h, "/etc/containerd/x.toml", "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'x'\n")
		}, want: []string{`fail containerd's runtime handler "linkpin": is lost: containerd 1.7 takes the CRI plugin's whole table from /etc/containerd/x.toml, the last file that has one, and drops that of ` + main}},
		{name: "allow-list", spoil: replace(main, "pod_annotations = ['linkpin.io/*']", "pod_annotations = []"), want: []string{`fail containerd's runtime handler "linkpin": pod_annotations lacks "linkpin.io/*"`}},
		{name: "new annotation", c: install.Containerd{Annotations: []string{"x/y"}}, want: []string{
			`fail containerd's runtime handler "linkpin": container_annotations lacks "x/y"`, `fail containerd's runtime handler "linkpin": pod_annotations lacks "x/y"`,
		}},
		{name: "spec missing", spoil: remove(spec), want: []string{"fail " + spec + ": does not exist, and containerd's CRI plugin does not start without it"}},
		{name: "spec malformed", spoil: replace(spec, "{", "[{"), want: []string{"fail " + spec + ": is not JSON"}},
		{name: "hook missing", spoil: remove(containerdHook), want: []string{
			"fail " + spec + ": createRuntime calls " + containerdHook + ", which is no executable file", "fail " + spec + ": poststop calls " + containerdHook,
		}},
		{name: "stage missing", spoil: replace(spec, `"poststop"`, `"poststart"`), want: []string{
			"fail " + spec + ": has no poststop hook that calls linkpin", "warn " + spec + ": is stale", // poststart is not our stage
		}},
		{name: "short timeout", spoil: replace(spec, `"timeout": 60`, `"timeout": 44`), want: []string{
			"fail " + spec + ": createRuntime has a timeout of 44 s, and linkpin may need 45 s", "fail " + spec + ": poststop has a timeout of 44 s",
		}},
		{name: "long enough", spoil: replace(spec, `"timeout": 60`, `"timeout": 45`)},
		{name: "no timeout", spoil: replace(spec, `"timeout": 60`, `"env": []`), want: []string{
			"warn " + spec + ": createRuntime has no timeout", "warn " + spec + ": poststop has no timeout",
		}},
		{name: "another hook", c: install.Containerd{Hook: "/opt/linkpin-hook"}, want: []string{
			"warn " + spec + ": createRuntime calls " + containerdHook + ", not /opt/linkpin-hook", "warn " + spec + ": poststop calls",
		}},
		{name: "stale", c: install.Containerd{Spec: []byte(strings.Replace(containerdSpec, `"cwd": "/"`, `"cwd": "/x"`, 1))}, want: []string{
			"warn " + spec + `: is stale: its containers differ from those of handler "runc"`,
		}},
		{name: "disabled", text: "version = 2\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n", want: []string{"warn " + main + ": disabled_plugins switches the CRI plugin off"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := tc.text
			if text == "" {
				text = "version = 2\n"
			}
			h := containerdRoot(t, map[string]string{main: text, containerdHook: "#!\n", "/opt/linkpin-hook": "#!\n"})
			c := install.Containerd{Hook: containerdHook, Spec: []byte(containerdSpec), Version: "1.7.28"}
			plan, err := c.Install(h)
			containerdApply(t, h, plan, err)
			if !c.Uses(h, containerdHook) || c.Uses(h, "/opt/linkpin-hook") {
				t.Error("Uses does not know what was installed")
			}
			if tc.spoil != nil {
				tc.spoil(t, h)
			}
			if tc.c.Hook != "" {
				c.Hook = tc.c.Hook
			}
			if tc.c.Spec != nil {
				c.Spec = tc.c.Spec
			}
			c.Annotations = tc.c.Annotations
			got := c.Check(h)
			want := tc.want
			if want == nil {
				want = []string{`ok containerd's runtime handler "linkpin": calls ` + containerdHook}
			}
			if len(got) != len(want) {
				t.Fatalf("got\n%swant %q", containerdFindings(got), want)
			}
			for i, f := range got {
				if line := containerdFindings(got[i : i+1]); !strings.HasPrefix(line, want[i]) {
					t.Errorf("got  %swant %s", line, want[i])
				}
				if f.Level != change.OK && f.Remedy == "" {
					t.Errorf("no remedy: %s", f.Detail)
				}
			}
		})
	}
}

// A host with containerd that does not know linkpin.
func TestContainerdCheckNotInstalled(t *testing.T) {
	h := containerdRoot(t, map[string]string{"/etc/containerd/config.toml": "version = 2\n"})
	got := install.Containerd{Hook: containerdHook, Version: "1.7"}.Check(h)
	if s := containerdFindings(got); s != "warn containerd: does not call linkpin: it has no runtime handler with its hooks\n" {
		t.Error(s)
	}
	if (install.Containerd{Version: "1.7"}).Uses(h, containerdHook) {
		t.Error("used")
	}
	// Of what can't be understood the text counts.
	const spec = "/etc/linkpin/containerd/linkpin.json"
	containerdPut(t, h, spec, `{"hooks": "`+containerdHook+`"`)
	for text, want := range map[string]bool{
		"[": false, "[ # " + spec: true, "[ # " + containerdHook: true,
		"disabled_plugins = ['cri']\n": false, "x = '" + spec + "'\n": true,
	} {
		containerdPut(t, h, "/etc/containerd/config.toml", text)
		if got := (install.Containerd{Version: "1.7"}).Uses(h, containerdHook); got != want {
			t.Errorf("%q: used %v", text, got)
		}
	}
}

// A daemon that started before the file was written has to be restarted; only that of
// this machine can be seen, so proc is a copy here and the file is a real one.
func TestContainerdCheckRunning(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	base := filepath.Join(dir, "base.json")
	hook := filepath.Join(dir, "linkpin-hook")
	boot := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	call := func(stage string) string {
		return fmt.Sprintf(`{"path": %q, "args": ["linkpin-hook", %q, "--caller", "containerd"], "timeout": 60}`, hook, stage)
	}
	host := change.Host{Dir: dir}
	containerdPut(t, host, "linkpin-hook", "#!\n")
	containerdPut(t, host, "base.json", fmt.Sprintf(`{"ociVersion": "1.1.0", "hooks": {"createRuntime": [%s], "poststop": [%s]}}`, call("createRuntime"), call("poststop")))
	containerdPut(t, host, "config.toml", fmt.Sprintf("version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\nbase_runtime_spec = %q\npod_annotations = ['*/*']\ncontainer_annotations = ['*/*']\n", base))
	containerdPut(t, host, "proc/stat", fmt.Sprintf("cpu 1 2 3\nbtime %d\n", boot.Unix()))
	containerdPut(t, host, "proc/77/comm", "containerd\n")
	containerdPut(t, host, "proc/77/cmdline", "/usr/bin/containerd\x00--config\x00"+config+"\x00")
	containerdPut(t, host, "proc/77/stat", "77 (a) containerd) S"+strings.Repeat(" 1", 18)+" 10000 5 5\n") // 100 s after boot
	containerdPut(t, host, "proc/88/comm", "containerd-shim\n")

	c := install.Containerd{Hook: hook, Handler: "runc", Config: config, Version: "1.7", Spec: []byte(containerdSpec), Proc: filepath.Join(dir, "proc")}
	check := func(spec, conf time.Duration) string {
		for p, at := range map[string]time.Duration{base: spec, config: conf} {
			if err := os.Chtimes(p, boot, boot.Add(at)); err != nil {
				t.Fatal(err)
			}
		}
		return containerdFindings(c.Check(change.Host{}))
	}
	if s := check(90*time.Second, 99*time.Second); !strings.HasPrefix(s, "ok ") {
		t.Errorf("older files: %s", s)
	}
	if s := check(90*time.Second, 110*time.Second); !strings.HasPrefix(s, "fail containerd: process 77 started at ") || !strings.Contains(s, config) {
		t.Errorf("newer configuration: %s", s)
	}
	if s := check(110*time.Second, 90*time.Second); !strings.Contains(s, base) {
		t.Errorf("newer spec: %s", s)
	}
	containerdPut(t, host, "proc/77/cmdline", "/usr/bin/containerd\x00--config=/elsewhere.toml\x00")
	if s := check(90*time.Second, 110*time.Second); !strings.HasPrefix(s, "ok ") {
		t.Errorf("another daemon: %s", s)
	}
}
