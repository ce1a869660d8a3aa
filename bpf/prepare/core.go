// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/specs"
)

// relocate computes the CO-RE relocations and kfunc calls of all programs, and the
// numbers of what tracing programs attach to, against the running kernel and notes
// them in the plan, so that the hook need not read the kernel's types: that takes
// longer than everything else it does. What can't be resolved here is left to the
// loader, which then says why.
func (w *preparer) relocate(plan *specs.Plan) {
	var kernel *load.KernelTypes
	for i, p := range w.programs {
		inSection := p.plan.Hook.InSection()
		if !inSection && !load.NeedsKernel(p.spec) {
			continue
		}
		if kernel == nil {
			var err error
			if kernel, err = load.ReadKernelTypes(); err != nil {
				return
			}
		}
		fixups, err := kernel.Fixups(p.spec)
		if err != nil {
			continue
		}
		plan.Programs[i].Fixups = fixups
		if inSection {
			if id, err := kernel.AttachTarget(p.spec); err == nil {
				plan.Programs[i].AttachBTFID = id
			}
		}
		if len(fixups) > 0 || plan.Programs[i].AttachBTFID != 0 {
			plan.Kernel = load.Kernel()
		}
	}
}
