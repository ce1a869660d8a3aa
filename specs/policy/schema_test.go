// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	yaml "go.yaml.in/yaml/v3"

	"github.com/linkpin/linkpin/specs/policy"
)

func compileSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(policy.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7) // so that the schema has to name its own
	if err := c.AddResource("policy.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("policy.json")
	if err != nil {
		t.Fatal(err)
	}
	if schema.DraftVersion != 2020 {
		t.Fatalf("draft %d", schema.DraftVersion)
	}
	return schema
}

// instances returns the documents of a policy file as an editor's validator sees
// them, with the types of YAML's core schema. ok is false if it is not YAML.
func instances(data []byte) (docs []any, ok bool) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, true
		}
		if err != nil {
			return nil, false
		}
		docs = append(docs, instance(doc.Content[0]))
	}
}

func instance(n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = instance(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, child := range n.Content {
			list = append(list, instance(child))
		}
		return list
	case yaml.AliasNode:
		return "*" + n.Value
	}
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int":
		if i, ok := new(big.Int).SetString(n.Value, 0); ok {
			return json.Number(i.String())
		}
	case "!!float":
		if json.Valid([]byte(n.Value)) {
			return json.Number(n.Value)
		}
	}
	return n.Value
}

func TestSchemaAcceptsGood(t *testing.T) {
	schema := compileSchema(t)
	for name, data := range testdata(t, "good") {
		docs, ok := instances(data)
		if !ok || len(docs) == 0 {
			t.Errorf("%s: not YAML", name)
		}
		for _, doc := range docs {
			if err := schema.Validate(doc); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// beyondSchema are the bad files with documents that a schema can't tell from
// good ones, and why.
var beyondSchema = map[string]string{
	"byte-order-mark":             "bytes",
	"control-character":           "bytes",
	"line-separator":              "bytes",
	"old-mac-line-ends":           "bytes",
	"latin1":                      "bytes",
	"utf16":                       "bytes",
	"cut-in-maps":                 "the end of the file",
	"no-end":                      "the end of the file",
	"end-in-the-middle":           "the end of the file",
	"same-name-twice":             "two documents",
	"yaml-duplicate-keys":         "layout of YAML",
	"yaml-tags":                   "layout of YAML",
	"yaml-anchors":                "layout of YAML",
	"yaml-deep":                   "depth",
	"select-networks-and-cgroup":  "a rule over select and programs",
	"select-networks-and-tracing": "a rule over select and programs",
	"programs-direction":          "a rule over attach, side and direction",
	"maps-same-key-twice":         "equality of keys written differently",
	"variables":                   "`${` may begin a text in a quoted form",
}

// Every document of a bad file is refused by the schema as well, where a schema
// can say so. In files with several documents at least one must be.
func TestSchemaRefusesBad(t *testing.T) {
	schema := compileSchema(t)
	for name, data := range testdata(t, "bad") {
		name = strings.TrimSuffix(name, ".yaml")
		docs, ok := instances(data)
		if !ok || len(docs) == 0 {
			continue
		}
		refused := slices.ContainsFunc(docs, func(doc any) bool { return schema.Validate(doc) != nil })
		reason, beyond := beyondSchema[name]
		if !refused && !beyond {
			t.Errorf("%s: the schema accepts it", name)
		}
		if refused && beyond {
			t.Errorf("%s is listed as beyond the schema (%s), which refuses it", name, reason)
		}
	}
	for name := range beyondSchema {
		if matches, _ := filepath.Glob(filepath.Join("..", "testdata", "bad", name+".yaml")); len(matches) == 0 {
			t.Errorf("beyondSchema has %s, and there is no such file", name)
		}
	}
}
