// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/bpf/bpftest"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
	"github.com/linkpin/linkpin/specs/policy"
)

//go:generate sh -c "../../hack/bpfobject testdata/*.bpf.c"
//go:generate sh -c "cd testdata && clang -O2 -target bpfeb -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu -c empty.bpf.c -o bigendian.o"

func TestMain(m *testing.M) { os.Exit(bpftest.Main(m)) }

// header stands below the tests' YAML, so that theirs begins at line 1.
const header = `
apiVersion: linkpin.io/v1
kind: Policy
metadata: {name: test}
select: {all: true}
onError: deny
...
`

// directory is a policy directory with the objects of the tests: root's, and
// nobody else's to write, wherever the sources are.
func directory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	objects, err := filepath.Glob("testdata/*.o")
	if err != nil || len(objects) == 0 {
		t.Fatal("no objects", err)
	}
	for _, from := range append(objects, "../load/testdata/core.bpf.o", "../load/testdata/tracing.bpf.o") {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, filepath.Base(from)), data)
	}
	return dir
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func parse(t *testing.T, text string) *policy.Policy {
	t.Helper()
	ps, err := policy.Parse("p.yaml", []byte(text+header))
	if err != nil {
		t.Fatal(err)
	}
	return ps[0]
}

func prepare(t *testing.T, text string) (*Prepared, error) {
	t.Helper()
	return Policy(parse(t, text), Options{Dir: directory(t)})
}

// must prepares a policy without errors and warnings.
func must(t *testing.T, text string) *Prepared {
	t.Helper()
	p, err := prepare(t, text)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range p.Warnings {
		t.Errorf("warning: %s", w)
	}
	return p
}

// wantErrors checks that the policy has exactly these errors; each is given by
// parts, of which the first is its beginning.
func wantErrors(t *testing.T, err error, want ...[]string) {
	t.Helper()
	var errs policy.Errors
	if !errors.As(err, &errs) {
		t.Fatalf("not policy.Errors: %v", err)
	}
	if len(errs) != len(want) {
		t.Errorf("%d errors, want %d", len(errs), len(want))
	}
	for i, e := range errs {
		line := e.Error()
		if strings.Contains(line, "\n") {
			t.Errorf("more than one line: %q", line)
		}
		if fault.ExitCode(e) != fault.ExitInput {
			t.Errorf("exit code %d for %q", fault.ExitCode(e), line)
		}
		if i >= len(want) {
			t.Errorf("further error %q", line)
			continue
		}
		for j, part := range want[i] {
			if j == 0 && !strings.HasPrefix(line, part) || !strings.Contains(line, part) {
				t.Errorf("error %q\ndoes not say %q", line, part)
			}
		}
	}
}

func wantWarnings(t *testing.T, p *Prepared, want ...[]string) {
	t.Helper()
	if len(p.Warnings) != len(want) {
		t.Fatalf("%d warnings, want %d: %q", len(p.Warnings), len(want), p.Warnings)
	}
	for i, parts := range want {
		for _, part := range parts {
			if !strings.Contains(p.Warnings[i], part) {
				t.Errorf("warning %q does not say %q", p.Warnings[i], part)
			}
		}
	}
}

func programOf(t *testing.T, p *Prepared, key string) specs.PlanProgram {
	t.Helper()
	for _, prog := range p.Plan.Programs {
		if prog.Key == key {
			return prog
		}
	}
	t.Fatalf("no program %s among %v", key, keys(p))
	return specs.PlanProgram{}
}

func mapOf(t *testing.T, p *Prepared, name string) specs.PlanMap {
	t.Helper()
	for _, m := range p.Plan.Maps {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("no map %s among %v", name, mapNames(p))
	return specs.PlanMap{}
}

func mapNames(p *Prepared) []string {
	var names []string
	for _, m := range p.Plan.Maps {
		names = append(names, m.Name)
	}
	return names
}

func keys(p *Prepared) []string {
	var out []string
	for _, prog := range p.Plan.Programs {
		out = append(out, prog.Key)
	}
	return out
}

// plain is a policy over plain.bpf.o that says what its maps lack.
const plain = `object: {file: plain.bpf.o}
maps:
  sized: {maxEntries: 16}
  outer: {inner: {type: array, keySize: 4, valueSize: 4, maxEntries: 1}}
`

func TestPlan(t *testing.T) {
	p := must(t, plain)
	if got, want := keys(p), []string{"connect4", "egress", "from_wire", "ingress"}; !slices.Equal(got, want) {
		t.Errorf("programs %v, want %v", got, want)
	}
	for key, want := range map[string]specs.Attachment{
		"connect4":  {Name: "connect4", Hook: "cgroup/connect4"},
		"egress":    {Name: "egress", Hook: "cgroup_skb/egress"},
		"from_wire": {Name: "from_wire", Hook: specs.HookTCXIngress, Side: specs.SideContainer},
	} {
		if got := programOf(t, p, key).Attachments; len(got) != 1 || got[0] != want {
			t.Errorf("%s: %+v, want %+v", key, got, want)
		}
	}
	if len(p.Plan.Objects) != 1 || len(p.Objects[p.Plan.Objects[0].SHA256]) == 0 || p.Plan.Name != "test" || p.Plan.OnError != specs.Deny {
		t.Errorf("plan %+v", p.Plan)
	}
	if unchecked, err := p.Verify(t.Context()); err != nil || len(unchecked) > 0 {
		t.Errorf("%v, %v", unchecked, err)
	}
}

// The digest of a policy is that of its plan's JSON.
func TestPlanIsTheSameEachTime(t *testing.T) {
	pol, dir := parse(t, plain+"constants: {limit: 3, enabled: true, label: abc}\n"), directory(t)
	var first string
	for range 20 {
		p, err := Policy(pol, Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(p.Plan)
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = string(data)
		} else if first != string(data) {
			t.Fatalf("the plan differs:\n%s\n%s", first, data)
		}
	}
}

func TestManyErrors(t *testing.T) {
	text := plain + "  totals:\n    entries:\n"
	for i := range 70 {
		text += fmt.Sprintf("      - {key: %d, value: {packets: x}}\n", i)
	}
	_, err := prepare(t, text)
	var errs policy.Errors
	if !errors.As(err, &errs) || len(errs) != maxErrors+1 {
		t.Fatalf("%d errors", len(errs))
	}
	if last := errs[maxErrors].Error(); last != "p.yaml: 20 more errors; correct these first" {
		t.Errorf("%q", last)
	}
}

func TestBuiltin(t *testing.T) {
	p := must(t, "object: {builtin: meter}\n")
	if len(p.Objects) != 1 || p.Plan.Objects[0].Origin != "builtin:meter" {
		t.Errorf("%+v", p.Plan.Objects)
	}
	if _, err := p.Verify(t.Context()); err != nil {
		t.Error(err)
	}

	_, err := prepare(t, "object: {builtin: moon}\n")
	wantErrors(t, err, []string{"p.yaml:1: object: ", "moon", "; there are egress and meter"})
}

// Hook and CNI plugin would both leave such a program out, silently.
func TestNetworksSelectNoCgroupPrograms(t *testing.T) {
	text := strings.Replace("object: {builtin: meter}\n"+header, "{all: true}", "{networks: [web]}", 1)
	ps, err := policy.Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Policy(ps[0], Options{Dir: directory(t)})
	wantErrors(t, err,
		[]string{"p.yaml:1: object", "skb_egress", "only the CNI plugin knows the networks"},
		[]string{"p.yaml:1: object", "skb_ingress"})
}
