// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs/change"
)

// What a file says of directories is believed only of those that lead to it.
func TestMadeIsNotTrusted(t *testing.T) {
	foreign := []string{"/opt/empty", "/srv/a/b", "/srv/a", "/etc/cni/net.d", "/etc/../opt/empty", "/etc/crio/crio.conf.d"}
	for _, c := range []struct {
		name   string
		target change.Target
		file   string
		files  map[string]string
		// also are directories that Install does not make, and that are rightly removed.
		also []string
		say  func(text string, dirs []string) string
	}{
		{name: "podman", target: Podman{Hook: testHook}, file: hooksdDefault + "/" + podmanCreateName, say: sayHooksd},
		{name: "podman, private", target: Podman{Hook: testHook}, file: "/etc/linkpin/podman-hooks.d/" + podmanCreateName,
			files: map[string]string{podmanConf: "[engine]\nhooks_dir = []\n"}, say: sayHooksd},
		{name: "CRI-O", target: CRIO{Hook: testHook}, file: hooksdDefault + "/90-linkpin-crio-createRuntime.json", say: sayHooksd},
		{name: "CRI-O, private", target: CRIO{Hook: testHook}, file: "/etc/linkpin/crio-hooks.d/90-linkpin-crio-createRuntime.json",
			files: map[string]string{crioConf: "[crio.runtime]\nhooks_dir = []\n"}, also: []string{"/etc/crio/crio.conf.d"}, say: sayHooksd},
		{name: "cdi", target: testCDI, file: cdiFile, say: func(text string, dirs []string) string {
			return strings.Replace(text, cdiHead, cdiHead+cdiMade+strings.Join(append(dirs, "/etc/cdi"), " ")+"\n# ", 1)
		}},
		{name: "nri", target: NRI{Hook: testHook}, file: nriTestConf, say: func(text string, dirs []string) string {
			return strings.Replace(text, nriMade, nriMade+strings.Join(dirs, " ")+" ", 1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hostFiles(t, c.files)
			for _, dir := range foreign {
				if !slices.Contains(c.also, dir) {
					putFile(t, h, dir+"/", "")
				}
			}
			before := hostTree(t, h)
			mustInstall(t, h, c.target)
			forge := func() {
				data, err := os.ReadFile(filepath.Join(h.Dir, c.file))
				if err != nil {
					t.Fatal(err)
				}
				forged := c.say(string(data), slices.Clone(foreign))
				if forged == string(data) {
					t.Fatalf("nothing forged in\n%s", data)
				}
				putFile(t, h, c.file, forged)
			}
			forge()
			mustInstall(t, h, c.target) // brings it up to date, or leaves it
			if data, err := os.ReadFile(filepath.Join(h.Dir, c.file)); err != nil || strings.Contains(string(data), "/opt/empty") && c.name != "nri" {
				t.Errorf("an update repeats it: %v\n%s", err, data)
			}
			if c.name != "nri" {
				forge()
			}
			plan, err := c.target.Uninstall(h)
			if err != nil {
				t.Fatal(err)
			}
			mustApply(t, h, plan)
			if d := cmp.Diff(before, hostTree(t, h)); d != "" {
				t.Error(d)
			}
		})
	}
}

func sayHooksd(text string, dirs []string) string {
	said := `"io.linkpin.made": [` + "\n"
	return strings.Replace(text, said, said+`"`+strings.Join(dirs, `", "`)+`",`, 1)
}
