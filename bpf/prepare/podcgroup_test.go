// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"testing"

	"github.com/linkpin/linkpin/specs"
)

func TestCgroupOfThePod(t *testing.T) {
	for text, want := range map[string]specs.TargetKind{
		plain:                         specs.TargetCgroup,
		plain + "cgroup: container\n": specs.TargetCgroup,
		plain + "cgroup: pod\n":       specs.TargetPodCgroup,
	} {
		p := must(t, text)
		if got := p.Plan.Target("cgroup/connect4"); got != want {
			t.Errorf("%q: cgroup programs go to %s, want %s", text, got, want)
		}
		if got := p.Plan.Target(specs.HookTCXIngress); got != specs.TargetInterface {
			t.Errorf("%q: interface programs go to %s", text, got)
		}
	}
	// Its id is known when CNI attaches, and no process of it.
	must(t, plain+"cgroup: pod\nconstants:\n  cgroup_id: \"${cgroupId}\"\n")
	_, err := prepare(t, plain+"cgroup: pod\nconstants:\n  cgroup_id: \"${pid}\"\n")
	wantErrors(t, err, []string{"p.yaml:7: constants.cgroup_id", "program connect4 is attached to a pod's cgroup, where ${pid} has no value"})
}

func TestCgroupOfThePodNeedsPrograms(t *testing.T) {
	const devices = "object: {file: plain.bpf.o}\nprograms: {from_wire: }\n"
	must(t, devices+"cgroup: container\n")
	_, err := prepare(t, devices+"cgroup: pod\n")
	wantErrors(t, err, []string{"p.yaml:1: cgroup: no program of the policy is attached to a cgroup", "remove it"})
}
