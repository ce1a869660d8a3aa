// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
)

// Between leaving its cgroup and becoming a zombie a process looks alive, and its cgroup
// may be gone: a poststop that comes in this moment must not take the container for one
// whose cgroup is merely mounted elsewhere.
func TestProcessThatIsExiting(t *testing.T) {
	proc := t.TempDir()
	for _, dir := range []string{"77", "self"} {
		if err := os.Mkdir(filepath.Join(proc, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/proc/self/mountinfo", filepath.Join(proc, "self", "mountinfo")); err != nil {
		t.Fatal(err)
	}
	stat := "77 (sh) R 1 77 77 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0 0"
	if err := os.WriteFile(filepath.Join(proc, "77", "stat"), []byte(stat), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Session{Roots: target.Roots{Proc: proc}}
	rec := &pin.Record{PID: 77, Start: 4711, Cgroup: &pin.CgroupRecord{Path: filepath.Join(proc, "web"), ID: 1 << 60}}
	for cgroup, want := range map[string]bool{"/elsewhere/web": false, "/elsewhere/web (deleted)": true} {
		if err := os.WriteFile(filepath.Join(proc, "77", "cgroup"), fmt.Appendf(nil, "0::%s\n", cgroup), 0o600); err != nil {
			t.Fatal(err)
		}
		if ended, err := s.containerEnded(rec); err != nil || ended != want {
			t.Errorf("in %s: ended %v, %v", cgroup, ended, err)
		}
	}
}
