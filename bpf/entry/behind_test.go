// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/bpf/pin"
)

// attachTheirs attaches somebody else's programs that let everything pass.
func attachTheirs(t *testing.T, dir string, specs ...*ebpf.ProgramSpec) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, spec := range specs {
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(d.Fd()), Program: theirProgram(t, spec, 1), Attach: spec.AttachType})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
}

// Who runs after ours at a hook that rewrites can send on what ours has allowed to where
// it is forbidden, on the container's cgroup and on those above it.
func TestForeignProgramBehindOnCgroup(t *testing.T) {
	for _, at := range []string{"its own cgroup", "the cgroup above"} {
		t.Run(at, func(t *testing.T) {
			f := newFixture(t, plans{
				"cg":  plan(t, "cg", program("connect4", "cgroup/connect4"), program("read_cgroup", "cgroup_skb/egress")),
				"two": plan(t, "two", program("connect4", "cgroup/connect4")),
				"pod": podPlans(t)["pod"],
			})
			above := bpftest.Cgroup(t)
			dir := above + "/container"
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			c := subject(t, "web", dir, bpftest.CgroupProcess(t, dir).Pid)
			f.mustAttach(t, c, "cg", "two")
			// Policies of ours, there and above, are no neighbours.
			s := newSandbox(t, "pod", "lpbh0")
			if err := f.addPod(t, s, openPod(t, above)); err != nil {
				t.Fatal(err)
			}
			place := pin.ContainerEntry(c.key, "cg")
			wantProblems(t, f.examined(t, place))
			if at == "its own cgroup" {
				above = dir
			}
			// systemd has programs of these kinds on its slices.
			attachTheirs(t, above, &ebpf.ProgramSpec{Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress},
				&ebpf.ProgramSpec{Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetIngress},
				&ebpf.ProgramSpec{Type: ebpf.CGroupDevice, AttachType: ebpf.AttachCGroupDevice},
				&ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Bind})
			wantProblems(t, f.examined(t, place))
			attachTheirs(t, above, &ebpf.ProgramSpec{Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect})
			findings := f.examined(t, place)
			wantProblems(t, findings, ProblemBehind)
			if findings[0].Problem.Level() != LevelWarning || findings[0].Program != "connect4" || strings.Count(findings[0].Detail, "(theirs)") != 1 {
				t.Errorf("%+v", findings[0])
			}
		})
	}
}
