// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs/change"
)

func TestCheckVMs(t *testing.T) {
	const (
		containerd2 = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n"
		drop        = "/etc/containerd/conf.d/vm.toml"
	)
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  []string // "what: beginning of the detail"
	}{
		{name: "nothing"},
		{name: "runc, crun and youki", files: map[string]string{
			"/usr/bin/runc": "", "/usr/bin/crun": "", "/usr/bin/youki": "",
			"/etc/containerd/config.toml": containerd2 + "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.crun]\nruntime_type = 'io.containerd.runc.v2'\n" +
				"[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.crun.options]\nBinaryName = '/usr/bin/crun'\n",
			"/etc/crio/crio.conf":             "[crio.runtime.runtimes.youki]\nruntime_path = '/usr/bin/youki'\nruntime_type = 'oci'\n[crio.runtime.runtimes.runc]\n",
			"/etc/containers/containers.conf": "[engine]\nruntime = 'crun'\n[engine.runtimes]\ncrun = ['/usr/bin/crun']\nyouki = []\n",
			"/etc/docker/daemon.json":         `{"default-runtime": "crun", "runtimes": {"crun": {"path": "/usr/bin/crun"}}}`,
		}},
		{name: "programs", files: map[string]string{
			"/usr/bin/kata-runtime": "", "/opt/kata/bin/containerd-shim-kata-v2": "", "/usr/local/bin/runsc": "", "/usr/local/bin/containerd-shim-runsc-v1": "",
			"/bin": "-> usr/bin",
		}, want: []string{"/usr/bin/kata-runtime: is here", "/opt/kata/bin/containerd-shim-kata-v2: is here", "/usr/local/bin/runsc: is here", "/usr/local/bin/containerd-shim-runsc-v1: is here"}},
		{name: "containerd", files: map[string]string{
			"/etc/containerd/config.toml": "imports = ['/etc/containerd/conf.d/*.toml']\nversion = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.kata]\nruntime_type = 'io.containerd.kata-qemu.v2'\n",
			drop: "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.gv]\nruntime_type = 'io.containerd.runsc.v1'\n" +
				"[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.old]\nruntime_type = 'io.containerd.runc.v2'\noptions = {BinaryName = '/opt/x/kata-runtime'}\n" +
				"[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.shim]\nruntime_type = 'x'\nruntime_path = '/opt/containerd-shim-kata-v2'\n",
		}, want: []string{
			drop + `: containerd's runtime handler "gv": runtime_type io.containerd.runsc.v1 runs`,
			`/etc/containerd/config.toml: containerd's runtime handler "kata": runtime_type io.containerd.kata-qemu.v2`,
			drop + `: containerd's runtime handler "old": BinaryName /opt/x/kata-runtime`,
			drop + `: containerd's runtime handler "shim": runtime_path /opt/containerd-shim-kata-v2`,
		}},
		{name: "CRI-O", files: map[string]string{
			"/etc/crio/crio.conf":              "[crio.runtime.runtimes.vm]\nruntime_path = '/x/shim'\nruntime_type = 'vm'\n[crio.runtime.runtimes.replaced]\nruntime_path = '/x/runsc'\n",
			"/etc/crio/crio.conf.d/50-kata":    "[crio.runtime.runtimes.sandboxed]\nruntime_path = '/usr/bin/containerd-shim-kata-v2'\n[crio.runtime.runtimes.runsc]\n",
			"/etc/crio/crio.conf.d/60-nothing": "[crio.runtime.runtimes.replaced]\nruntime_path = '/usr/bin/runc'\n",
		}, want: []string{
			`/etc/crio/crio.conf.d/50-kata: CRI-O's runtime handler "runsc": program runsc`,
			`/etc/crio/crio.conf.d/50-kata: CRI-O's runtime handler "sandboxed": runtime_path /usr/bin/containerd-shim-kata-v2`,
			`/etc/crio/crio.conf: CRI-O's runtime handler "vm": runtime_type vm`,
		}},
		{name: "podman", files: map[string]string{
			"/etc/containers/containers.conf":          "[engine]\nruntime = 'kata'\n[engine.runtimes]\ngv = ['/usr/bin/none', '/usr/local/bin/runsc']\n",
			"/etc/containers/containers.conf.d/x.conf": "[engine.runtimes]\nrunsc = []\n",
		}, want: []string{
			`/etc/containers/containers.conf: podman's runtime handler "gv": path /usr/local/bin/runsc`,
			`/etc/containers/containers.conf: podman's runtime handler "kata": runtime kata`,
			`/etc/containers/containers.conf.d/x.conf: podman's runtime handler "runsc": program runsc`,
		}},
		{name: "podman's default is set anew", files: map[string]string{
			"/etc/containers/containers.conf":          "[engine]\nruntime = 'kata'\n",
			"/etc/containers/containers.conf.d/x.conf": "[engine]\nruntime = 'crun'\n",
		}},
		{name: "docker", files: map[string]string{
			"/etc/docker/daemon.json": `{"default-runtime": "io.containerd.kata.v2", "runtimes": {"a": {"path": "/usr/local/bin/runsc"}, "b": {"runtimeType": "io.containerd.kata.v2"}, "c": {"path": "/usr/bin/crun"}}}`,
		}, want: []string{
			`/etc/docker/daemon.json: docker's runtime handler "a": path /usr/local/bin/runsc`,
			`/etc/docker/daemon.json: docker's runtime handler "b": runtimeType io.containerd.kata.v2`,
			`/etc/docker/daemon.json: docker's runtime handler "io.containerd.kata.v2": default-runtime io.containerd.kata.v2`,
		}},
		{name: "docker, malformed", files: map[string]string{"/etc/docker/daemon.json": "{"}, want: []string{"/etc/docker/daemon.json: can't be understood: "}},
		{name: "docker, unreadable", files: map[string]string{"/etc/docker/daemon.json/": ""}, want: []string{"/etc/docker/daemon.json: is not a regular file"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, f := range CheckVMs(hostFiles(t, tc.files)) {
				if f.Level != change.Warn || f.Remedy == "" {
					t.Errorf("no warning with a remedy: %+v", f)
				}
				got = append(got, fmt.Sprintf("%s: %s", f.What, f.Detail))
			}
			for i, line := range got {
				if i < len(tc.want) && strings.HasPrefix(line, tc.want[i]) && (strings.HasSuffix(line, ": cgroup programs see nothing there") || strings.HasPrefix(tc.name, "docker, ")) {
					got[i] = tc.want[i]
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A directory or file that can't be read is said, not passed over.
func TestChecksSayWhatTheyCannotRead(t *testing.T) {
	loop := "-> loop" // a link to itself: reading it fails, for root too
	t.Run("nri", func(t *testing.T) {
		h := hostFiles(t, map[string]string{"/opt/nri/loop": loop, "/opt/nri/plugins": loop})
		got := NRI{Hook: testHook}.Check(h)
		if len(got) != 1 || got[0].Level != change.Fail || got[0].What != "/opt/nri/plugins" || got[0].Remedy == "" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("cdi", func(t *testing.T) {
		h := hostFiles(t, map[string]string{
			"/usr/bin/podman": "", "/usr/bin/crio": "", "/etc/cdi/broken.yaml": "kind: [", "/etc/cdi/gone.yaml": "-> /nowhere", "/var/run/loop": loop, "/var/run/cdi": loop,
			"/etc/containers/containers.conf": "[engine]\ncdi_spec_dirs = 'x'\n", "/etc/crio/loop": loop, "/etc/crio/crio.conf.d": loop,
		})
		mustInstall(t, h, CDI{Hook: testHook, Policies: []CDIPolicy{{Name: "a"}}})
		var got []string
		for _, f := range (CDI{Hook: testHook, Policies: []CDIPolicy{{Name: "a"}}}).Check(h) {
			if f.Remedy == "" {
				t.Errorf("no remedy: %+v", f)
			}
			got = append(got, string(f.Level)+" "+f.What)
		}
		want := []string{"warn /etc/cdi/broken.yaml", "warn /var/run/cdi", "fail /etc/containers/containers.conf", "fail configuration"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}
