// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
)

// declarations finds maps in the objects that entries were made from.
type declarations struct {
	set   *applied.Set                    // nil if there is none
	specs map[string]*ebpf.CollectionSpec // by SHA-256; nil for one that can't be read
}

// declarations opens the applied set, if there is an intact one: without it maps
// are shown by what the kernel knows of them. The caller must call close.
func (a *app) declarations() *declarations {
	d := &declarations{specs: map[string]*ebpf.CollectionSpec{}}
	if set, err := applied.Open(a.roots.applied()); err == nil {
		d.set = set
	}
	return d
}

func (d *declarations) close() {
	if d.set != nil {
		d.set.Close()
	}
}

// of returns a function for openTyped.
func (d *declarations) of(rec *pin.Record, name string) func() *ebpf.MapSpec {
	return func() *ebpf.MapSpec {
		if d.set == nil || rec == nil {
			return nil
		}
		plan, err := d.set.PlanByDigest(rec.Digest)
		if err != nil {
			return nil
		}
		for _, m := range plan.Maps {
			if m.Name == name && len(m.Members) > 0 {
				return d.declared(plan, m.Members[0])
			}
		}
		return nil
	}
}

func (d *declarations) declared(plan *specs.Plan, ref specs.MapRef) *ebpf.MapSpec {
	for _, o := range plan.Objects {
		if o.Name != ref.Object {
			continue
		}
		spec, ok := d.specs[o.SHA256]
		if !ok {
			if data, err := d.set.Object(o.SHA256); err == nil {
				spec, _ = ebpf.LoadCollectionSpecFromReader(bytes.NewReader(data)) // it was loaded once
			}
			d.specs[o.SHA256] = spec
		}
		if spec != nil {
			return spec.Maps[ref.Symbol]
		}
	}
	return nil
}
