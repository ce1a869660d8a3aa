// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"github.com/linkpin/linkpin/bpf/pin"
)

// Tree looks at what belongs to no entry or lies beside the records: owners and
// permissions of everything in bpffs, and what linkpin has not made.
func (x *Examination) Tree() []Finding {
	odd, err := x.s.Root.Oddities()
	var out []Finding
	for _, o := range odd {
		out = append(out, x.odd(o))
	}
	if err != nil {
		out = append(out, Finding{Problem: ProblemUnknown, Detail: "the tree can't be read", Err: err})
	}
	readOnly, err := x.s.Root.ReadOnly()
	switch {
	case err != nil:
		out = append(out, Finding{Problem: ProblemUnknown, Detail: "the file system can't be told", Err: err})
	case readOnly:
		out = append(out, Finding{
			Problem: ProblemReadOnly, Detail: "bpffs is mounted read-only: nothing can be attached or mended",
			Remedy: readOnlyRemedy(x.s),
		})
	}
	return out
}

func (x *Examination) odd(o pin.Oddity) Finding {
	f := Finding{Place: o.Place, Path: o.Path, Problem: ProblemMode, Detail: o.Path + ": " + o.Detail}
	if o.Kind == pin.OddForeign {
		f.Problem, f.Remedy = ProblemForeign, "remove it if nobody knows it"
	}
	if rec, err := x.s.readRecord(o.Place); err == nil {
		f.Record = rec
	}
	return f
}

// RepairTree is Tree, and gives back to root what is ours. What is not is never
// touched.
func (x *Examination) RepairTree() []Finding {
	if x.s.checkWritable() != nil {
		return x.Tree()
	}
	odd, _ := x.s.Root.Oddities() // Tree says what can't be read
	for _, o := range odd {
		if o.Kind == pin.OddMode {
			x.restored(o)
		}
	}
	return append(x.mended, x.Tree()...)
}

// restored mends one oddity; what can't be mended is found again by Tree.
func (x *Examination) restored(o pin.Oddity) {
	f := x.odd(o)
	if err := x.s.Root.Restore(o); err != nil {
		x.s.warn(err)
		return
	}
	f.Repaired = "given back to root"
	x.mended = append(x.mended, f)
}
