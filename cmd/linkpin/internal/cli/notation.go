// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/linkpin/linkpin/bpf/value"
	"github.com/linkpin/linkpin/specs/policy"
)

// flow writes a decoded value on one line, so that it can be pasted into a policy.
func flow(v any) string {
	switch v := v.(type) {
	case value.Struct:
		parts := make([]string, len(v))
		for i, m := range v {
			parts[i] = flowText(m.Name) + ": " + flow(m.Value)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case []any:
		parts := make([]string, len(v))
		for i, item := range v {
			parts[i] = flow(item)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case string:
		return flowText(v)
	case json.Number:
		return v.String()
	}
	return fmt.Sprint(v)
}

// flowText writes a text in quotes unless YAML takes it for text without.
func flowText(s string) string {
	plain := s != "" && strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_./:-") == "" &&
		!strings.ContainsAny(s[:1], ":-.") && !strings.HasSuffix(s, ":")
	if plain {
		var node any
		if yaml.Unmarshal([]byte(s), &node) == nil {
			if text, ok := node.(string); ok && text == s {
				return s
			}
		}
	}
	return strconv.QuoteToASCII(s)
}

// parseArgument reads a value from the command line: a list or mapping as YAML
// writes it on one line, and anything else as it stands.
func parseArgument(name, arg string) (*policy.Value, error) {
	pos := policy.Pos{Field: name}
	if !strings.HasPrefix(arg, "{") && !strings.HasPrefix(arg, "[") {
		return &policy.Value{Pos: pos, Text: arg}, nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(arg), &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) != 1 {
		return nil, errors.New("is not one value")
	}
	return toValue(doc.Content[0], pos)
}

func toValue(n *yaml.Node, pos policy.Pos) (*policy.Value, error) {
	v := &policy.Value{Pos: pos}
	switch n.Kind {
	case yaml.ScalarNode:
		v.Text, v.Quoted = n.Value, n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
		v.Null = n.ShortTag() == "!!null"
		return v, nil
	case yaml.SequenceNode:
		v.Kind = policy.ListValue
		for i, item := range n.Content {
			p, err := toValue(item, policy.Pos{Field: fmt.Sprintf("%s[%d]", pos.Field, i)})
			if err != nil {
				return nil, err
			}
			v.Items = append(v.Items, p)
		}
		return v, nil
	case yaml.MappingNode:
		v.Kind = policy.MapValue
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, err := toValue(n.Content[i], pos)
			if err != nil {
				return nil, err
			}
			if key.Kind != policy.ScalarValue || v.Get(key.Text) != nil {
				return nil, fmt.Errorf("%s: %q is no field name, or stands twice", pos.Field, key.Text)
			}
			item, err := toValue(n.Content[i+1], policy.Pos{Field: pos.Field + "." + key.Text})
			if err != nil {
				return nil, err
			}
			v.Keys = append(v.Keys, key)
			v.Items = append(v.Items, item)
		}
		return v, nil
	}
	return nil, fmt.Errorf("%s: has an anchor or alias", pos.Field)
}

// sumCPUs adds up the values of all CPUs, number by number. It is false for
// values that are not made of numbers alone.
func sumCPUs(values []any) (any, bool) {
	if len(values) == 0 {
		return nil, false
	}
	switch first := values[0].(type) {
	case value.Struct:
		sum := make(value.Struct, len(first))
		for i, m := range first {
			var parts []any
			for _, v := range values {
				s, ok := v.(value.Struct)
				if !ok || len(s) != len(first) {
					return nil, false
				}
				parts = append(parts, s[i].Value)
			}
			total, ok := sumCPUs(parts)
			if !ok {
				return nil, false
			}
			sum[i] = value.Member{Name: m.Name, Value: total}
		}
		return sum, true
	case []any:
		sum := make([]any, len(first))
		for i := range first {
			var parts []any
			for _, v := range values {
				list, ok := v.([]any)
				if !ok || len(list) != len(first) {
					return nil, false
				}
				parts = append(parts, list[i])
			}
			total, ok := sumCPUs(parts)
			if !ok {
				return nil, false
			}
			sum[i] = total
		}
		return sum, true
	}
	total := new(big.Int)
	for _, v := range values {
		n, ok := new(big.Int).SetString(fmt.Sprint(v), 10)
		if _, isText := v.(string); !ok || isText {
			return nil, false
		}
		total.Add(total, n)
	}
	return json.Number(total.String()), true
}
