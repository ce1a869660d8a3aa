// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
)

// policyOutput is `linkpin policy show NAME -o json`.
type policyOutput struct {
	policySummary
	Description string          `json:"description,omitempty"`
	Generation  string          `json:"generation"`
	Scope       specs.Scope     `json:"scope"`
	Cgroup      specs.CgroupOf  `json:"cgroup"`
	Teardown    specs.Teardown  `json:"teardown"`
	Objects     []objectOutput  `json:"objects"`
	Programs    []programOutput `json:"programs"`
	Maps        []mapOutput     `json:"maps"`
	Constants   []string        `json:"constants"` // names: "variable" or "object/variable"
}

type objectOutput struct {
	Name   string `json:"name,omitempty"` // empty for the only object of a policy
	SHA256 string `json:"sha256"`
	Origin string `json:"origin"` // "builtin:egress", or the file it came from
}

type programOutput struct {
	Name        string             `json:"name"`
	Attachments []attachmentOutput `json:"attachments"` // empty: loaded only, for a program array
}

type attachmentOutput struct {
	Hook      specs.Hook       `json:"hook"`
	Side      specs.Side       `json:"side,omitempty"`
	Direction specs.Direction  `json:"direction,omitempty"`
	Interface string           `json:"interface,omitempty"`
	Mode      specs.XDPMode    `json:"mode,omitempty"`
	Netfilter *specs.Netfilter `json:"netfilter,omitempty"`
}

type mapOutput struct {
	Name    string `json:"name"`
	Entries int    `json:"entries"` // that the policy sets
}

func (a *app) policyShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show a policy in effect",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			set, err := applied.Open(a.roots.applied())
			if err != nil {
				return err
			}
			defer set.Close()
			plan, _, err := set.Plan(args[0])
			if err != nil {
				return err
			}
			summary, _ := set.Policy(args[0])
			out := describePolicy(summary, plan)
			out.Generation = set.Generation()
			if a.json {
				return a.printJSON(out)
			}
			return a.printPolicy(out)
		},
	}
}

func describePolicy(summary applied.Summary, plan *specs.Plan) policyOutput {
	out := policyOutput{
		policySummary: summarize(summary),
		Description:   plan.Description,
		Scope:         plan.Scope,
		Cgroup:        cmp.Or(plan.Cgroup, specs.CgroupContainer),
		Teardown:      plan.Teardown,
		Objects:       []objectOutput{},
		Programs:      []programOutput{},
		Maps:          []mapOutput{},
		Constants:     []string{},
	}
	for _, o := range plan.Objects {
		out.Objects = append(out.Objects, objectOutput(o))
	}
	for _, p := range plan.Programs {
		row := programOutput{Name: p.Key, Attachments: []attachmentOutput{}}
		for _, at := range p.Attachments {
			row.Attachments = append(row.Attachments, attachmentOutput{
				Hook: at.Hook, Side: at.Side, Direction: at.Direction, Interface: at.Interface, Mode: at.Mode, Netfilter: at.Netfilter,
			})
		}
		out.Programs = append(out.Programs, row)
	}
	for _, m := range plan.Maps {
		out.Maps = append(out.Maps, mapOutput{Name: m.Name, Entries: len(m.Entries)})
	}
	for _, c := range plan.Constants {
		name := c.Symbol
		if c.Object != "" {
			name = c.Object + "/" + c.Symbol
		}
		out.Constants = append(out.Constants, name)
	}
	return out
}

func (a *app) printPolicy(out policyOutput) error {
	t := a.table("policy", out.Name)
	if out.Description != "" {
		t.row("description", out.Description)
	}
	t.row("source", out.Source)
	t.row("digest", out.Digest)
	t.row("containers", selectText(out.Select))
	t.row("on error", string(out.OnError))
	t.row("scope", string(out.Scope))
	t.row("cgroup", string(out.Cgroup))
	t.row("teardown", string(out.Teardown))
	if out.TC != "" {
		t.row("tc fallback", string(out.TC)+", without an owner, where the kernel has no TCX links")
	}
	for _, o := range out.Objects {
		t.row("object", strings.TrimSpace(o.Name+" "+o.Origin))
	}
	for _, p := range out.Programs {
		if len(p.Attachments) == 0 {
			t.row("program", p.Name+": loaded only")
		}
		for _, at := range p.Attachments {
			t.row("program", p.Name+": "+attachmentText(at))
		}
	}
	for _, m := range out.Maps {
		t.row("map", fmt.Sprintf("%s: %s set", m.Name, count(m.Entries, "entry", "entries")))
	}
	if len(out.Constants) > 0 {
		t.row("constants", strings.Join(out.Constants, ", "))
	}
	return t.flush()
}

// attachmentText writes where a program goes: "tcx/ingress on eth0, host side".
func attachmentText(at attachmentOutput) string {
	text := string(at.Hook)
	if at.Direction != "" {
		text = string(at.Direction)
		if at.Hook == specs.HookXDP {
			text = "xdp " + text
		}
	}
	if at.Hook.Target() == specs.TargetKernel {
		text += " for the whole machine"
	}
	if at.Hook.Target() == specs.TargetInterface {
		name := at.Interface
		if name == "" {
			name = "every interface"
		}
		text += " on " + name
		if at.Side != specs.SideAuto {
			text += ", " + string(at.Side) + " side"
		}
		if at.Mode != "" {
			text += ", " + string(at.Mode) + " mode"
		}
	}
	if n := at.Netfilter; n != nil {
		text += fmt.Sprintf(" %s %s, priority %d", n.Family, n.Hook, n.Priority)
		if n.Defrag {
			text += ", defragmented"
		}
	}
	return text
}
