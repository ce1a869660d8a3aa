// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/policy"
)

// group is one map of the plan: a map of one object, or maps of several objects
// that become one.
type group struct {
	plan   specs.PlanMap
	pos    policy.Pos
	policy *policy.Map   // what the policy says about it; nil if nothing
	member *ebpf.MapSpec // the first member, as its object has it
	spec   *ebpf.MapSpec // what will be made
	slots  []slot
	places []policy.Pos // of plan.Entries
	users  []*program
}

func (g *group) used() bool { return len(g.users) > 0 }

// slot is one program in a program array.
type slot struct {
	pos    policy.Pos
	index  specs.Bytes
	obj    *object
	symbol string
}

// groupMaps finds out which maps of the objects are one: those that the policy
// names without an object, and those that the objects pin by name, which is how
// objects ask for it. All others are maps of their own.
func (w *preparer) groupMaps() {
	for i := range w.policy.Maps {
		w.groupNamed(&w.policy.Maps[i])
	}
	pinned := map[string]*group{}
	for _, o := range w.objects {
		for _, name := range o.maps() {
			spec := o.spec.Maps[name]
			if w.groupOf[o.ref(name)] != nil {
				continue
			}
			if g := pinned[name]; g != nil && spec.Pinning != ebpf.PinNone {
				g.plan.Members = append(g.plan.Members, o.ref(name))
				w.groupOf[o.ref(name)] = g
				continue
			}
			g := w.newGroup(o, name, o.pos)
			if spec.Pinning != ebpf.PinNone {
				pinned[name] = g
				g.plan.Name = name
			}
		}
	}
	slices.SortFunc(w.groups, func(a, b *group) int { return cmp.Compare(a.plan.Name, b.plan.Name) })
	for _, g := range w.groups {
		g.spec = load.MapSpec(g.member, &g.plan)
		w.findSlots(g)
	}
}

// newGroup starts a map of the plan with one member.
func (w *preparer) newGroup(o *object, name string, pos policy.Pos) *group {
	g := &group{
		plan: specs.PlanMap{Name: o.key(name), Members: []specs.MapRef{o.ref(name)}},
		pos:  pos, member: o.spec.Maps[name],
	}
	w.groups = append(w.groups, g)
	w.groupOf[o.ref(name)] = g
	return g
}

// groupNamed makes a map of the plan out of an entry of `maps:`.
func (w *preparer) groupNamed(pm *policy.Map) {
	symbol, found := w.named(pm.Name, func(o *object, symbol string) bool {
		return o.spec.Maps[symbol] != nil && !load.IsDataSection(symbol)
	})
	if len(found) == 0 {
		w.fail(pm.Pos, "the maps are "+list(w.all((*object).maps)), "there is no map %s", pm.Name)
		return
	}
	var g *group
	for _, o := range found {
		switch other := w.groupOf[o.ref(symbol)]; {
		case other != nil:
			w.fail(pm.Pos, "keep one of them", "map %s stands at line %d already", o.key(symbol), other.pos.Line)
			return
		case g == nil:
			g = w.newGroup(o, symbol, pm.Pos)
			w.override(g, pm, pm.Name)
		case pm.Share == policy.ShareNobody:
			w.override(w.newGroup(o, symbol, pm.Pos), pm, o.key(symbol))
		default:
			g.plan.Members = append(g.plan.Members, o.ref(symbol))
			w.groupOf[o.ref(symbol)] = g
		}
	}
	if pm.Share == policy.ShareNobody && len(found) > 1 {
		g.plan.Name = found[0].key(symbol)
	}
}

// override gives a map of the plan what the policy says of it.
func (w *preparer) override(g *group, pm *policy.Map, name string) {
	g.policy, g.plan.Name = pm, name
	g.plan.MaxEntries, g.plan.KeySize, g.plan.ValueSize = pm.MaxEntries, pm.KeySize, pm.ValueSize
	if pm.Type != "" {
		g.plan.Type = w.mapType(pm.Pos, pm.Type)
	}
	if pm.Flags != nil {
		g.plan.Flags = new(w.mapFlags(pm.Pos, pm.Flags))
	}
	if in := pm.Inner; in != nil {
		g.plan.Inner = &specs.PlanInner{
			KeySize: in.KeySize, ValueSize: in.ValueSize, MaxEntries: in.MaxEntries, Flags: w.mapFlags(in.Pos, in.Flags),
		}
		if t := w.mapType(in.Pos, in.Type); t != nil {
			g.plan.Inner.Type = *t
		}
	}
}

func (w *preparer) mapType(pos policy.Pos, name string) *uint32 {
	t, ok := policy.MapType(name)
	if !ok {
		w.fail(pos, "", "%q is not a map type", name)
		return nil
	}
	return &t
}

func (w *preparer) mapFlags(pos policy.Pos, names []string) uint32 {
	var flags uint32
	for _, name := range names {
		bit, ok := policy.MapFlag(name)
		if !ok {
			w.fail(pos, "", "%q is not a flag of maps", name)
		}
		flags |= bit
	}
	return flags
}

// field is how the policy calls a property of a map, for remedies.
func (g *group) field(name string) string {
	return fmt.Sprintf("maps: {%s: {%s: …}}", g.plan.Name, name)
}

// mendMaps completes the maps that are used, as other loaders do when they make
// them, and refuses those that the kernel would refuse.
func (w *preparer) mendMaps() {
	for _, g := range w.groups {
		if !g.used() {
			if g.policy != nil {
				w.warn(g.pos, "no selected program uses the map")
			}
			continue
		}
		w.mend(g)
		g.spec = load.MapSpec(g.member, &g.plan)
		w.checkMembers(g)
	}
}

// checkMembers makes sure that maps which become one are alike.
func (w *preparer) checkMembers(g *group) {
	for _, ref := range g.plan.Members[1:] {
		spec := load.MapSpec(w.object(ref.Object).spec.Maps[ref.Symbol], &g.plan)
		if diff := load.Difference(g.spec, spec); diff != "" {
			w.fail(g.pos, "say it: "+g.field(diff), "the objects %s and %s disagree about the %s of map %s, which they share",
				g.plan.Members[0].Object, ref.Object, diff, ref.Symbol)
			return
		}
	}
}

func (w *preparer) object(name string) *object {
	for _, o := range w.objects {
		if o.name == name {
			return o
		}
	}
	return nil
}
