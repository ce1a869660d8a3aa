// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs"
)

// childRole makes the test binary play the part of another linkpin process.
const childRole = "LINKPIN_PIN_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		os.Exit(child(role, os.Args[1:]))
	}
	os.Exit(bpftest.Main(m))
}

// childCommand returns a command that runs child(role, args) in another process.
func childCommand(t testing.TB, role string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	// The race detector would wait a second at every exit.
	cmd.Env = append(os.Environ(), childRole+"="+role, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// newRoot returns the state in a private bpffs.
func newRoot(t testing.TB) *Root {
	t.Helper()
	return createAt(t, bpftest.TempBPFFS(t))
}

func createAt(t testing.TB, path string) *Root {
	t.Helper()
	r, err := Create(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func newMap(t testing.TB) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func someRecord(policy string) Record {
	return Record{
		Policy: policy, Digest: "d1", OnError: specs.Deny, Teardown: specs.Drain, Scope: specs.ScopeContainer,
		Identity: specs.Identity{Caller: specs.CallerNone, ContainerID: "web"}, By: ByHook,
		Cgroup:   &CgroupRecord{Path: "/sys/fs/cgroup/web", ID: 4711},
		Programs: []ProgramRecord{{Name: "egress", Key: "egress", Hook: "cgroup_skb/egress", Target: specs.TargetCgroup, LinkID: 7, ProgramID: 8, Tag: "ab"}},
		Created:  time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC),
	}
}

// stage stages a complete entry: two links, a map, a record. What a link is made
// of does not matter here.
func stage(t testing.TB, r *Root, policy string) *Staging {
	t.Helper()
	s, err := r.Stage()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Discard() })
	for _, err := range []error{
		s.PinLink("ingress", newMap(t)), s.PinLink("egress@2", newMap(t)), s.PinMap("allow", newMap(t)),
		s.WriteRecord(someRecord(policy)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func lock(t testing.TB, r *Root, o Owner) *Lock {
	t.Helper()
	l, err := r.Lock(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Release() })
	return l
}

func release(t testing.TB, l *Lock) {
	t.Helper()
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
}

// publish puts an entry at p and gives the lock back.
func publish(t testing.TB, r *Root, p Place) {
	t.Helper()
	owner, ok := p.Owner()
	if !ok {
		t.Fatalf("%v has no owner", p)
	}
	l := lock(t, r, owner)
	if err := stage(t, r, p.Policy()).Publish(p); err != nil {
		t.Fatal(err)
	}
	release(t, l)
}

func entry(t testing.TB, r *Root, p Place) *Entry {
	t.Helper()
	e, err := r.Entry(p)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// tree returns every path below v1, except the directories that Create makes.
func tree(t testing.TB, r *Root) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(r.Path(), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(path, r.Path()), "/")
		if rel != "" && !slices.Contains(allDirs, Dir(rel)) {
			paths = append(paths, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func wantTree(t testing.TB, r *Root, want ...string) {
	t.Helper()
	if got := tree(t, r); !slices.Equal(got, want) {
		t.Errorf("tree:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want one that wraps %q", err, want)
	}
}
