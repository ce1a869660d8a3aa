// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs/change"
)

// TestWhen goes through what is installed, chosen and needed.
func TestWhen(t *testing.T) {
	const none, other When = "", "other" // other has conditions that are not linkpin's
	for _, c := range []struct {
		installed, when, need When
		want                  When   // after Install
		finding               string // of Check before it, if something is installed
	}{
		{none, none, none, Always, ""},
		{none, none, OptIn, OptIn, ""},
		{none, none, Always, Always, ""},
		{none, OptIn, Always, OptIn, ""},
		{none, Always, OptIn, Always, ""},
		// What is installed stays if it is enough.
		{OptIn, none, none, OptIn, "ok"},
		{OptIn, none, OptIn, OptIn, "ok"},
		{OptIn, none, Always, Always, "fail"},
		{Always, none, none, Always, "ok"},
		{Always, none, OptIn, Always, "ok"},
		{Always, none, Always, Always, "ok"},
		{other, none, OptIn, Always, "fail"},
		// What the user says counts more.
		{OptIn, Always, none, Always, "fail"},
		{Always, OptIn, Always, OptIn, "ok"},
		{OptIn, OptIn, Always, OptIn, "ok"},
	} {
		for _, name := range []string{"podman", "crio"} {
			t.Run(name+" "+string(c.installed)+" "+string(c.when)+" "+string(c.need), func(t *testing.T) {
				h := hostFiles(t, map[string]string{"/usr/bin/" + name: ""})
				make := func(when, need When) change.Target {
					if name == "crio" {
						return CRIO{Hook: testHook, When: when, Need: need}
					}
					return Podman{Hook: testHook, When: when, Need: need}
				}
				file := hooksdDefault + "/90-linkpin-" + name + "-createRuntime.json"
				read := func() When {
					data, err := os.ReadFile(filepath.Join(h.Dir, file))
					if err != nil {
						t.Fatal(err)
					}
					says, err := hooksdParse(file, data)
					switch {
					case err != nil:
						t.Fatal(err)
					case says.When.always():
						return Always
					case says.When.optIn():
						return OptIn
					}
					return other
				}
				switch c.installed {
				case Always, OptIn:
					mustInstall(t, h, make(c.installed, none))
				case other:
					mustInstall(t, h, make(Always, none))
					data, err := os.ReadFile(filepath.Join(h.Dir, file))
					if err != nil {
						t.Fatal(err)
					}
					putFile(t, h, file, strings.Replace(string(data), `"always": true`, `"commands": ["x"]`, 1))
				}
				if c.installed != none {
					if got := read(); got != c.installed {
						t.Fatalf("%s is installed", got)
					}
					level := "ok"
					for _, f := range make(c.when, c.need).Check(h) {
						if f.Level != change.OK {
							level = string(f.Level)
						}
					}
					if level != c.finding {
						t.Errorf("Check says %s", findings(make(c.when, c.need).Check(h)))
					}
				}
				target := make(c.when, c.need)
				mustInstall(t, h, target)
				if got := read(); got != c.want {
					t.Errorf("installed %s, want %s", got, c.want)
				}
				if plan, err := target.Install(h); err != nil || !plan.Empty() {
					t.Errorf("a second install: %v, %v", plan, err)
				}
			})
		}
	}
	_, err := Podman{Hook: testHook, Need: "never"}.Install(hostFiles(t, nil))
	checkRefused(t, err, `has no condition "never"`)
}
