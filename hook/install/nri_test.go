// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/hook/nri"
	"github.com/linkpin/linkpin/specs/change"
)

const (
	nriTestConf   = "/etc/nri/conf.d/linkpin-nri.conf"
	nriTestPlugin = "/opt/nri/plugins/10-linkpin-nri"
)

func TestNRINames(t *testing.T) {
	if b := (NRI{Hook: testHook, Host: hostFiles(t, nil)}).Binaries(); len(b) != 2 || b[0].Path != testHook || b[1] != (change.Binary{Name: nri.Name, Path: "/opt/nri/plugins/" + nri.Index + "-" + nri.Name}) {
		t.Errorf("the binaries are %+v", b)
	}
	if n := (NRI{}).file(); n != nri.DefaultFile {
		t.Errorf("the file is %s, but the plugin reads %s", n, nri.DefaultFile)
	}
}

func TestNRIInstall(t *testing.T) {
	for name, before := range map[string]string{
		"no directory": "",
		"empty":        "empty",
		"comments":     "# mine\n",
		"no line end":  "# mine",
		"document":     "---\n# mine\n",
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{nriTestConf: before}
			switch before {
			case "":
				files = nil
			case "empty":
				files[nriTestConf] = ""
			}
			h := hostFiles(t, files)
			was := hostTree(t, h)
			target := NRI{Hook: testHook}
			if got := mustInstall(t, h, target); len(got) != 1 || got[0] != nriTestConf {
				t.Fatalf("changes %v", got)
			}
			data, err := os.ReadFile(filepath.Join(h.Dir, nriTestConf))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(data), strings.TrimPrefix(before, "empty")) {
				t.Errorf("lost something:\n%s", data)
			}
			if c, err := nri.ParseConfig(nriTestConf, string(data)); err != nil || c.Hook != testHook {
				t.Errorf("the plugin reads %+v, %v from\n%s", c, err, data)
			}
			if !target.Uses(h, nriTestPlugin) {
				t.Error("Uses does not know the plugin")
			}
			if before == "# mine" { // the line end that was added stays
				return
			}
			checkInstalled(t, h, target, was)
		})
	}
}

// What stands around the hook's line stays; an old path is changed in its place.
func TestNRIUpdate(t *testing.T) {
	for _, old := range []string{"/old/linkpin-hook", `"/old/linkpin-hook"`, "'/old/linkpin-hook'"} {
		text := "# above\nhook: " + old + "   # beside\n# below, no line end"
		h := hostFiles(t, map[string]string{nriTestConf: text})
		mustInstall(t, h, NRI{Hook: testHook})
		data, err := os.ReadFile(filepath.Join(h.Dir, nriTestConf))
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.Replace(text, old, testHook, 1); string(data) != want {
			t.Errorf("got\n%s\nwant\n%s", data, want)
		}
		plan, err := NRI{}.Uninstall(h)
		if err != nil {
			t.Fatal(err)
		}
		mustApply(t, h, plan)
		if data, err = os.ReadFile(filepath.Join(h.Dir, nriTestConf)); err != nil || string(data) != "# above\n# below, no line end" {
			t.Errorf("after uninstall: %v\n%s", err, data)
		}
	}
	h := hostFiles(t, nil)
	mustInstall(t, h, NRI{Hook: testHook})
	file := filepath.Join(h.Dir, nriTestConf)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(data, "# added by hand\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	plan, err := NRI{}.Uninstall(h)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, h, plan)
	if data, err = os.ReadFile(file); err != nil || string(data) != "# added by hand\n" {
		t.Errorf("after uninstall: %v\n%s", err, data)
	}
}

func TestNRIRefused(t *testing.T) {
	for text, want := range map[string]string{
		"{\n":                   nriTestConf + ": is not valid YAML",
		"- a\n":                 nriTestConf + ":1: is not a mapping",
		"# x\nhok: /a\n":        nriTestConf + `:2: has the unknown key "hok"`,
		"{hook: /a}\n":          nriTestConf + ":1: is written in a way",
		"hook:\n  /a\n":         nriTestConf + ":2: is written in a way",
		"hook: \"/a\\u0062\"\n": nriTestConf + ":1: is written in a way",
		"hook: [/a]\n":          nriTestConf + ":1: is written in a way",
		"hook: 3\n":             nriTestConf + ":1: says no path",
	} {
		h := hostFiles(t, map[string]string{nriTestConf: text})
		_, err := NRI{Hook: testHook}.Install(h)
		checkRefused(t, err, want)
		_, err = NRI{}.Uninstall(h)
		checkRefused(t, err, want)
		if !(NRI{}).Uses(h, "/any") {
			t.Errorf("%q: an unreadable file counts as no use", text)
		}
	}
	for _, n := range []NRI{{Hook: "linkpin-hook"}, {Hook: testHook, Index: "1"}, {Hook: "/a\nb"}} {
		_, err := n.Install(hostFiles(t, nil))
		if err == nil {
			t.Errorf("%+v is installed", n)
		}
	}
}

func TestNRICheck(t *testing.T) {
	const config, required = "/etc/containerd/config.toml", "version = 3\n[plugins.'io.containerd.nri.v1.nri'.default_validator]\nenable = true\nrequired_plugins = ['linkpin-nri']\n"
	for _, tc := range []struct {
		name, version string
		files         map[string]string
		want          []string
	}{
		{"as it should be", "2.2", map[string]string{config: required}, []string{"ok " + nriTestPlugin + ": puts"}},
		{"no containerd", "", nil, []string{"ok "}},
		{"not required", "2.4.2", map[string]string{config: "version = 3\n"}, []string{"warn " + config + ": does not require the plugin: containers run without policies while"}},
		{"validator off", "2.4", map[string]string{config: strings.Replace(required, "true", "false", 1)}, []string{"warn " + config + ": does not require"}},
		{"other required", "2.4", map[string]string{config: strings.Replace(required, "linkpin", "other", 1)}, []string{"warn " + config + ": does not require"}},
		{"tolerated", "2.4", map[string]string{config: required + "tolerate_missing_plugins_annotation = 'x.y/z'\n"}, []string{"warn " + config + ": lets pods with the annotation x.y/z"}},
		{"hooks rejected", "2.4", map[string]string{config: required + "reject_oci_hook_adjustment = true\n"}, []string{"fail " + config + ": refuses plugins that add hooks"}},
		{"in an import", "2.4", map[string]string{config: "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n", "/etc/containerd/conf.d/nri.toml": required}, []string{"ok "}},
		{"2.1", "2.1", map[string]string{config: "version = 3\n"}, []string{"warn containerd 2.1: can't require"}},
		{"1.7", "1.7", map[string]string{config: "version = 2\n"}, []string{"fail " + config + ": leaves NRI switched off", "warn containerd 1.7: can't"}},
		{"1.7, on", "1.7", map[string]string{config: "version = 2\n[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = false\n"}, []string{"warn containerd 1.7: can't"}},
		{"1.7, replaced as a whole", "1.7", map[string]string{
			config:                   "version = 2\nimports = [\"/etc/containerd/b.toml\"]\n[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = false\n",
			"/etc/containerd/b.toml": "version = 2\n[plugins.\"io.containerd.nri.v1.nri\"]\nsocket_path = \"/run/x\"\n",
		}, []string{"fail " + config + ": leaves NRI switched off", "warn containerd 1.7: can't"}},
		{"1.6", "1.6", nil, []string{"fail containerd 1.6: has no NRI"}},
		{"disabled", "2.4", map[string]string{config: required + "[plugins.'io.containerd.nri.v1.nri']\ndisable = true\n"}, []string{"fail " + config + ": leaves NRI switched off"}},
		{"plugin disabled", "2.4", map[string]string{config: "disabled_plugins = ['io.containerd.nri.v1.nri']\n" + required}, []string{"fail " + config + ": disables io.containerd.nri.v1.nri"}},
		{"other directory", "2.4", map[string]string{config: required + "[plugins.'io.containerd.nri.v1.nri']\nplugin_path = '/opt/x'\n"}, []string{"fail " + config + ": plugin_path is /opt/x"}},
		{"malformed", "2.4", map[string]string{config: "version = \n"}, []string{"fail " + config + ":1: is not valid TOML"}},
		{"no plugin", "", map[string]string{nriTestPlugin: "<gone>"}, []string{"fail " + nriTestPlugin + ": is missing"}},
		{"no hook", "", map[string]string{testHook: "<gone>"}, []string{"fail " + testHook + ": is missing"}},
		{"bad file", "", map[string]string{nriTestConf: "hok: /x\n"}, []string{"fail " + nriTestConf + ":1: has the unknown key"}},
		{"no file", "", map[string]string{nriTestConf: "<gone>"}, []string{"fail /usr/local/bin/linkpin-hook: is missing"}},
		{"second file", "", map[string]string{"/etc/nri/conf.d/10-linkpin-nri.conf": "hook: " + testHook + "\n"}, []string{"warn /etc/nri/conf.d/10-linkpin-nri.conf: is read instead"}},
		{"second copy", "", map[string]string{"/opt/nri/plugins/20-linkpin-nri": "x"}, []string{"warn /opt/nri/plugins/20-linkpin-nri: is a second copy"}},
		{"no index", "", map[string]string{"/opt/nri/plugins/linkpin-nri": "x"}, []string{"fail /opt/nri/plugins/linkpin-nri: has no index"}},
		{"CRI-O off", "", map[string]string{crioConf: "[crio.nri]\nenable_nri = false\n"}, []string{"fail " + crioConf + ": switches NRI off"}},
		{"CRI-O on again", "", map[string]string{crioConf: "[crio.nri]\nenable_nri = false\n", crioDropIn + "/9.conf": "[crio.nri]\nenable_nri = true\n"}, []string{"ok "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := hostFiles(t, map[string]string{nriTestPlugin: "x"})
			mustInstall(t, h, NRI{Hook: testHook})
			for name, text := range tc.files {
				if text == "<gone>" {
					if err := os.Remove(filepath.Join(h.Dir, name)); err != nil {
						t.Fatal(err)
					}
					continue
				}
				putFile(t, h, name, text)
			}
			plugins, err := filepath.Glob(filepath.Join(h.Dir, "/opt/nri/plugins/*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range plugins {
				if err := os.Chmod(p, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			checkFindings(t, NRI{Version: tc.version, Host: h}.Check(h), tc.want...)
		})
	}
	if got := (NRI{Version: "2.4"}).Check(hostFiles(t, nil)); got != nil {
		t.Errorf("not installed: %v", got)
	}
	var _ change.Target = NRI{}
}
