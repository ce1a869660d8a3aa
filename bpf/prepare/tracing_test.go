// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"slices"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/specs"
)

const tracing = "object: {file: tracing.bpf.o}\n"

// What a tracing program attaches to, and the relocations, are worked out when the
// policy is applied.
func TestTracingPrograms(t *testing.T) {
	p := must(t, tracing+"programs: {execs: {attach: tp_btf}, exits: {attach: fentry}, binds: {attach: lsm}, guard: {}}\nconstants: {container: \"${cgroupId}\"}\n")
	for key, want := range map[string]specs.Hook{
		"execs": specs.HookTPBTF, "exits": specs.HookFentry, "binds": specs.HookLSM, "guard": specs.HookLSMCgroup,
	} {
		prog := programOf(t, p, key)
		if prog.Hook != want || prog.AttachBTFID == 0 || len(prog.Attachments) != 1 || prog.Attachments[0] != (specs.Attachment{Name: key, Hook: want}) {
			t.Errorf("%s: %+v", key, prog)
		}
	}
	if p.Plan.Kernel != load.Kernel() || len(programOf(t, p, "execs").Fixups) == 0 {
		t.Errorf("kernel %q, %+v", p.Plan.Kernel, programOf(t, p, "execs"))
	}
	if kind := p.Plan.Target(specs.HookTPBTF); kind != specs.TargetKernel {
		t.Errorf("target %s", kind)
	}
	unchecked, err := p.Verify(t.Context())
	for _, u := range unchecked {
		if u.Program == "execs" || !strings.Contains(u.Reason, "calls from a trampoline, is not supported by this kernel") {
			t.Errorf("%s", u)
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// The policy of a pod's cgroup attaches tracing programs for each container.
func TestTracingBesidePodCgroup(t *testing.T) {
	p := must(t, tracing+"programs: {execs: {attach: tp_btf}, guard: {}}\nconstants: {container: \"${cgroupId}\"}\ncgroup: pod\n")
	if k, g := p.Plan.Target(specs.HookTPBTF), p.Plan.Target(specs.HookLSMCgroup); k != specs.TargetKernel || g != specs.TargetPodCgroup {
		t.Errorf("targets %s, %s", k, g)
	}
}

// A program that runs for everybody must be told which container it is for.
func TestTold(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		ok         bool
	}{
		{"constant", "programs: {execs: {attach: tp_btf}}\nconstants: {container: \"${cgroupId}\"}\n", true},
		{"process", "programs: {execs: {attach: tp_btf}}\nconstants: {container: \"${pid}\"}\n", true},
		{"map", "programs: {listed: {attach: tp_btf}}\nmaps: {containers: {entries: [{key: \"${cgroupId}\", value: 1}]}}\n", true},
		{"nothing", "programs: {execs: {attach: tp_btf}}\n", false},
		{"a number", "programs: {execs: {attach: tp_btf}}\nconstants: {container: 7}\n", false},
		{"what the kernel does not know", "programs: {execs: {attach: tp_btf}}\nconstants: {container: \"${containerId}\"}\n", false},
		{"a constant that it does not look at", "programs: {everybody: {attach: tp_btf}}\nconstants: {container: \"${cgroupId}\"}\n", false},
		{"a map that it does not look at", "programs: {everybody: {attach: tp_btf}}\nmaps: {containers: {entries: [{key: \"${cgroupId}\", value: 1}]}}\n", false},
		{"only the other one", "programs: {everybody: {attach: tp_btf}, execs: {attach: tp_btf}}\nconstants: {container: \"${cgroupId}\"}\n", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := prepare(t, tracing+tc.text)
			const want = "runs for everybody on the machine, and nothing tells it which container it is for; give a constant or a map entry"
			if tc.ok && err != nil || !tc.ok && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Tracing programs that come along in an object are not attached by accident.
func TestTracingProgramsAreAskedFor(t *testing.T) {
	_, err := prepare(t, tracing+"constants: {container: \"${cgroupId}\"}\n")
	wantErrors(t, err,
		[]string{"p.yaml:1: object", "program binds: section \"lsm/socket_bind\" holds a program that runs for everybody", "write attach: lsm there"},
		[]string{"p.yaml:1: object", "program changes: section \"fmod_ret/security_socket_bind\" holds a program of type Tracing, which belongs to no container"},
		[]string{"p.yaml:1: object", "program everybody:", "write attach: tp_btf there"},
		[]string{"p.yaml:1: object", "program execs:"},
		[]string{"p.yaml:1: object", "program exits:", "write attach: fentry there"},
		[]string{"p.yaml:1: object", "program listed:"},
		[]string{"p.yaml:1: object", "program nowhere:"},
	)
	for _, tc := range []struct{ programs, want string }{
		{"execs: {}", `holds a program that runs for everybody on the machine; name only the programs to attach under programs:; to have this one, write attach: tp_btf there`},
		// 0 is "allowed" for lsm, and "denied" for lsm_cgroup.
		{"binds: {attach: lsm_cgroup}", `section "lsm/socket_bind" does not say where in the kernel it goes as lsm_cgroup; compile it with a section like "lsm_cgroup/socket_bind"`},
		{"guard: {attach: lsm}", `section "lsm_cgroup/socket_bind" does not say where in the kernel it goes as lsm;`},
		{"exits: {attach: fexit}", `section "fentry/do_exit" does not say where in the kernel it goes as fexit;`},
		{"changes: {attach: fentry}", `section "fmod_ret/security_socket_bind" does not say`},
	} {
		_, err := prepare(t, tracing+"programs: {"+tc.programs+"}\nconstants: {container: \"${cgroupId}\"}\n")
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v\nwant %s", tc.programs, err, tc.want)
		}
	}
}

// What belongs to an interface has no value for the kernel as a whole, and only CNI
// knows networks.
func TestTracingLimits(t *testing.T) {
	_, err := prepare(t, tracing+"programs: {execs: {attach: tp_btf}}\nconstants: {container: \"${ifindex}\"}\n")
	if err == nil || !strings.Contains(err.Error(), "program execs is attached to the kernel as a whole, where ${ifindex} has no value") {
		t.Errorf("%v", err)
	}
	if !slices.Contains(known[specs.VarCgroupID], specs.TargetKernel) {
		t.Error("${cgroupId} has no value for the kernel")
	}
}
