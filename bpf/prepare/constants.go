// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf/btf"

	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/bpf/value"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/policy"
)

// constant is the value of one variable.
type constant struct {
	plan specs.PlanConstant
	pos  policy.Pos
	obj  *object
	v    load.Variable
}

// encodeConstants turns the policy's constants into bytes. A name without an
// object stands for the variable of that name in every object that has it.
func (w *preparer) encodeConstants() {
	seen := map[string]policy.Pos{}
	for _, pc := range w.policy.Constants {
		symbol, found := w.named(pc.Name, func(o *object, symbol string) bool {
			_, ok := load.FindVariable(o.spec, symbol)
			return ok
		})
		if len(found) == 0 {
			w.noVariable(pc, symbol)
			continue
		}
		for _, o := range found {
			if first, ok := seen[o.key(symbol)]; ok {
				w.fail(pc.Pos, "keep one of them", "constant %s stands at line %d already", o.key(symbol), first.Line)
				continue
			}
			seen[o.key(symbol)] = pc.Pos
			w.encodeConstant(o, symbol, pc)
		}
	}
}

func (w *preparer) noVariable(pc policy.Constant, symbol string) {
	for _, o := range w.objects {
		switch {
		case o.kernel[symbol]:
			w.fail(pc.Pos, "remove it", "%s can't be set: kconfig values and kernel symbols come from the kernel", pc.Name)
			return
		case o.spec.Maps[symbol] != nil && !load.IsDataSection(symbol):
			w.fail(pc.Pos, "write it under maps:", "%s is a map", pc.Name)
			return
		}
	}
	w.fail(pc.Pos, "the variables are "+list(w.all((*object).variableNames)), "there is no variable %s", pc.Name)
}

func (w *preparer) encodeConstant(o *object, symbol string, pc policy.Constant) {
	v, _ := load.FindVariable(o.spec, symbol)
	var b specs.Bytes
	var err error
	if v.Type != nil {
		// The name counts: a variable called proto takes "tcp".
		b, err = value.Encode(&btf.Var{Name: symbol, Type: v.Type}, pc.Value)
	} else {
		b, err = value.EncodeSized(v.Size, pc.Value)
	}
	if err == nil && len(b.Data) != int(v.Size) {
		err = fmt.Errorf("its type has %d bytes and its place in section %s has %d", len(b.Data), v.Section, v.Size)
	}
	if err != nil {
		w.failed(pc.Pos, asFault(pc.Pos, err))
		return
	}
	w.constants = append(w.constants, constant{specs.PlanConstant{Object: o.name, Symbol: symbol, Value: b}, pc.Pos, o, v})
}

// known says at which kinds of targets a variable has a value. Those that are not
// listed have one everywhere. When programs are attached to the pod's cgroup, the
// pod has no process yet.
var known = map[specs.Variable][]specs.TargetKind{
	specs.VarIfindex:     {specs.TargetInterface},
	specs.VarPeerIfindex: {specs.TargetInterface},
	specs.VarIP:          {specs.TargetInterface},
	specs.VarMAC:         {specs.TargetInterface},
	specs.VarPeerMAC:     {specs.TargetInterface},
	specs.VarPeerName:    {specs.TargetInterface},
	specs.VarCgroupID:    {specs.TargetCgroup, specs.TargetPodCgroup, specs.TargetKernel},
	specs.VarPID:         {specs.TargetCgroup, specs.TargetKernel},
}

// checkVariables makes sure that each `${…}` can have a value wherever a program
// that looks at it runs: what is missing then keeps the container from starting.
func (w *preparer) checkVariables() {
	for _, c := range w.constants {
		used := false
		for _, p := range w.programs {
			if p.addresses(c.obj, c.v) {
				used = true
				w.checkHoles(c.pos, c.plan.Value.Holes, p)
			}
		}
		if !used {
			w.warn(c.pos, "no selected program uses the variable")
		}
	}
	for _, g := range w.groups {
		if !g.used() || g.policy == nil {
			continue
		}
		for _, p := range g.users {
			for i, e := range g.plan.Entries {
				w.checkHoles(g.places[i], e.Key.Holes, p)
				w.checkHoles(g.places[i], e.Value.Holes, p)
			}
		}
	}
}

func (w *preparer) checkHoles(pos policy.Pos, holes []specs.Hole, p *program) {
	for _, h := range holes {
		kinds, limited := known[h.Variable]
		for _, runs := range []specs.TargetKind{specs.TargetCgroup, specs.TargetPodCgroup, specs.TargetInterface, specs.TargetNetns, specs.TargetKernel} {
			if limited && p.runs[runs] && !slices.Contains(kinds, runs) {
				w.fail(pos, "use it only where programs of that kind look, or split the policy",
					"program %s is attached to %s, where ${%s} has no value: it belongs to %s", p.plan.Key, article(runs), h.Variable, article(kinds[0]))
			}
		}
	}
}

// article writes the name of a kind of target for an error.
func article(k specs.TargetKind) string {
	switch k {
	case specs.TargetInterface:
		return "an interface"
	case specs.TargetNetns:
		return "a network namespace"
	case specs.TargetPodCgroup:
		return "a pod's cgroup"
	case specs.TargetKernel:
		return "the kernel as a whole"
	}
	return "a " + string(k)
}
