// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

const connect4 = specs.Hook("cgroup/connect4")

// legacy attaches a program without a link.
func legacy(t *testing.T, dir string, p *ebpf.Program, flags uint32) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	opts := link.RawAttachProgramOptions{Target: int(f.Fd()), Program: p, Attach: ebpf.AttachCGroupInet4Connect, Flags: flags}
	if err := link.RawAttachProgram(opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = link.RawDetachProgram(link.RawDetachProgramOptions{Target: opts.Target, Program: p, Attach: opts.Attach})
		f.Close()
	})
}

func TestCgroupExcludedByLegacyProgram(t *testing.T) {
	const override, multi = 1, 2
	for _, c := range []struct {
		name          string
		parent, child uint32
		none          bool // no program at the parent
		at            string
		busy          bool
	}{
		{name: "parent without flags", parent: 0, child: 99, at: "parent", busy: true},
		{name: "own without flags", none: true, child: 0, at: "child", busy: true},
		{name: "own with override", none: true, child: override, at: "child", busy: true},
		{name: "own with multi", none: true, child: multi},
		{name: "parent with override", parent: override, child: 99},
		{name: "parent with multi", parent: multi, child: 99},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			parent := bpftest.Cgroup(t)
			child := parent + "/child"
			if err := os.Mkdir(child, 0o755); err != nil {
				t.Fatal(err)
			}
			p, other := trivial(t, connect4), trivial(t, connect4)
			if !c.none {
				legacy(t, parent, other, c.parent)
			}
			if c.child != 99 {
				legacy(t, child, other, c.child)
			}
			to := Target{Cgroup: openCgroup(t, child)}
			if !c.busy {
				mustAttach(t, p, specs.Attachment{Hook: connect4}, to)
				return
			}
			info, err := other.Info()
			if err != nil {
				t.Fatal(err)
			}
			id, _ := info.ID()
			where := map[string]string{"parent": parent, "child": child}[c.at]
			wantError(t, p, specs.Attachment{Hook: connect4}, to, ErrBusy,
				fmt.Sprintf("program %d (trivial) was attached to cgroup %s ", id, where), "bpftool cgroup show "+where)
		})
	}
}

func TestCgroupBesideNeighbours(t *testing.T) {
	dir := bpftest.Cgroup(t)
	neighbour, p := trivial(t, connect4), trivial(t, connect4)
	legacy(t, dir, neighbour, 2)
	to := Target{Cgroup: openCgroup(t, dir)}
	at := func() []ebpf.ProgramID {
		return attachedIDs(t, ebpf.AttachCGroupInet4Connect, int(to.Cgroup.Dir.Fd()))
	}
	before := at()
	l := mustAttach(t, p, specs.Attachment{Hook: connect4}, to)
	mustAttach(t, p, specs.Attachment{Hook: connect4}, to) // the same once more is allowed here
	if now := at(); len(now) != 3 || now[0] != before[0] {
		t.Errorf("programs %v, before %v", now, before)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if now := at(); len(now) != 2 || now[0] != before[0] {
		t.Errorf("programs %v after our end, before %v", now, before)
	}
}

func TestCgroupTakes64Programs(t *testing.T) {
	to := Target{Cgroup: openCgroup(t, bpftest.Cgroup(t))}
	p := trivial(t, connect4)
	for range 64 {
		mustAttach(t, p, specs.Attachment{Hook: connect4}, to)
	}
	wantError(t, p, specs.Attachment{Hook: connect4}, to, ErrFull, "64 programs", "bpftool cgroup show")
}

func TestCgroupV1DirectoryIsExplained(t *testing.T) {
	dir, err := os.Open(t.TempDir()) // to the kernel the same as a v1 directory
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	to := Target{Cgroup: &target.Cgroup{Path: dir.Name(), Dir: dir}}
	wantError(t, trivial(t, connect4), specs.Attachment{Hook: connect4}, to, nil, "cgroup v1 directories take no links", "; mount cgroup2")
}
