// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs"
)

// node is a part of the schema.
type node map[string]any

func schemaNode(t *testing.T, path ...string) node {
	t.Helper()
	var n any
	if err := json.Unmarshal(Schema(), &n); err != nil {
		t.Fatal(err)
	}
	for _, key := range path {
		m, _ := n.(map[string]any)
		if n = m[key]; n == nil {
			t.Fatalf("the schema has no %v", path)
		}
	}
	m, ok := n.(map[string]any)
	if !ok {
		t.Fatalf("%v is %T", path, n)
	}
	return m
}

func (n node) keys() []string {
	properties, _ := n["properties"].(map[string]any)
	var keys []string
	for key := range properties {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func (n node) list(key string) []string {
	var out []string
	items, _ := n[key].([]any)
	for _, item := range items {
		s, _ := item.(string)
		out = append(out, s)
	}
	return out
}

// lowerFirst writes a Go field as a key of the policy: MaxEntries, maxEntries.
func lowerFirst(s string) string {
	if s == "SHA256" {
		return "sha256"
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// fieldsOf returns the keys that the fields of a Go type stand for.
func fieldsOf(v any, renamed map[string]string) []string {
	var keys []string
	for f := range reflect.TypeOf(v).Fields() {
		key := lowerFirst(f.Name)
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag != "" {
			key = tag
		}
		if to, ok := renamed[f.Name]; ok {
			key = to
		}
		if key != "" && !f.Anonymous {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// The parser, the Go types and the schema know the same keys.
func TestSchemaKeys(t *testing.T) {
	position := map[string]string{"Pos": "", "Name": ""}
	fields := fieldsOf(specs.Fields{}, nil)
	conditions := slices.DeleteFunc(slices.Clone(fields), func(s string) bool { return s == "all" })
	program := append(fieldsOf(Attachment{}, position), fieldsOf(Program{}, map[string]string{
		"Pos": "", "Name": "", "Attachments": "", "LoadOnly": "attach"})...)
	for _, tc := range []struct {
		name   string
		parser keys
		types  []string
		schema node
	}{
		{"policy", policyKeys, append(fieldsOf(Policy{}, map[string]string{
			"Pos": "", "Name": "metadata", "Description": "metadata", "TC": "tc"}), "apiVersion", "kind", "object"), schemaNode(t)},
		{"metadata", metadataKeys, []string{"name", "description"}, schemaNode(t, "properties", "metadata")},
		{"tc", tcKeys, fieldsOf(TC{}, position), schemaNode(t, "properties", "tc")},
		{"object", objectKeys, fieldsOf(Object{}, position), schemaNode(t, "$defs", "object")},
		{"select", selectKeys, append(fields, fieldsOf(specs.Select{}, nil)...), schemaNode(t, "$defs", "select")},
		{"exclude", excludeKeys, conditions, schemaNode(t, "$defs", "exclude")},
		{"program", programKeys, program, schemaNode(t, "$defs", "place")},
		{"map", mapKeys, fieldsOf(Map{}, map[string]string{"Pos": "", "Name": "", "Slots": "programs"}), schemaNode(t, "$defs", "map")},
		{"inner", innerKeys, fieldsOf(InnerMap{}, position), schemaNode(t, "$defs", "inner")},
		{"entry", entryKeys, fieldsOf(MapEntry{}, position), schemaNode(t, "$defs", "entry")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			parser := slices.Sorted(slices.Values(tc.parser.names))
			types := slices.Compact(slices.Sorted(slices.Values(tc.types)))
			if diff := cmp.Diff(types, parser); diff != "" {
				t.Errorf("Go types and parser (-types +parser):\n%s", diff)
			}
			if diff := cmp.Diff(parser, tc.schema.keys()); diff != "" {
				t.Errorf("parser and schema (-parser +schema):\n%s", diff)
			}
			if tc.schema["additionalProperties"] != false {
				t.Error("the schema lets other keys through")
			}
			checkDescriptions(t, tc.schema)
		})
	}
}

// checkDescriptions demands the text that editors show for every key.
func checkDescriptions(t *testing.T, n node) {
	t.Helper()
	properties, _ := n["properties"].(map[string]any)
	for key, p := range properties {
		m, _ := p.(map[string]any)
		if m["description"] == nil && m["$ref"] == nil {
			t.Errorf("%s has no description", key)
		}
	}
}

func TestSchemaEnums(t *testing.T) {
	for _, tc := range []struct {
		name string
		want []string
		got  []string
	}{
		{"hooks", text(specs.Hooks()), schemaNode(t, "$defs", "hook").list("enum")},
		{"callers", text(specs.Callers), schemaNode(t, "$defs", "select", "properties", "callers", "items").list("enum")},
		{"map types", mapTypeNames(), schemaNode(t, "$defs", "mapType").list("enum")},
		{"map flags", mapFlagNames(), schemaNode(t, "$defs", "mapFlags", "items").list("enum")},
		{"onError", text([]specs.OnError{specs.Deny, specs.Allow}), schemaNode(t, "properties", "onError").list("enum")},
		{"scope", text([]specs.Scope{specs.ScopeContainer}), schemaNode(t, "properties", "scope").list("enum")},
		{"cgroup", text([]specs.CgroupOf{specs.CgroupContainer, specs.CgroupPod}), schemaNode(t, "properties", "cgroup").list("enum")},
		{"tc.fallback", text([]specs.TCFallback{specs.FallbackClsact}), schemaNode(t, "properties", "tc", "properties", "fallback").list("enum")},
		{"teardown", text([]specs.Teardown{specs.Drain, specs.Detach}), schemaNode(t, "properties", "teardown").list("enum")},
		{"side", text([]specs.Side{specs.SideHost, specs.SideContainer}), schemaNode(t, "$defs", "place", "properties", "side").list("enum")},
		{"direction", text([]specs.Direction{specs.ToContainer, specs.FromContainer}), schemaNode(t, "$defs", "place", "properties", "direction").list("enum")},
		{"mode", text([]specs.XDPMode{specs.XDPAuto, specs.XDPNative, specs.XDPGeneric}), schemaNode(t, "$defs", "place", "properties", "mode").list("enum")},
		{"share", []string{ShareContainer, ShareNobody}, schemaNode(t, "$defs", "map", "properties", "share").list("enum")},
		{"required", []string{"apiVersion", "kind", "metadata", "select", "onError"}, schemaNode(t).list("required")},
	} {
		if diff := cmp.Diff(tc.want, tc.got); diff != "" {
			t.Errorf("%s (-Go +schema):\n%s", tc.name, diff)
		}
	}
}

func text[T ~string](values []T) []string {
	var out []string
	for _, v := range values {
		out = append(out, string(v))
	}
	return out
}
