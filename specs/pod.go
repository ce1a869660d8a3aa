// SPDX-License-Identifier: Apache-2.0

package specs

import (
	"maps"
	"slices"
	"strings"
)

// Keys returns the annotations that the candidates look at, each once: OptInAnnotation
// if one is optIn, and those that they select by.
func Keys(candidates []Candidate) []string {
	var keys []string
	for _, c := range candidates {
		if c.Select.OptIn {
			keys = append(keys, OptInAnnotation)
		}
		for key := range c.Select.Annotations {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// WithPod returns a container's annotations with those of its pod. The container's
// own value counts, but both may ask for policies.
func WithPod(own, pod map[string]string) map[string]string {
	if len(pod) == 0 {
		return own
	}
	out := make(map[string]string, len(own)+len(pod))
	maps.Copy(out, pod)
	for key, value := range own {
		if key == OptInAnnotation {
			value = bothAsk(value, pod[key])
		}
		out[key] = value
	}
	return out
}

// bothAsk joins two requests. One that is malformed stays so.
func bothAsk(own, pod string) string {
	names, err := parseOptIn(own)
	if err != nil {
		return own
	}
	more, err := parseOptIn(pod)
	if err != nil {
		return pod
	}
	for _, name := range more {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}
