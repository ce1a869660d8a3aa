// SPDX-License-Identifier: Apache-2.0

package install

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// rewritten are the files that their providers write anew.
var rewritten = map[string]bool{
	"05-cilium.conflist": true, "10-azure.conflist": true, "10-calico.conflist": true, "10-flannel.conflist": true, "10-kindnet.conflist": true,
}

var rewrite = flag.Bool("update", false, "write the golden files anew")

// Configurations as people have them: the edit as it should look, nothing planned
// the second time, and the same bytes after uninstall.
func TestGolden(t *testing.T) {
	wants, err := filepath.Glob("testdata/*.want")
	if err != nil || len(wants) != 11 {
		t.Fatalf("%d files, %v", len(wants), err)
	}
	for _, file := range wants {
		input := strings.TrimSuffix(file, ".want")
		name := filepath.Base(input)
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			before := map[string]string{name: string(data)}
			h, c := hostWith(t, before), &CNI{}
			plan := install(t, c, h)
			list := strings.TrimSuffix(name, filepath.Ext(name)) + ".conflist"
			got := configs(t, h)[list]
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(input + ".want")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			said := strings.Contains(plan.Diff(), "# /etc/cni/net.d/"+name+": ")
			if want := rewritten[name]; said != want {
				t.Errorf("says that the provider writes the file: %v, want %v:\n%s", said, want, plan.Diff())
			}
			nothingLeft(t, c.Install, h)
			uninstall(t, c, h)
			sameFiles(t, h, before)
			nothingLeft(t, c.Uninstall, h)
		})
	}
}
