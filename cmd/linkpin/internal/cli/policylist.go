// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
)

// policyListOutput is `linkpin policy list -o json`.
type policyListOutput struct {
	Generation string          `json:"generation"`
	Policies   []policySummary `json:"policies"`
}

type policySummary struct {
	Name    string             `json:"name"`
	Digest  string             `json:"digest"` // SHA-256 of the prepared policy
	OnError specs.OnError      `json:"onError"`
	Targets []specs.TargetKind `json:"targets"` // cgroup, interface, netns
	Select  specs.Select       `json:"select"`
	TC      specs.TCFallback   `json:"tcFallback,omitempty"` // clsact: where the kernel has no TCX links; empty: refused there
	Source  string             `json:"source"`               // file it came from
}

func (a *app) policyListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the policies in effect",
		RunE: func(*cobra.Command, []string) error {
			set, err := applied.Open(a.roots.applied())
			if err != nil {
				return err
			}
			defer set.Close()
			out := policyListOutput{Generation: set.Generation(), Policies: []policySummary{}}
			for _, p := range set.Policies() {
				out.Policies = append(out.Policies, summarize(p))
			}
			if a.json {
				return a.printJSON(out)
			}
			t := a.table("POLICY", "CONTAINERS", "ATTACHES TO", "ON ERROR", "SOURCE")
			for _, p := range out.Policies {
				t.row(p.Name, selectText(p.Select), p.targetsText(), string(p.OnError), p.Source)
			}
			return t.flush()
		},
	}
}

func (p policySummary) targetsText() string {
	if p.TC == "" {
		return join(p.Targets)
	}
	return join(p.Targets) + " (tc fallback " + string(p.TC) + ")"
}

func summarize(p applied.Summary) policySummary {
	return policySummary{Name: p.Name, Digest: p.Digest, OnError: p.OnError, Targets: p.Targets, Select: p.Select, TC: p.TC, Source: p.Source}
}

// selectText writes a selector on one line.
func selectText(s specs.Select) string {
	parts := fieldsText(s.Fields)
	for _, key := range slices.Sorted(maps.Keys(s.Annotations)) {
		parts = append(parts, fmt.Sprintf("annotation %s=%s", key, s.Annotations[key]))
	}
	text := strings.Join(parts, ", ")
	if s.OptIn {
		text = strings.TrimSuffix("on request, "+text, ", ")
	}
	if s.Exclude != nil {
		text += "; not " + strings.Join(fieldsText(*s.Exclude), ", ")
	}
	return text
}

func fieldsText(f specs.Fields) []string {
	var parts []string
	if f.All {
		parts = append(parts, "all")
	}
	for _, field := range []struct {
		name  string
		globs []string
	}{
		{"namespace", f.Namespaces},
		{"pod", f.Pods},
		{"container", f.Containers},
		{"network", f.Networks},
	} {
		if len(field.globs) > 0 {
			parts = append(parts, field.name+" "+strings.Join(field.globs, "|"))
		}
	}
	if len(f.Callers) > 0 {
		parts = append(parts, "caller "+join(f.Callers))
	}
	return parts
}

func join[T ~string](list []T) string {
	words := make([]string, len(list))
	for i, w := range list {
		words[i] = string(w)
	}
	return strings.Join(words, ",")
}
