// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	yaml "go.yaml.in/yaml/v3"

	"github.com/linkpin/linkpin/bpf/value"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
	"github.com/linkpin/linkpin/specs/policy"
)

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:       "0s",
		90 * time.Second:   "90s",
		5 * time.Minute:    "5m",
		3 * time.Hour:      "3h",
		72 * time.Hour:     "3d",
		9000 * time.Minute: "6d",
	} {
		if got := age(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

// What flow writes is what YAML reads, and the same kind of thing.
func TestFlow(t *testing.T) {
	for _, s := range []string{
		"", "tcp", "10.0.0.0/8", "::1", "2001:db8::/32", "02:00:00:00:00:01", "hex:0a0b", "10", "0x10", "1e3", "1_000", "true", "no",
		"null", "~", "-", ".inf", "2001-01-01", "12:30:45", "a: b", "a:", "- a", "#x", "{", "a, b", "é\u009b\x1b[31m\u202e", `"\`, "*", "&a", "!t",
	} {
		var got any
		text := "[" + flow(s) + "]"
		if err := yaml.Unmarshal([]byte(text), &got); err != nil || !reflect.DeepEqual(got, []any{s}) {
			t.Errorf("%q: %s is read as %#v, %v", s, text, got, err)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
			t.Errorf("%q: %s is not printable", s, text)
		}
	}
	v := value.Struct{{Name: "a", Value: uint64(1)}, {Name: "b", Value: []any{json.Number("340282366920938463463374607431768211455"), true, "x"}}}
	if got, want := flow(v), "{a: 1, b: [340282366920938463463374607431768211455, true, x]}"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestParseArgument(t *testing.T) {
	for arg, want := range map[string]string{
		"443":               "443",
		"be:443":            "be:443",
		"a: b":              "a: b", // not YAML: as it stands
		"*":                 "*",
		"{a: 1, b: [x, 2]}": "{a=1 b=[x 2]}",
		`["1", null]`:       `["1" null]`,
		"{a: 1, a: 2}":      "error",
		"{a: ":              "error",
		"[&x 1, *x]":        "error",
		"{[1]: 2}":          "error",
	} {
		v, err := parseArgument("KEY", arg)
		got := "error"
		if err == nil {
			got = show(v)
		}
		if got != want {
			t.Errorf("%s: %s (%v), want %s", arg, got, err, want)
		}
	}
}

func show(v *policy.Value) string {
	var parts []string
	for i, item := range v.Items {
		part := show(item)
		if v.Kind == policy.MapValue {
			part = v.Keys[i].Text + "=" + part
		}
		parts = append(parts, part)
	}
	switch {
	case v.Kind == policy.ListValue:
		return "[" + strings.Join(parts, " ") + "]"
	case v.Kind == policy.MapValue:
		return "{" + strings.Join(parts, " ") + "}"
	case v.Null:
		return "null"
	case v.Quoted:
		return fmt.Sprintf("%q", v.Text)
	}
	return v.Text
}

func TestSumCPUs(t *testing.T) {
	amount := func(n uint64) any {
		return value.Struct{{Name: "n", Value: n}, {Name: "list", Value: []any{n, json.Number("1")}}}
	}
	if got, ok := sumCPUs([]any{amount(1), amount(1 << 63), amount(1 << 63)}); !ok || flow(got) != "{n: 18446744073709551617, list: [18446744073709551617, 3]}" {
		t.Errorf("%v %v", flow(got), ok)
	}
	for _, values := range [][]any{nil, {"a", "b"}, {"1", "2"}, {uint64(1), "x"}, {true, false}, {amount(1), uint64(1)}, {[]any{uint64(1)}, []any{}}} {
		if got, ok := sumCPUs(values); ok {
			t.Errorf("%v: %v", values, got)
		}
	}
}

func TestSelectText(t *testing.T) {
	for want, s := range map[string]specs.Select{
		"all":                            {Fields: specs.Fields{All: true}},
		"on request":                     {OptIn: true},
		"on request, namespace prod-*|x": {OptIn: true, Fields: specs.Fields{Namespaces: []string{"prod-*", "x"}}},
		"pod a, caller crio, annotation k=v; not container b": {
			Fields:      specs.Fields{Pods: []string{"a"}, Callers: []specs.Caller{specs.CallerCRIO}},
			Annotations: map[string]string{"k": "v"},
			Exclude:     &specs.Fields{Containers: []string{"b"}},
		},
	} {
		if got := selectText(s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestErrorLines(t *testing.T) {
	a, b := fault.Newf("a", "is\nwrong", ""), errors.New("b")
	for _, test := range []struct {
		err  error
		want []string
	}{
		{nil, nil},
		{a, []string{"a: is; wrong"}},
		{errors.Join(a, b), []string{"a: is; wrong", "b"}},
		{errors.Join(errors.Join(a), policy.Errors{a}, b), []string{"a: is; wrong", "a: is; wrong", "b"}},
		{fmt.Errorf("%w: %w", b, b), []string{"b: b"}},
	} {
		if got := errorLines(test.err); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}
