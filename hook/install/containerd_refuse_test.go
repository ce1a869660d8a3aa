// SPDX-License-Identifier: Apache-2.0

package install_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/hook/install"
)

func TestContainerdRefuses(t *testing.T) {
	const main = "/etc/containerd/config.toml"
	for _, tc := range []struct {
		name, version, text, want string
		files                     map[string]string
		handler                   string
	}{
		{name: "malformed", text: "version = 2\n\nx = = 1\n", want: main + ":3: is not valid TOML: "},
		{name: "malformed import", text: "version = 2\nimports = ['x.toml']\n", files: map[string]string{"/etc/containerd/x.toml": "\n[a\n"}, want: "/etc/containerd/x.toml:2: is not valid TOML: "},
		{name: "version 1", text: "disabled_plugins = ['cri']\n", want: "is a configuration of version 1"},
		{name: "too new", text: "version = 3\n", want: "has version 3; containerd 1.7 knows versions 2 to 2; see `containerd config migrate`"},
		{name: "mixed", version: "2.2", text: "version = 2\nimports = ['x.toml']\n", files: map[string]string{"/etc/containerd/x.toml": "version = 3\n"}, want: "takes the last one for all of them"},
		{name: "both tables", version: "2.2", text: "version = 2\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\n", want: "tables of version 3"},
		{name: "import missing", text: "version = 2\nimports = ['x.toml']\n", want: main + ": imports /etc/containerd/x.toml, which does not exist: containerd does not start; "},
		{name: "no default", text: "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'nvidia'\n", want: `no runtime handler "nvidia", which default_runtime_name names`},
		{name: "default_runtime", text: "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.default_runtime]\nruntime_type = 'x'\n", want: "has the deprecated table default_runtime"},
		{name: "not a list", handler: "runc", text: "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\npod_annotations = 'x'\n", want: `pod_annotations of runtime handler "runc" is not a list`},
		{name: "array of tables", text: "version = 2\n[[plugins]]\nx = 1\n", want: "is written in a way that can't be edited safely"},
		{name: "begin without end", text: "version = 2\n# linkpin: begin (x)\n[a]\n", want: main + `:2: "# linkpin: begin`},
		{name: "end without begin", text: "version = 2\n# linkpin: end\n", want: main + `:2: "# linkpin: end" has no`},
		{name: "base spec missing", text: "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nbase_runtime_spec = '/x.json'\n", want: "/x.json: is named as base_runtime_spec and does not exist"},
		{name: "base spec malformed", text: "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nbase_runtime_spec = '/x.json'\n", files: map[string]string{"/x.json": "{"}, want: "/x.json: is not JSON: "},
		{name: "old", version: "1.5.18", text: "version = 2\n", want: "containerd 1.5: is too old"},
		{name: "handler", handler: "a b", text: "version = 2\n", want: "is not a name for a runtime handler"},
		{name: "later file wins", version: "2.1", handler: "runc", text: "version = 3\nimports = ['conf.d/*.toml', 'z.toml']\n", files: map[string]string{
			"/etc/containerd/z.toml": "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\npod_annotations = ['a']\n",
		}, want: `runtime handler "runc": can't be put into effect: a file that is read later overrides it; look into the imports, the last of which is /etc/containerd/z.toml`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := map[string]string{main: tc.text}
			maps.Copy(files, tc.files)
			h := containerdRoot(t, files)
			c := install.Containerd{Hook: containerdHook, Spec: []byte(containerdSpec), Version: tc.version, Handler: tc.handler}
			if c.Version == "" {
				c.Version = "1.7.28"
			}
			_, err := c.Install(h)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v\nwant %s", err, tc.want)
			}
		})
	}
}

// The handler that goes must not be the default.
func TestContainerdUninstallDefault(t *testing.T) {
	c := install.Containerd{Hook: containerdHook, Spec: []byte(containerdSpec), Version: "1.7"}
	const main = "/etc/containerd/config.toml"
	h := containerdRoot(t, map[string]string{main: "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'linkpin'\n"})
	plan, err := c.Install(h)
	containerdApply(t, h, plan, err)
	if !strings.Contains(containerdFiles(t, h)[main], "runtime_type = 'io.containerd.runc.v2'") {
		t.Error("the built-in handler was not copied")
	}
	for _, n := range plan.Notes {
		if strings.Contains(n, "RuntimeClass") {
			t.Errorf("the default handler needs no RuntimeClass: %s", n)
		}
	}
	if _, err := c.Uninstall(h); err == nil || !strings.Contains(err.Error(), `default_runtime_name = "linkpin"`) {
		t.Errorf("got %v", err)
	}
}
