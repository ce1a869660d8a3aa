// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"slices"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/hooks"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/policy"
)

// checkInSection checks a hook about a function or tracepoint of the kernel. The
// program is compiled for it, so that its section must be of the hook as well: what
// is right for lsm, to return 0, denies everything as lsm_cgroup. And a program that
// runs for the whole machine must be asked for.
func (w *preparer) checkInSection(o *object, symbol string, spec *ebpf.ProgramSpec, h specs.Hook, pa policy.Attachment) {
	if !h.InSection() {
		return
	}
	named, err := hooks.FromSection(spec.SectionName, spec.Type, spec.AttachType)
	switch {
	case err != nil || named != h || spec.AttachTo == "":
		w.fail(pa.Pos, "compile it with a section like "+exampleSection[h], "program %s: section %q does not say where in the kernel it goes as %s",
			o.key(symbol), spec.SectionName, h)
	case h.Target() == specs.TargetKernel && pa.Attach == "":
		w.fail(pa.Pos, "name only the programs to attach under programs:; to have this one, write attach: "+string(h)+" there",
			"program %s: section %q holds a program that runs for everybody on the machine", o.key(symbol), spec.SectionName)
	}
}

var exampleSection = map[specs.Hook]string{
	specs.HookLSMCgroup: `"lsm_cgroup/socket_bind"`,
	specs.HookLSM:       `"lsm/socket_bind"`,
	specs.HookFentry:    `"fentry/tcp_connect"`,
	specs.HookFexit:     `"fexit/tcp_connect"`,
	specs.HookTPBTF:     `"tp_btf/sched_process_exec"`,
}

// telling are the variables by which a program can recognise its container: numbers
// that the kernel knows as well, and that every container has.
var telling = []specs.Variable{specs.VarCgroupID, specs.VarPID}

// checkTold refuses programs that run for the whole machine and are not told which
// container they are for: they would count, or deny, what everybody else does.
func (w *preparer) checkTold() {
	for _, p := range w.programs {
		attached := slices.ContainsFunc(p.plan.Attachments, func(a specs.Attachment) bool { return a.Hook.Target() == specs.TargetKernel })
		if attached && !w.told(p) {
			w.fail(p.pos, "give a constant or a map entry that the program looks at the value ${cgroupId} or ${pid}",
				"program %s runs for everybody on the machine, and nothing tells it which container it is for", p.plan.Key)
		}
	}
}

// told reports whether a program looks at something by which it can recognise its
// container.
func (w *preparer) told(p *program) bool {
	tells := func(b specs.Bytes) bool {
		return slices.ContainsFunc(b.Holes, func(h specs.Hole) bool { return slices.Contains(telling, h.Variable) })
	}
	for _, c := range w.constants {
		if p.addresses(c.obj, c.v) && tells(c.plan.Value) {
			return true
		}
	}
	for _, g := range w.groups {
		if slices.Contains(g.users, p) && slices.ContainsFunc(g.plan.Entries, func(e specs.PlanEntry) bool { return tells(e.Key) || tells(e.Value) }) {
			return true
		}
	}
	return false
}
