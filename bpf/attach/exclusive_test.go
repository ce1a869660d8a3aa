// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs"
)

// Only what would really refuse a link below is found.
func TestFindExclusive(t *testing.T) {
	const override, multi = 1, 2
	top := bpftest.Cgroup(t)
	dir := func(path string) string {
		d := filepath.Join(top, path)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		return d
	}
	p := trivial(t, connect4)
	for _, path := range []string{"blocks/pod/ctr", "override/pod", "multi/pod", "link/pod", "leaf"} {
		dir(path)
	}
	legacy(t, dir("blocks"), p, 0)
	legacy(t, dir("override"), p, override)
	legacy(t, dir("multi"), p, multi)
	legacy(t, dir("leaf"), p, 0)
	mustAttach(t, p, specs.Attachment{Hook: connect4}, Target{Cgroup: openCgroup(t, dir("link"))})

	found, complete, err := FindExclusive(top)
	if err != nil || !complete {
		t.Fatalf("complete %v, %v", complete, err)
	}
	if len(found) != 1 || found[0].Cgroup != dir("blocks") || found[0].Hook != connect4 {
		t.Errorf("found %+v", found)
	}
	dir("a/b/c/d/e/f/g")
	if _, complete, err := FindExclusive(top); complete || err != nil {
		t.Errorf("cgroups too deep to look at: complete %v, %v", complete, err)
	}
	if found, _, err := FindExclusive(bpftest.Cgroup2Mount(t)); err != nil ||
		!slices.ContainsFunc(found, func(e Exclusive) bool { return e.Cgroup == dir("blocks") }) {
		t.Errorf("from the mount point: %+v, %v", found, err)
	}
}
