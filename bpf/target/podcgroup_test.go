// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs/fault"
)

// The first two are what kubelets of both cgroup drivers give to containerd, the
// third what CRI-O makes of the second.
func TestPodCgroupName(t *testing.T) {
	const slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_3.slice"
	for name, want := range map[string]string{
		"/kubepods/burstable/pod12-3":           "/kubepods/burstable/pod12-3",
		slice:                                   slice,
		"kubepods-burstable-pod12_3.slice":      slice,
		"/a/kubepods-pod1.slice":                "/kubepods.slice/kubepods-pod1.slice", // systemd goes by the name
		"system.slice":                          "/system.slice",
		"k8s.io":                                "/k8s.io",
		"/k8s//pod/":                            "/k8s/pod",
		"/":                                     "/",
		"-.slice":                               "/",
		"":                                      "its name is empty",
		"..":                                    `".." in it`,
		"/kubepods/../system.slice":             `".." in it`,
		"/a/./b":                                `"." in it`,
		"a--b.slice":                            "is not the name of a slice",
		"-a.slice":                              "is not the name of a slice",
		"a-.slice":                              "is not the name of a slice",
		".slice":                                "is not the name of a slice",
		"/a\nb":                                 "control characters",
		"/a\x00":                                "control characters",
		"/" + strings.Repeat("a", unix.PathMax): "longer than",
	} {
		got, err := podCgroupName(name)
		if err != nil {
			got = err.Error()
		}
		if strings.HasPrefix(want, "/") && got != want || !strings.Contains(got, want) {
			t.Errorf("%.40q: %s, want %s", name, got, want)
		}
	}
}

func TestPodCgroup(t *testing.T) {
	dir := bpftest.Cgroup(t)
	pod := subCgroup(t, dir, "pod 1")
	noLeaks(t)
	c, err := PodCgroup(Roots{}, name(t, pod))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Path != pod || c.ID != bpftest.CgroupID(t, pod) {
		t.Errorf("%s with id %d, want %s with %d", c.Path, c.ID, pod, bpftest.CgroupID(t, pod))
	}
}

// A slice of systemd is found by its name alone.
func TestPodCgroupSlice(t *testing.T) {
	stem := filepath.Base(bpftest.Cgroup(t)) // for a name that nobody has: linkpin-test-N
	top := filepath.Join(bpftest.Cgroup2Mount(t), "linkpin.slice")
	dir := filepath.Join(top, "linkpin-test.slice", stem+".slice")
	subCgroup(t, dir)
	t.Cleanup(func() {
		for d := dir; d != filepath.Dir(top); d = filepath.Dir(d) {
			_ = unix.Rmdir(d) // others may be at it as well
		}
	})
	for _, given := range []string{stem + ".slice", name(t, dir)} {
		c, err := PodCgroup(Roots{}, given)
		if err != nil {
			t.Fatal(err)
		}
		if c.Path != dir {
			t.Errorf("%s: %s, want %s", given, c.Path, dir)
		}
		c.Close()
	}
}

func TestPodCgroupRefused(t *testing.T) {
	dir := bpftest.Cgroup(t)
	deep := subCgroup(t, dir, "a", "b")
	proc := newFakeProc(t)
	proc.write("self/cgroup", "0::"+name(t, deep)+"\n")
	v1 := newFakeProc(t)
	v1.write("self/mountinfo", "41 31 0:38 / /sys rw - sysfs sysfs rw\n")
	elsewhere := newFakeProc(t)
	elsewhere.write("self/mountinfo", mountLine("/other", dir))
	linked := t.TempDir()
	if err := os.Symlink(deep, filepath.Join(linked, "pod")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(linked, "top")); err != nil {
		t.Fatal(err)
	}
	outside := newFakeProc(t)
	outside.write("self/mountinfo", mountLine("/", linked))
	plain := newFakeProc(t)
	plain.write("self/mountinfo", mountLine("/", filepath.Dir(linked)))
	noLeaks(t)
	for _, tc := range []struct {
		what  string
		roots Roots
		path  string
		want  error
		say   string
	}{
		{"gone", Roots{}, name(t, dir) + "/pod", ErrGone, "the kubelet has to make it"},
		{"root", Roots{}, "/", ErrForbidden, "root cgroup"},
		{"root slice", Roots{}, "-.slice", ErrForbidden, "root cgroup"},
		{"our own", proc.roots(), name(t, deep), ErrForbidden, "cgroup_parent"},
		{"above our own", proc.roots(), name(t, dir), ErrForbidden, "cgroup_parent"},
		{"no cgroup2", v1.roots(), name(t, dir), ErrNoCgroup2, "cgroup v1 only"},
		{"not mounted", elsewhere.roots(), name(t, dir), ErrNoCgroup2, "not below any"},
		{"symbolic link", outside.roots(), "/pod", unix.ENOTDIR, "pod"},
		{"symbolic link on the way", outside.roots(), "/top/a", unix.ELOOP, "top"},
		{"not a cgroup", plain.roots(), "/" + filepath.Base(linked), ErrMismatch, "not on cgroup2"},
		{"up", Roots{}, name(t, deep) + "/../b", nil, `".."`},
		{"relative and empty", Roots{}, "", nil, "empty"},
	} {
		c, err := PodCgroup(tc.roots, tc.path)
		if err == nil {
			c.Close()
			t.Errorf("%s: found %s", tc.what, c.Path)
			continue
		}
		var f *fault.Error
		if tc.want != nil && !errors.Is(err, tc.want) || !errors.As(err, &f) || !strings.Contains(err.Error(), tc.say) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %v and %q", tc.what, err, tc.want, tc.say)
		}
	}
	// Beside ours is nothing forbidden.
	c, err := PodCgroup(proc.roots(), name(t, subCgroup(t, dir, "a", "c")))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestContains(t *testing.T) {
	dir := bpftest.Cgroup(t)
	beside := bpftest.Cgroup(t)
	open := func(path string) *Cgroup {
		t.Helper()
		c, err := openDir(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	pod, deep := open(dir), open(subCgroup(t, dir, "a", "b"))
	middle, other := open(filepath.Join(dir, "a")), open(subCgroup(t, beside, "a"))
	noLeaks(t)
	for _, tc := range []struct {
		up, down *Cgroup
		want     bool
	}{
		{pod, deep, true}, {pod, middle, true}, {pod, pod, true},
		{deep, pod, false}, {pod, other, false}, {middle, other, false}, {deep, middle, false},
	} {
		if got, err := tc.up.Contains(tc.down); err != nil || got != tc.want {
			t.Errorf("%s contains %s: %v, %v; want %v", tc.up.Path, tc.down.Path, got, err, tc.want)
		}
	}
	// Seen through a mount that begins below the pod's cgroup.
	point := t.TempDir()
	if err := unix.Mount(middle.Path, point, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	bound := open(filepath.Join(point, "b"))
	t.Cleanup(func() {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if got, err := middle.Contains(bound); err != nil || !got {
		t.Errorf("through a mount: %v, %v", got, err)
	}
	if got, err := pod.Contains(bound); err != nil || got {
		t.Errorf("above the root of the mount: %v, %v", got, err)
	}
	if err := unix.Rmdir(other.Path); err != nil {
		t.Fatal(err)
	}
	if got, err := pod.Contains(other); got || err != nil && !errors.Is(err, ErrGone) {
		t.Errorf("a cgroup that is gone: %v, %v", got, err)
	}
}
