// SPDX-License-Identifier: Apache-2.0

package specs_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs"
)

// draw makes small random things out of a fuzzer's bytes; at their end
// everything is the first choice.
type draw struct{ data []byte }

func (d *draw) n(limit int) int {
	if len(d.data) == 0 {
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return int(b) % limit
}

func (d *draw) word() string {
	return []string{"", "a", "ab", "b", "ba"}[d.n(5)]
}

func (d *draw) globs() []string {
	return [][]string{nil, {"a"}, {"b*"}, {"*"}, {"a?", "b"}}[d.n(5)]
}

func (d *draw) fields() specs.Fields {
	f := specs.Fields{
		All: d.n(4) == 1, Namespaces: d.globs(), Pods: d.globs(), Containers: d.globs(), Networks: d.globs(),
	}
	if d.n(3) == 1 {
		f.Callers = []specs.Caller{specs.Callers[d.n(len(specs.Callers))]}
	}
	return f
}

func (d *draw) candidate(i int) specs.Candidate {
	s := specs.Select{Fields: d.fields(), OptIn: d.n(2) == 1}
	if d.n(3) == 1 {
		s.Annotations = map[string]string{"k" + d.word(): "*" + d.word()}
	}
	if d.n(2) == 1 {
		f := d.fields()
		s.Exclude = &f
	}
	return specs.Candidate{Name: fmt.Sprintf("p%d", i), Select: s}
}

func (d *draw) identity() specs.Identity {
	return specs.Identity{
		Caller: specs.Callers[d.n(len(specs.Callers))], ContainerID: "c", Namespace: d.word(), Pod: d.word(),
		Container: d.word(), Network: d.word(),
	}
}

func (d *draw) annotations() map[string]string {
	m := map[string]string{}
	for range d.n(3) {
		m["k"+d.word()] = d.word()
	}
	if d.n(2) == 1 {
		m[specs.OptInAnnotation] = []string{"p0", "p1,p2", "p3, p0", "p9", "../p0", ""}[d.n(6)]
	}
	return m
}

// FuzzChoose holds what annotations can and can't do against random policies,
// containers and annotations.
func FuzzChoose(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("some bytes that make four policies with excludes and annotations 0123456789"))
	seed := make([]byte, 160)
	for i := range seed {
		seed[i] = byte(i * 37)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		d := &draw{data}
		var all []specs.Candidate
		for i := range 4 {
			all = append(all, d.candidate(i))
		}
		id := d.identity()
		plain, err := specs.Choose(id, all)
		if err != nil {
			t.Fatalf("without annotations: %v", err)
		}
		id.Annotations = d.annotations()
		got, err := specs.Choose(id, all)
		if err != nil {
			if got != nil {
				t.Fatalf("error %v, and yet %v", err, names(got))
			}
			return
		}
		checkChosen(t, id, all, plain, got)
	})
}

func checkChosen(t *testing.T, id specs.Identity, all, plain, got []specs.Candidate) {
	t.Helper()
	for _, c := range plain {
		if c.Select.OptIn {
			t.Fatalf("%s is optIn and was given without being asked for", c.Name)
		}
		if !slices.Contains(names(got), c.Name) {
			t.Fatalf("the annotations %v took %s away", id.Annotations, c.Name)
		}
	}
	bare := id
	bare.Annotations = maps.Clone(id.Annotations)
	delete(bare.Annotations, specs.OptInAnnotation)
	for _, c := range got {
		s := c.Select
		if s.OptIn && id.Annotations[specs.OptInAnnotation] == "" {
			t.Fatalf("%s is optIn and nobody asked for it", c.Name)
		}
		if s.Exclude != nil && s.Exclude.Match(id) {
			t.Fatalf("%s was given to a container that it excludes", c.Name)
		}
		if !s.Fields.Match(id) && !reflect.ValueOf(s.Fields).IsZero() {
			t.Fatalf("%s was given to a container that its fields do not match", c.Name)
		}
		if !s.Match(bare) {
			t.Fatalf("asking for %s widened its selector", c.Name)
		}
	}
	for _, c := range all {
		asked := strings.Contains(id.Annotations[specs.OptInAnnotation], c.Name)
		left := id.Network != "" && id.Container == "" && len(c.Select.Containers) > 0
		if asked && !left && !slices.Contains(names(got), c.Name) {
			t.Fatalf("%s was asked for and is neither given nor refused", c.Name)
		}
	}
	position := -1
	for _, name := range names(got) {
		i := slices.Index(names(all), name)
		if i <= position {
			t.Fatalf("order %v of %v", names(got), names(all))
		}
		position = i
	}
}
