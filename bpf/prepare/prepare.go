// SPDX-License-Identifier: Apache-2.0

// Package prepare checks a policy against its eBPF objects and makes the plan
// that hook and CNI carry out: where each program goes, what its maps and
// constants hold as bytes, and what has to be mended in objects that were written
// for another loader. Everything that needs BTF or judgement happens here, once,
// when a policy is applied; bpf/load does the rest at each container start.
package prepare

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/bpf/programs"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
	"github.com/linkpin/linkpin/specs/policy"
)

// Options say where objects come from. The zero value is what the commands use.
type Options struct {
	// Dir is the directory that the paths of objects start from. Empty: that of the
	// policy file.
	Dir string
	// Builtin returns the ELF file of a built-in object, and an error that wraps
	// programs.ErrUnknown for others. Nil: programs.Object.
	Builtin func(name string) ([]byte, error)
}

// Prepared is a policy that fits its objects.
type Prepared struct {
	Plan     specs.Plan
	Objects  map[string][]byte // the ELF files, by SHA-256 in lower-case hex
	Warnings []string          // one line each: what was left out, or attaches and does nothing

	places map[string]policy.Pos // of programs, by key
}

// Policy makes the plan of one policy. The plan depends on nothing but the policy,
// its objects and, for CO-RE relocations, the running kernel: the same input gives
// the same JSON. The error is a policy.Errors with all that was found.
func Policy(p *policy.Policy, o Options) (*Prepared, error) {
	if o.Dir == "" {
		o.Dir = filepath.Dir(p.Pos.File)
	}
	if o.Builtin == nil {
		o.Builtin = programs.Object
	}
	w := &preparer{
		policy: p, o: o,
		slots: map[string]bool{}, groupOf: map[specs.MapRef]*group{}, places: map[string]policy.Pos{},
	}
	// Without its objects nothing else about a policy can be said.
	for _, steps := range [][]func(){
		{w.readObjects},
		{w.groupMaps, w.selectPrograms, w.checkAttachments},
		{w.reach, w.mendMaps, w.encodeEntries, w.encodeConstants, w.checkVariables, w.checkTold},
	} {
		for _, step := range steps {
			step()
		}
		if err := w.err(); err != nil {
			return nil, err
		}
	}
	return w.finish(), nil
}

// preparer is one call of Policy.
type preparer struct {
	policy    *policy.Policy
	o         Options
	problems  []problem
	warnings  []string
	objects   []*object
	slots     map[string]bool // keys of the programs that stand in program arrays
	programs  []*program      // selected, in the plan's order
	groups    []*group        // of maps, in the plan's order
	groupOf   map[specs.MapRef]*group
	constants []constant
	places    map[string]policy.Pos
}

type problem struct {
	line int
	err  *fault.Error
}

// fail notes an error about a place in the policy. The remedy may be empty.
func (w *preparer) fail(pos policy.Pos, remedy, format string, args ...any) {
	w.failed(pos, fault.New(pos.String(), fmt.Errorf(format, args...), remedy).WithExit(fault.ExitInput))
}

func (w *preparer) failed(pos policy.Pos, err *fault.Error) {
	w.problems = append(w.problems, problem{pos.Line, err})
}

// warn notes what the user should know, although the policy is valid.
func (w *preparer) warn(pos policy.Pos, format string, args ...any) {
	w.warnings = append(w.warnings, fault.OneLine(pos.String()+": "+fmt.Sprintf(format, args...)))
}

// maxErrors is how many errors of a policy are shown; the rest is only counted.
const maxErrors = 50

// err returns what was noted, in the order of the file's lines.
func (w *preparer) err() error {
	if len(w.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(w.problems, func(a, b problem) int { return a.line - b.line })
	var errs policy.Errors
	seen := map[string]bool{}
	for i, p := range w.problems {
		if len(errs) == maxErrors {
			more := fmt.Errorf("%d more errors", len(w.problems)-i)
			errs = append(errs, fault.New(policy.Pos{File: w.policy.Pos.File}.String(), more, "correct these first").WithExit(fault.ExitInput))
			break
		}
		if line := p.err.Error(); !seen[line] {
			seen[line] = true
			errs = append(errs, p.err)
		}
	}
	return errs
}

// finish puts the plan together.
func (w *preparer) finish() *Prepared {
	p := w.policy
	out := &Prepared{
		Plan: specs.Plan{
			Version: specs.PlanVersion, Name: p.Name, Description: p.Description, Source: p.Pos.File,
			OnError: p.OnError, Scope: p.Scope, Cgroup: p.Cgroup, Teardown: p.Teardown,
		},
		Objects:  map[string][]byte{},
		Warnings: w.warnings,
		places:   w.places,
	}
	if p.TC != nil {
		out.Plan.TCFallback = p.TC.Fallback
	}
	for _, o := range w.objects {
		out.Plan.Objects = append(out.Plan.Objects, specs.PlanObject{Name: o.name, SHA256: o.sum, Origin: o.origin})
		out.Objects[o.sum] = o.data
	}
	for _, prog := range w.programs {
		out.Plan.Programs = append(out.Plan.Programs, prog.plan)
	}
	for _, g := range w.groups {
		if g.used() {
			out.Plan.Maps = append(out.Plan.Maps, g.plan)
		}
	}
	for _, c := range w.constants {
		out.Plan.Constants = append(out.Plan.Constants, c.plan)
	}
	w.relocate(&out.Plan)
	return out
}

// list writes names for an error: "a, b and c".
func list(names []string) string {
	const most = 20
	slices.Sort(names)
	switch n := len(names); {
	case n == 0:
		return "none"
	case n > most:
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", n-most)
	case n > 1:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return names[0]
}
