// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs/change"
)

const nriTestPlugin20 = "/opt/nri/plugins/20-linkpin-nri"

// putPlugins puts executable files into the plugin directory.
func putPlugins(t *testing.T, h change.Host, paths ...string) {
	t.Helper()
	for _, p := range paths {
		putFile(t, h, p, "plugin")
		if err := os.Chmod(filepath.Join(h.Dir, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// Without an index, the plugin that is there is meant.
func TestNRIIndexOfThePluginThatIsThere(t *testing.T) {
	h := hostFiles(t, map[string]string{
		"/opt/nri/plugins/05-other": "x", "/opt/nri/plugins/linkpin-nri": "x", "/opt/nri/plugins/1-linkpin-nri": "x", "/opt/nri/plugins/07-linkpin-nri/": "",
	})
	n := NRI{Hook: testHook, Host: h}
	if got := n.Binaries()[1].Path; got != nriTestPlugin {
		t.Errorf("without a plugin: %s", got)
	}
	putPlugins(t, h, nriTestPlugin20)
	if got := n.Binaries()[1].Path; got != nriTestPlugin20 {
		t.Errorf("with a plugin: %s", got)
	}
	if got := (NRI{Host: h, Index: "30"}).Binaries()[1].Path; got != "/opt/nri/plugins/30-linkpin-nri" {
		t.Errorf("with an index: %s", got)
	}
	if !n.Uses(h, nriTestPlugin20) || n.Uses(h, nriTestPlugin) {
		t.Error("Uses does not go by what is there")
	}
	// The index is that on the host of the call: the plugin stays where it is.
	if got := mustInstall(t, h, NRI{Hook: testHook}); !slices.Equal(got, []string{nriTestConf}) {
		t.Errorf("changes %v", got)
	}
}

// A plugin that has lost its configuration or its hook refuses all containers: all go,
// and before both.
func TestNRIUninstallRemovesEveryPlugin(t *testing.T) {
	h := hostFiles(t, map[string]string{"/opt/nri/plugins/05-other": "x", "/opt/nri/plugins/07-linkpin-nri/": ""})
	before := hostTree(t, h)
	putPlugins(t, h, nriTestPlugin20)
	mustInstall(t, h, NRI{Hook: testHook, Index: "20"})
	putPlugins(t, h, "/opt/nri/plugins/30-linkpin-nri")
	for _, n := range []NRI{{}, {Index: "10"}, {Index: "30"}} {
		plan, err := n.Uninstall(h)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range plan.Changes[:min(3, len(plan.Changes))] {
			got = append(got, string(c.Kind())+" "+c.Path)
		}
		if d := cmp.Diff([]string{"remove " + nriTestPlugin20, "remove /opt/nri/plugins/30-linkpin-nri", "remove " + nriTestConf}, got); d != "" {
			t.Errorf("%+v: %s", n, d)
		}
	}
	plan, err := NRI{}.Uninstall(h)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, h, plan)
	if d := cmp.Diff(before, hostTree(t, h)); d != "" {
		t.Error(d)
	}
	// Without a configuration, too.
	putPlugins(t, h, nriTestPlugin20)
	if plan, err = (NRI{}).Uninstall(h); err != nil || len(plan.Changes) != 1 || len(plan.Notes) != 1 {
		t.Errorf("%v, %v", plan, err)
	}
}

func TestNRIIndexChanges(t *testing.T) {
	h := hostFiles(t, nil)
	putPlugins(t, h, nriTestPlugin20)
	mustInstall(t, h, NRI{Hook: testHook, Index: "20"})
	putPlugins(t, h, "/opt/nri/plugins/30-linkpin-nri") // as the command does before
	plan, err := NRI{Hook: testHook, Index: "30"}.Install(h)
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Notes) == 0 {
		t.Error("says nothing of a restart")
	}
	if got := mustApply(t, h, plan); !slices.Equal(got, []string{nriTestPlugin20}) {
		t.Errorf("changes %v", got)
	}
	if plan, err := (NRI{Hook: testHook}).Install(h); err != nil || !plan.Empty() {
		t.Errorf("a second install: %v, %v", plan, err)
	}
}

// What a link leads to may be a package's.
func TestNRIPluginIsALink(t *testing.T) {
	h := hostFiles(t, map[string]string{nriTestPlugin20: "-> /usr/libexec/linkpin/linkpin-nri"})
	putPlugins(t, h, "/usr/libexec/linkpin/linkpin-nri")
	before := hostTree(t, h)
	_, err := NRI{}.Uninstall(h)
	checkRefused(t, err, nriTestPlugin20+": is a symbolic link")
	_, err = NRI{Hook: testHook, Index: "10"}.Install(h)
	checkRefused(t, err, nriTestPlugin20+": is a symbolic link")
	if d := cmp.Diff(before, hostTree(t, h)); d != "" {
		t.Error(d)
	}
	if got := mustInstall(t, h, NRI{Hook: testHook}); !slices.Equal(got, []string{nriTestConf}) {
		t.Errorf("changes %v", got)
	}
}

// A plugin's directory that can't be read is no directory without plugins.
func TestNRIPluginDirUnreadable(t *testing.T) {
	h := hostFiles(t, map[string]string{"/opt/nri/plugins": "-> plugins"}) // a loop
	for _, plan := range []func(change.Host) (*change.Plan, error){NRI{}.Uninstall, NRI{Hook: testHook}.Install} {
		_, err := plan(h)
		checkRefused(t, err, "/opt/nri/plugins: ")
	}
	if !(NRI{}).Uses(h, "/any") {
		t.Error("what can't be read counts as no use")
	}
}
