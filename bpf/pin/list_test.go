// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/bpf/bpftest"
)

func mkdirs(t *testing.T, r *Root, dir Dir, n int) {
	t.Helper()
	for i := range n {
		must(t, os.Mkdir(filepath.Join(r.Path(), string(dir), fmt.Sprint("k", i)), 0o700))
	}
}

func TestListings(t *testing.T) {
	r := newRoot(t)
	const many = 1500 // more than one read
	mkdirs(t, r, DirContainers, many)
	mkdirs(t, r, DirSandboxes, 2)
	// Names that linkpin never writes are passed over.
	must(t, os.Mkdir(filepath.Join(r.Path(), "containers/a b"), 0o700))
	keys, err := r.Containers()
	if err != nil || len(keys) != many || !slices.IsSorted(keys) {
		t.Errorf("%d containers, %v", len(keys), err)
	}
	if keys, err := r.Sandboxes(); err != nil || !slices.Equal(keys, []Key{"k0", "k1"}) {
		t.Errorf("sandboxes %v, %v", keys, err)
	}
	if n, err := r.count(DirContainers); err != nil || n != many+1 {
		t.Errorf("counted %d, %v", n, err)
	}
}

// Create may have been killed half way.
func TestListingsOfAnUnfinishedTree(t *testing.T) {
	dir := bpftest.TempBPFFS(t)
	must(t, os.MkdirAll(filepath.Join(dir, "linkpin/v1"), 0o700))
	r, err := Open(Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	containers, err := r.Containers()
	must(t, err)
	retired, err := r.Retired()
	must(t, err)
	staging, err := r.StagingNames()
	must(t, err)
	sample, err := r.Sample(DirRetired, 3)
	must(t, err)
	dangling, err := r.DanglingNetns()
	must(t, err)
	n, err := r.RetiredCount()
	must(t, err)
	if len(containers)+len(retired)+len(staging)+len(sample)+len(dangling)+n != 0 {
		t.Error("something is there")
	}
	_, err = r.TryLock(childOwner)
	wantError(t, err, ErrNotExist)
	_, err = r.Stage()
	wantError(t, err, ErrNotExist)
	// Somebody makes the rest.
	createAt(t, dir)
	publish(t, r, ContainerEntry(childOwner.Key(), "p"))
}

func TestSample(t *testing.T) {
	r := newRoot(t)
	if names, err := r.Sample(DirRetired, 4); err != nil || len(names) != 0 {
		t.Errorf("sample of nothing: %v, %v", names, err)
	}
	const size = 40
	mkdirs(t, r, DirRetired, size)
	for _, n := range []int{-1, 0, 1, 3, size - 3, size - 2, size - 1, size, size + 1, 1 << 30} {
		names, err := r.Sample(DirRetired, n)
		if err != nil || len(names) != min(max(n, 0), size) {
			t.Errorf("sample of %d: %d names, %v", n, len(names), err)
		}
		slices.Sort(names)
		if len(slices.Compact(names)) != min(max(n, 0), size) {
			t.Errorf("sample of %d has a name twice", n)
		}
	}
	// Every name has its turn: 40 names, 3 at a time, from a random start.
	seen := make(map[string]int)
	for range 1000 {
		names, err := r.Sample(DirRetired, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			seen[name]++
		}
	}
	for i := range size {
		if n := seen[fmt.Sprint("k", i)]; n < 20 || n > 200 {
			t.Errorf("k%d came %d times, about 75 are expected", i, n)
		}
	}
}

func TestSampleReadsNoMoreThanItNeeds(t *testing.T) {
	r := newRoot(t)
	mkdirs(t, r, DirStaging, 2000)
	fd, err := openDir(r.fd, string(DirStaging))
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(t, fd)
	names, err := sampleFrom(fd, 1000, 4)
	if err != nil || len(names) != 4 {
		t.Fatalf("%v, %v", names, err)
	}
	if at := offset(t, fd); at > 1000+400 {
		t.Errorf("read up to entry %d for 4 names from 1000", at)
	}
}

// The index of namespaces holds symbolic links, which bpffs does not count.
func TestSampleOfTheIndexReachesTheEnd(t *testing.T) {
	r := newRoot(t)
	mkdirs(t, r, DirSandboxes, 20)
	for i := range 30 {
		must(t, os.Symlink(indexTarget+fmt.Sprint("k", i), filepath.Join(r.Path(), indexPath(uint64(i)))))
	}
	seen := make(map[string]bool)
	for range 2000 {
		names, err := r.Sample(DirNetns, 2)
		if err != nil || len(names) > 2 {
			t.Fatalf("%v, %v", names, err)
		}
		for _, name := range names {
			seen[name] = true
		}
	}
	if len(seen) != 30 {
		t.Errorf("%d of 30 were seen", len(seen))
	}
}

func TestCountBPFFS(t *testing.T) {
	const info = `22 1 8:1 / / rw - ext4 /dev/sda rw
30 22 0:30 / /sys/fs/bpf rw,nosuid shared:9 - bpf none rw,mode=700
31 30 0:31 / /sys/fs/bpf rw - tmpfs none rw
32 30 0:32 / /sys/fs/bpf rw master:1 propagate_from:2 - bpf none rw
33 30 0:33 / /sys/fs/bpf/x rw - bpf none rw
34 30 0:34 / /a\040b rw - bpf none rw
broken
`
	for path, want := range map[string]int{"/sys/fs/bpf": 2, "/sys/fs/bpf/x": 1, "/a b": 1, "/": 0} {
		if n, err := countBPFFS(strings.NewReader(info), path); n != want || err != nil {
			t.Errorf("%s: %d, %v, want %d", path, n, err, want)
		}
	}
}

func TestCheckStacked(t *testing.T) {
	dir := bpftest.TempBPFFS(t)
	o := Options{Path: dir}
	must(t, CheckStacked(o))
	mountBPFFS(t, dir)
	wantError(t, CheckStacked(o), ErrStacked)
}
