// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs"
)

func readSpec(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "SPEC.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Every example of SPEC.md is valid. Fragments get the keys that they leave out.
func TestSpecExamples(t *testing.T) {
	_, rest, found := strings.Cut(readSpec(t), "```yaml\n")
	examples := 0
	for ; found; _, rest, found = strings.Cut(rest, "```yaml\n") {
		example, _, _ := strings.Cut(rest, "```")
		examples++
		whole := example
		if !strings.Contains(example, "apiVersion:") {
			for _, line := range []string{
				"apiVersion: linkpin.io/v1", "kind: Policy", "metadata: {name: example}", "object: {file: x.o}",
				"select: {all: true}", "onError: deny",
			} {
				key, _, _ := strings.Cut(line, ":")
				given := strings.HasPrefix(example, key+":") || strings.Contains(example, "\n"+key+":")
				if !given && (key != "object" || !strings.HasPrefix(example, "objects:")) {
					whole = line + "\n" + whole
				}
			}
			whole += "...\n"
		}
		if _, err := Parse("SPEC.md", []byte(whole)); err != nil {
			t.Errorf("%v\n%s", err, example)
		}
	}
	if examples < 12 {
		t.Errorf("found %d examples", examples)
	}
}

// SPEC.md names every key, hook, map type, flag, variable and what is refused.
func TestSpecIsComplete(t *testing.T) {
	spec := readSpec(t)
	want := slices.Concat(text(specs.Hooks()), text(specs.Callers), mapTypeNames(), mapFlagNames())
	for _, k := range []keys{policyKeys, objectKeys, selectKeys, excludeKeys, programKeys, mapKeys} {
		want = append(want, k.names...)
		for later := range k.later {
			want = append(want, later)
		}
	}
	for _, name := range Variables {
		want = append(want, "${"+name+"}")
	}
	for _, word := range want {
		if !strings.Contains(spec, "`"+word+"`") {
			t.Errorf("SPEC.md does not explain `%s`", word)
		}
	}
}

// The errors that SPEC.md shows are real ones.
func TestSpecErrors(t *testing.T) {
	head := "apiVersion: linkpin.io/v1\nkind: Policy\nmetadata: {name: a}\nobject: {file: x.o}\nselect: {all: true}\nonError: deny\n"
	_, err := Parse("egress.yaml", []byte(head+"\nprograms:\n  filter: {side: hots}\n\n\n\n\nmaps: {m: {maxEntries: 1}}\n"))
	if err == nil {
		t.Fatal("accepted")
	}
	for line := range strings.Lines(err.Error()) {
		if !strings.Contains(readSpec(t), strings.TrimSuffix(line, "\n")) {
			t.Errorf("SPEC.md shows it differently: %s", line)
		}
	}
}
