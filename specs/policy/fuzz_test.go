// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/policy"
)

// FuzzParse: no input makes the parser panic; what it refuses has errors as users
// are promised them; what it accepts says who gets it and what happens on errors,
// is valid by the schema, and is nothing else or nothing at all when it is cut
// off somewhere.
func FuzzParse(f *testing.F) {
	for _, kind := range []string{"good", "bad"} {
		for _, data := range testdata(f, kind) {
			if len(data) < 4096 {
				f.Add(data, uint16(len(data)/2))
			}
		}
	}
	schema := compileSchema(f)
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		policies, err := policy.Parse("p.yaml", data)
		if err != nil {
			if policies != nil {
				t.Fatal("an error, and yet policies")
			}
			checkErrors(t, "p.yaml", err)
			return
		}
		names := map[string]bool{}
		for _, p := range policies {
			checkPolicy(t, p)
			if names[p.Name] {
				t.Fatalf("two policies are called %s", p.Name)
			}
			names[p.Name] = true
		}
		docs, _ := instances(data)
		if len(docs) != len(policies) || len(policies) == 0 {
			t.Fatalf("%d policies of %d documents", len(policies), len(docs))
		}
		for _, doc := range docs {
			if err := schema.Validate(doc); err != nil {
				t.Fatalf("accepted, but not by the schema: %v", err)
			}
		}
		cutOff, err := policy.Parse("p.yaml", data[:int(cut)%(len(data)+1)])
		if err == nil {
			if diff := cmp.Diff(policies, cutOff); diff != "" {
				t.Fatalf("another policy when it is cut off:\n%s", diff)
			}
		}
	})
}

// checkPolicy looks once more, in another way, at what the parser lets through.
func checkPolicy(t *testing.T, p *policy.Policy) {
	t.Helper()
	s := p.Select
	conditions := len(s.Namespaces) + len(s.Pods) + len(s.Containers) + len(s.Networks) + len(s.Callers) + len(s.Annotations)
	switch {
	case !specs.ValidName(p.Name):
		t.Fatalf("name %q", p.Name)
	case p.OnError != specs.Deny && p.OnError != specs.Allow:
		t.Fatalf("onError %q", p.OnError)
	case p.Scope != specs.ScopeContainer, p.Teardown != specs.Drain && p.Teardown != specs.Detach:
		t.Fatalf("scope %q, teardown %q", p.Scope, p.Teardown)
	case p.TC != nil && p.TC.Fallback != specs.FallbackClsact:
		t.Fatalf("tc %+v", p.TC)
	case !s.All && !s.OptIn && conditions == 0, s.All && conditions > 0:
		t.Fatalf("selector %+v", s)
	case s.Exclude != nil && (s.Exclude.All || s.Exclude.Match(specs.Identity{})):
		t.Fatalf("exclude %+v", s.Exclude)
	case len(p.Objects) == 0:
		t.Fatal("no object")
	}
	if _, err := specs.Choose(specs.Identity{}, []specs.Candidate{{Name: p.Name, Select: s}}); err != nil {
		t.Fatal(err)
	}
	for _, o := range p.Objects {
		if (o.Builtin == "") == (o.File == "") || o.File != "" && (!fs.ValidPath(o.File) || o.File == ".") {
			t.Fatalf("object %+v", o)
		}
	}
	for _, program := range p.Programs {
		for _, a := range program.Attachments {
			if program.LoadOnly || a.Attach != "" && a.Attach.Target() == "" || a.Interface == "lo" {
				t.Fatalf("program %+v", program)
			}
			if a.Attach == specs.HookNetfilter && (a.Family == "" || a.Hook == "") {
				t.Fatalf("netfilter %+v", a)
			}
		}
	}
	for _, c := range p.Constants {
		checkValue(t, c.Value)
	}
	for _, m := range p.Maps {
		for _, e := range m.Entries {
			if e.Key != nil {
				checkValue(t, e.Key)
			}
			checkValue(t, e.Value)
		}
	}
}

// checkValue demands that nothing of a value is missing.
func checkValue(t *testing.T, v *policy.Value) {
	t.Helper()
	if v == nil || v.Null || v.Pos.Line == 0 || v.Pos.Field == "" {
		t.Fatalf("value %+v", v)
	}
	if v.Kind == policy.MapValue && len(v.Keys) != len(v.Items) {
		t.Fatalf("%d keys and %d values", len(v.Keys), len(v.Items))
	}
	for _, part := range append(v.Keys, v.Items...) {
		checkValue(t, part)
	}
}
