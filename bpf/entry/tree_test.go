// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
)

// treeFixture has an entry of every kind, a member and an index.
func treeFixture(t *testing.T) (*fixture, *container, *sandbox) {
	t.Helper()
	ps := interfacePlans(t)
	ps["cg"] = plan(t, "cg", program("connect4", "cgroup/connect4"))
	ps["nf"] = netfilterPlan(t, "nf")
	ps["pod"] = podPlans(t)["pod"]
	f := newFixture(t, ps)
	s, c := newSandbox(t, "pod", "lptr0"), newContainer(t, "web")
	f.mustAdd(t, s, "xdp", "nf")
	if err := f.addPod(t, s, openPod(t, bpftest.Cgroup(t))); err != nil {
		t.Fatal(err)
	}
	f.By = pin.ByHook
	f.joined(t, s, c, onInterface(s, "tcx"))
	return f, c, s
}

// What linkpin makes is nowhere odd.
func TestTreeInOrder(t *testing.T) {
	f, c, _ := treeFixture(t)
	st, err := f.Root.Stage()
	if err != nil {
		t.Fatal(err)
	}
	defer st.Discard()
	old := newContainer(t, "old")
	f.mustAttach(t, old, "cg")
	if _, err := f.Root.Retire(pin.ContainerEntry(old.key, "cg"), "ended", 0); err == nil {
		t.Fatal("retired without its lock")
	}
	l := f.lock(t, pin.Container(old.key))
	if _, err := f.Root.Retire(pin.ContainerEntry(old.key, "cg"), "ended", 0); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	wantProblems(t, f.Examine().Tree())
	x := f.Examine()
	if err := f.Walk(func(it Item) error {
		for _, found := range x.Entry(it) {
			if found.Problem != ProblemUnknown { // netfilter
				t.Errorf("%s: %+v", it.Place, found)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	_ = c
}

// Owner and permissions of everything are seen and given back.
func TestTreeModes(t *testing.T) {
	f, c, s := treeFixture(t)
	base := f.Root.Path()
	member := "sandboxes/" + string(s.sub.Sandbox) + "/members/" + string(c.key)
	for _, path := range []string{
		"containers", "retired", "staging", "netns", "containers/" + string(c.key),
		pin.ContainerEntry(c.key, "cg").String(), pin.ContainerEntry(c.key, "cg").String() + "/meta",
		pin.ContainerEntry(c.key, "cg").String() + "/link_connect4", "sandboxes/" + string(s.sub.Sandbox) + "/hook", member,
		pin.NetnsEntry(s.sub.Sandbox, "nf").String(), pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "xdp").String(),
	} {
		for name, change := range map[string]func(string) error{
			"chmod": func(p string) error { return os.Chmod(p, 0o777) },
			"chown": func(p string) error { return os.Chown(p, 1234, -1) },
		} {
			full := filepath.Join(base, path)
			var before, after unix.Stat_t
			if err := unix.Lstat(full, &before); err != nil {
				t.Fatal(path, err)
			}
			if err := change(full); err != nil {
				t.Fatal(err)
			}
			findings := f.Examine().Tree()
			wantProblems(t, findings, ProblemMode)
			if t.Failed() {
				t.Fatalf("%s %s", name, path)
			}
			if !findings[0].Problem.Drift() || findings[0].Path != path {
				t.Errorf("%s %s: %+v", name, path, findings[0])
			}
			repaired := f.Examine().RepairTree()
			wantProblems(t, repaired, ProblemMode)
			if len(repaired) != 1 || repaired[0].Repaired == "" {
				t.Fatalf("%s %s: %+v", name, path, repaired)
			}
			if err := unix.Lstat(full, &after); err != nil || after.Mode != before.Mode || after.Uid != 0 {
				t.Errorf("%s %s: %o of %d, %v", name, path, after.Mode, after.Uid, err)
			}
			wantProblems(t, f.Examine().Tree())
		}
	}
}

// What others could have put into the tree is not taken over, and what linkpin does not
// make is left alone.
func TestTreeForeign(t *testing.T) {
	f, c, _ := treeFixture(t)
	base := f.Root.Path()
	entry := base + "/" + pin.ContainerEntry(c.key, "cg").String()
	mounted := base + "/containers/mounted"
	for _, err := range []error{
		os.Mkdir(base+"/theirs", 0o700),
		os.Mkdir(entry+"/below", 0o700),
		os.Symlink("/", base+"/containers/link"),
		os.Symlink("/", base+"/netns/text"),
		os.Mkdir(mounted, 0o700),
		unix.Mount("none", mounted, "tmpfs", 0, ""),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(mounted, unix.MNT_DETACH) })
	findings := f.Examine().RepairTree()
	wantProblems(t, findings, ProblemForeign, ProblemForeign, ProblemForeign, ProblemForeign, ProblemForeign)
	for _, found := range findings {
		if found.Problem.Drift() {
			t.Errorf("%+v", found)
		}
	}
	if len(findings) != 5 {
		t.Fatal("not all were found")
	}
	if _, err := os.Stat(entry + "/below"); err != nil {
		t.Error(err)
	}

	// A directory of somebody else where anybody could make one.
	planted := base + "/retired/1-ended-abc"
	if err := os.Mkdir(planted, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(planted, 1234, 1234); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base+"/retired", 0o777); err != nil {
		t.Fatal(err)
	}
	f.Examine().RepairTree()
	var st unix.Stat_t
	if err := unix.Stat(planted, &st); err != nil || st.Uid != 1234 {
		t.Errorf("uid %d, %v", st.Uid, err)
	}
}

func TestTreeReadOnly(t *testing.T) {
	f, _, _ := treeFixture(t)
	mount := strings.TrimSuffix(f.Root.Path(), "/linkpin/v1")
	if err := unix.Mount("", mount, "", unix.MS_REMOUNT|unix.MS_RDONLY, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	findings := f.Examine().Tree()
	if err := unix.Mount("", mount, "", unix.MS_REMOUNT, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	wantProblems(t, findings, ProblemReadOnly)
}

// Without its directories' permissions linkpin does not work; root may have lost them,
// but what others could have written is not believed.
func TestReclaim(t *testing.T) {
	for _, c := range []struct {
		path string
		mode os.FileMode
		uid  int
		ok   bool
	}{
		{"linkpin", 0o755, 0, true},
		{"linkpin/v1", 0o711, 0, true},
		{"linkpin", 0o777, 0, false},
		{"linkpin/v1", 0o720, 0, false},
		{"linkpin/v1", 0o700, 1234, false},
	} {
		t.Run(c.path+strconv.FormatUint(uint64(c.mode), 8), func(t *testing.T) {
			f := newFixture(t, nil)
			mount := strings.TrimSuffix(f.Root.Path(), "/linkpin/v1")
			full := filepath.Join(mount, c.path)
			if err := os.Chmod(full, c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(full, c.uid, 0); err != nil {
				t.Fatal(err)
			}
			had, err := pin.Reclaim(pin.Options{Path: mount})
			if (err == nil) != c.ok || (len(had) == 1) != c.ok {
				t.Fatalf("%q, %v", had, err)
			}
			root, err := pin.Open(pin.Options{Path: mount})
			if (err == nil) != c.ok {
				t.Errorf("open: %v", err)
			}
			if err == nil {
				root.Close()
			}
		})
	}
}

// The notes by which hooks find a sandbox, and by which a sandbox knows who uses it, are
// missed and made again.
func TestIndexAndMembers(t *testing.T) {
	f, c, s := treeFixture(t)
	ctx := context.Background()
	index := f.Root.Path() + "/netns/" + strconv.FormatUint(s.sub.Netns.Cookie, 10)
	member := f.Root.Path() + "/sandboxes/" + string(s.sub.Sandbox) + "/members/" + string(c.key)
	for _, steal := range []struct {
		path  string
		place pin.Place
	}{
		{index, pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "xdp")},
		{index, pin.HookInterfaceEntry(s.sub.Sandbox, "eth0", "tcx")},
		{member, pin.ContainerEntry(c.key, "cg")},
	} {
		wantProblems(t, f.examined(t, steal.place))
		remove(t, steal.path)
		wantProblems(t, f.examined(t, steal.place), ProblemIndex)
		findings, err := f.Examine().Repair(ctx, steal.place)
		if err != nil || len(findings) != 1 || findings[0].Repaired == "" || findings[0].Err != nil {
			t.Errorf("%+v, %v", findings, err)
		}
		wantProblems(t, f.examined(t, steal.place))
	}
	// Another sandbox's is nobody's to change.
	remove(t, index)
	if err := os.Mkdir(f.Root.Path()+"/sandboxes/other", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../sandboxes/other", index); err != nil {
		t.Fatal(err)
	}
	place := pin.InterfaceEntry(s.sub.Sandbox, "net", "eth0", "xdp")
	findings, err := f.Examine().Repair(ctx, place)
	if err != nil || len(findings) != 1 || findings[0].Problem != ProblemIndex || findings[0].Err == nil {
		t.Errorf("%+v, %v", findings, err)
	}
}
