// SPDX-License-Identifier: Apache-2.0

package policies_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/linkpin/linkpin/specs/policies"
	"github.com/linkpin/linkpin/specs/policy"
)

// ready parses the ready policies.
func ready(t *testing.T) []*policy.Policy {
	t.Helper()
	names, err := policies.Names()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(names, []string{"block-metadata", "egress-web", "meter"}) {
		t.Errorf("names %v", names)
	}
	var all []*policy.Policy
	for _, name := range names {
		data, err := policies.File(name)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := policy.Parse(name+".yaml", data)
		if err != nil {
			t.Fatal(err)
		}
		if len(parsed) != 1 || parsed[0].Name != name || parsed[0].Description == "" {
			t.Errorf("%s holds %d policies, the first is %q", name, len(parsed), parsed[0].Name)
		}
		all = append(all, parsed...)
	}
	return all
}

// Programs, maps and constants that a ready policy names are in its object.
func TestReadyPoliciesFitTheirObjects(t *testing.T) {
	for _, p := range ready(t) {
		path := filepath.Join("..", "..", "bpf", "programs", p.Objects[0].Builtin+"_bpfel.o")
		spec, err := ebpf.LoadCollectionSpec(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, program := range p.Programs {
			if spec.Programs[program.Name] == nil {
				t.Errorf("%s has no program %s", path, program.Name)
			}
		}
		for _, m := range p.Maps {
			if spec.Maps[m.Name] == nil {
				t.Errorf("%s has no map %s", path, m.Name)
			}
		}
		for _, c := range p.Constants {
			if spec.Variables[c.Name] == nil {
				t.Errorf("%s has no constant %s", path, c.Name)
			}
		}
	}
}

func TestUnknown(t *testing.T) {
	for _, name := range []string{"", "nope", "../policies.go", "meter.yaml", strings.Repeat("a", 1000)} {
		if _, err := policies.File(name); !errors.Is(err, policies.ErrUnknown) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
