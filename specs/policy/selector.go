// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs"
)

// maxAnnotationKey is the limit of Kubernetes: a prefix of 253 bytes, a slash and
// a name of 63.
const maxAnnotationKey = 317

// selector reads `select:`.
func (d *decoder) selector(f field) specs.Select {
	var s specs.Select
	o, ok := d.object(f, selectKeys)
	if !ok {
		return s
	}
	s.Fields = d.conditions(o)
	if f, ok := o.get("all"); ok {
		s.All, _ = d.boolean(f)
	}
	if f, ok := o.get("optIn"); ok {
		s.OptIn, _ = d.boolean(f)
	}
	if f, ok := o.get("annotations"); ok {
		s.Annotations = d.annotations(f)
	}
	d.checkSelector(f.pos, o, s)
	if f, ok := o.get("networks"); ok && s.OptIn {
		d.networksAndOptIn(f.pos)
	}
	if f, ok := o.get("exclude"); ok {
		s.Exclude = d.exclude(f)
		if s.OptIn && s.Exclude != nil && s.Exclude.Networks != nil {
			d.networksAndOptIn(f.at("networks"))
		}
	}
	return s
}

// exclude reads the fields that take a container out again.
func (d *decoder) exclude(f field) *specs.Fields {
	o, ok := d.object(f, excludeKeys)
	if !ok {
		return nil
	}
	if len(o.fields) == 0 && o.whole {
		d.fail(f.pos, "name a field, or remove it", "is empty")
	}
	fields := d.conditions(o)
	return &fields
}

func (d *decoder) networksAndOptIn(pos Pos) {
	d.fail(pos, "narrow it with interface in programs instead",
		"does not go with optIn: the OCI hook has to refuse who may not ask, and does not know the network")
}

// checkSelector refuses selectors that contradict themselves.
func (d *decoder) checkSelector(pos Pos, o *object, s specs.Select) {
	conditions := []string{"namespaces", "pods", "containers", "networks", "callers", "annotations"}
	given := slices.ContainsFunc(conditions, func(key string) bool { _, ok := o.get(key); return ok })
	if all, _ := o.get("all"); s.All && given {
		d.fail(all.pos, "remove all, or the other fields; what must not get the policy goes into exclude",
			"stands beside fields that select less")
	}
	if !s.All && !s.OptIn && !given && o.whole {
		d.fail(pos, "write all: true, optIn: true or one of "+strings.Join(conditions, ", "), "selects nothing")
	}
}

// conditions reads the fields that select and exclude have in common.
func (d *decoder) conditions(o *object) specs.Fields {
	var out specs.Fields
	for _, list := range []struct {
		key string
		to  *[]string
	}{
		{"namespaces", &out.Namespaces}, {"pods", &out.Pods}, {"containers", &out.Containers}, {"networks", &out.Networks},
	} {
		if f, ok := o.get(list.key); ok {
			*list.to = d.globs(f)
		}
	}
	if f, ok := o.get("callers"); ok {
		for _, item := range d.filled(f) {
			if c, ok := choice(d, item, specs.Callers); ok {
				out.Callers = append(out.Callers, c)
			}
		}
	}
	return out
}

// globs reads a list of globs.
func (d *decoder) globs(f field) []string {
	items := d.filled(f)
	var globs []string
	for _, item := range items {
		glob, ok := d.glob(item)
		if ok && glob == "" {
			d.fail(item.pos, `remove it, or write "*" for every name that is known`, "an empty glob matches nothing")
		}
		globs = append(globs, glob)
	}
	return globs
}

// glob reads one glob, which may be empty.
func (d *decoder) glob(f field) (string, bool) {
	s, ok := d.text(f)
	if !ok {
		return "", false
	}
	if err := specs.CheckGlob(s); err != nil {
		d.fail(f.pos, "", "the glob %q: %w", shorten(s), err)
		return "", false
	}
	return s, true
}

// annotations reads exact keys with globs for their values.
func (d *decoder) annotations(f field) map[string]string {
	pairs, ok := d.pairs(f)
	if ok && len(f.node.Content) == 0 {
		d.fail(f.pos, "fill it, or remove the key", "is empty")
	}
	out := map[string]string{}
	for _, p := range pairs {
		key := p.key.Value
		switch {
		case key == specs.OptInAnnotation:
			d.fail(p.pos, "write optIn: true", "this annotation chooses among policies that are optIn")
		case key == "" || len(key) > maxAnnotationKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r == 0x7f }):
			d.fail(p.pos, "write the annotation's key as it is; only its value is a glob", "%q can't be the key of an annotation", shorten(key))
		}
		if glob, ok := d.glob(p.field); ok {
			out[key] = glob
		}
	}
	return out
}

// checkPodSelect refuses conditions that tell the containers of a pod apart, and
// callers without pods, in a policy for the pod's cgroup: what is attached there
// concerns every container of the pod.
func (d *decoder) checkPodSelect(sel field, s specs.Select) {
	const remedy = "remove it, or remove cgroup: pod"
	for _, c := range s.Callers {
		if !c.HasPods() {
			d.fail(sel.at("callers"), "name crio and containerd only, or remove cgroup: pod",
				"%s has no pods, and the policy is for the pod's cgroup", c)
		}
	}
	if len(s.Containers) > 0 {
		d.fail(sel.at("containers"), remedy, "a pod's cgroup holds all of its containers: they can't be told apart by name")
	}
	if s.Exclude != nil && len(s.Exclude.Containers) > 0 {
		d.fail(sel.at("exclude", "containers"), remedy, "a pod's cgroup holds all of its containers: none of them can be excluded")
	}
}
