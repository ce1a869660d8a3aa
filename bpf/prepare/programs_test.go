// SPDX-License-Identifier: Apache-2.0

package prepare

import (
	"slices"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs"
)

func TestSectionsThatSayTooLittle(t *testing.T) {
	_, err := prepare(t, "object: {file: mixed.bpf.o}\n")
	wantErrors(t, err,
		[]string{"p.yaml:1: object", `program act: section "action" does not say a direction`, "direction: to-container|from-container"},
		[]string{"p.yaml:1: object", `program cls: section "classifier" does not say a direction`, "tcx/ingress or tcx/egress"},
		[]string{"p.yaml:1: object", "needs family and hook"},
		[]string{"p.yaml:1: object", `program flow: section "tc" does not say a direction`},
		[]string{"p.yaml:1: object", `program odd: section "custom" is not one that linkpin knows`, "attach:"},
		[]string{"p.yaml:1: object", "program probe: section", "belongs to no container", "name only the programs to attach under programs:"},
		[]string{"p.yaml:1: object", `program skb: section "cgroup/skb" does not say a direction`, "cgroup_skb/ingress or cgroup_skb/egress"},
		[]string{"p.yaml:1: object", "programs frags and plain_xdp are both xdp"},
	)
}

// Where programs are named, what is not named stays out: a kprobe in the same
// object does not matter.
func TestNamedPrograms(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []specs.Attachment
	}{
		{"direction", "flow: {direction: from-container}", []specs.Attachment{{Name: "flow", Hook: specs.HookTCXIngress, Direction: specs.FromContainer}}},
		{"direction on a side", "flow: {direction: from-container, side: container}",
			[]specs.Attachment{{Name: "flow", Hook: specs.HookTCXEgress, Side: specs.SideContainer, Direction: specs.FromContainer}}},
		{"side", "flow: {attach: tcx/egress, side: host, interface: eth*}",
			[]specs.Attachment{{Name: "flow", Hook: specs.HookTCXEgress, Side: specs.SideHost, Interface: "eth*"}}},
		{"action", "act: {attach: tcx/egress}", []specs.Attachment{{Name: "act", Hook: specs.HookTCXEgress, Side: specs.SideContainer}}},
		{"classifier", "cls: {direction: to-container}",
			[]specs.Attachment{{Name: "cls", Hook: specs.HookTCXEgress, Direction: specs.ToContainer}}},
		{"both directions", "flow: [{direction: to-container}, {direction: from-container}]", []specs.Attachment{
			{Name: "flow", Hook: specs.HookTCXEgress, Direction: specs.ToContainer},
			{Name: "flow@2", Hook: specs.HookTCXIngress, Direction: specs.FromContainer},
		}},
		{"xdp direction", "plain_xdp: {direction: to-container}",
			[]specs.Attachment{{Name: "plain_xdp", Hook: specs.HookXDP, Direction: specs.ToContainer, Mode: specs.XDPAuto}}},
		{"xdp mode", "plain_xdp: {mode: generic}",
			[]specs.Attachment{{Name: "plain_xdp", Hook: specs.HookXDP, Side: specs.SideContainer, Mode: specs.XDPGeneric}}},
		{"cgroup/skb direction", "skb: {direction: from-container}", []specs.Attachment{{Name: "skb", Hook: "cgroup_skb/egress"}}},
		{"cgroup/skb the other", "skb: {direction: to-container}", []specs.Attachment{{Name: "skb", Hook: "cgroup_skb/ingress"}}},
		{"unknown section", "odd: {attach: cgroup_skb/ingress}", []specs.Attachment{{Name: "odd", Hook: "cgroup_skb/ingress"}}},
		{"another type", "skb: {attach: tcx/ingress}", []specs.Attachment{{Name: "skb", Hook: specs.HookTCXIngress, Side: specs.SideContainer}}},
		{"on request", "on_request: {}", []specs.Attachment{{Name: "on_request", Hook: "cgroup/connect6"}}},
		{"netns", "lookup: {}", []specs.Attachment{{Name: "lookup", Hook: specs.HookSKLookup}}},
		{"netfilter", "filter: {family: ipv4, hook: output, priority: -5}", []specs.Attachment{
			{Name: "filter", Hook: specs.HookNetfilter, Netfilter: &specs.Netfilter{Family: "ipv4", Hook: "output", Priority: -5}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := must(t, "object: {file: mixed.bpf.o}\nprograms: {"+tc.text+"}\n")
			if len(p.Plan.Programs) != 1 {
				t.Fatalf("programs %v", keys(p))
			}
			got := p.Plan.Programs[0]
			if len(got.Attachments) != len(tc.want) {
				t.Fatalf("attachments %+v", got.Attachments)
			}
			for i, want := range tc.want {
				a := got.Attachments[i]
				if a.Netfilter != nil && want.Netfilter != nil && *a.Netfilter == *want.Netfilter {
					a.Netfilter, want.Netfilter = nil, nil
				}
				if a != want {
					t.Errorf("got  %+v\nwant %+v", a, want)
				}
			}
			if got.Hook != tc.want[0].Hook {
				t.Errorf("loaded for %s", got.Hook)
			}
			if unchecked, err := p.Verify(t.Context()); err != nil || len(unchecked) > 0 {
				t.Errorf("%v %v", unchecked, err)
			}
		})
	}
}

// One symbol, two attach types: it is loaded twice.
func TestSeveralAttachTypes(t *testing.T) {
	p := must(t, "object: {file: mixed.bpf.o}\nprograms: {skb: [{attach: cgroup_skb/egress}, {attach: cgroup_skb/ingress}], "+
		"frags: [{side: host}, {side: container, frags: false}]}\n")
	if got, want := keys(p), []string{"skb", "skb#2", "frags", "frags#2"}; !slices.Equal(got, want) {
		t.Fatalf("programs %v, want %v", got, want)
	}
	if a := programOf(t, p, "skb#2"); a.Hook != "cgroup_skb/ingress" || a.Attachments[0].Name != "skb#2" || a.Symbol != "skb" {
		t.Errorf("%+v", a)
	}
	if !programOf(t, p, "frags").Frags || programOf(t, p, "frags#2").Frags {
		t.Errorf("frags: %+v", p.Plan.Programs)
	}
	if _, err := p.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestProgramErrors(t *testing.T) {
	for _, tc := range []struct{ name, programs, want string }{
		{"unknown", "nobody: {}", "there is no program nobody; the programs are act, cls, "},
		{"no hook for a direction", "odd: {direction: to-container}", `section "custom" does not say whether it is a program for tcx, xdp or cgroup_skb; write attach:`},
		{"direction of a kprobe", "probe: {direction: to-container}", "a direction does not go with programs of type Kprobe"},
		{"side of a section", "on_request: {side: host}", "interface, side and direction do not go with cgroup/connect6, which belongs to a cgroup"},
		{"xdp on the blind side", "plain_xdp: {direction: to-container, side: host}", "on the host's side xdp sees what goes from-container, not to-container; remove side"},
		{"mode of tc", "flow: {direction: to-container, mode: native}", "mode and frags go with xdp only"},
		{"frags of tc", "flow: {direction: to-container, frags: true}", "mode and frags go with xdp only"},
		{"netfilter of tc", "flow: {family: ipv4, hook: input}", `section "tc" does not say a direction`},
		{"netfilter of a cgroup", "on_request: {family: ipv4, hook: input}", "go with netfilter, and this program is attached to cgroup/connect6"},
		{"netfilter without family", "filter: {}", "needs family and hook"},
		{"load only without type", "odd: {attach: none}, skb: {attach: cgroup_skb/egress}", `section "custom" does not say what the program is; write loadAs:`},
		{"twice", "skb: [{attach: cgroup_skb/egress}, {direction: from-container}]", "program skb is attached to cgroup_skb/egress twice"},
		{"twice with a glob", "flow: [{attach: tcx/ingress, interface: eth0}, {attach: tcx/ingress}]", "attached to tcx/ingress twice"},
		{"two xdp", "{plain_xdp: {direction: to-container}, frags: {side: container}}", "programs plain_xdp and frags are both xdp"},
		{"kprobe", "probe: {}", "belongs to no container"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := tc.programs
			if text[0] != '{' {
				text = "{" + text + "}"
			}
			_, err := prepare(t, "object: {file: mixed.bpf.o}\nprograms: "+text+"\n")
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "p.yaml:2: programs.") {
				t.Errorf("got %v\nwant %s", err, tc.want)
			}
		})
	}
}

// What does not meet is allowed.
func TestXDPThatDoesNotMeet(t *testing.T) {
	must(t, "object: {file: mixed.bpf.o}\nprograms: {plain_xdp: [{side: host}, {side: container, interface: eth0}], frags: {side: container, interface: eth1}}\n")
}

func TestLoadOnly(t *testing.T) {
	p, err := prepare(t, "object: {file: mixed.bpf.o}\nprograms: {flow: {direction: to-container}, odd: {attach: none, loadAs: xdp}, cls: {attach: none}}\n")
	if err != nil {
		t.Fatal(err)
	}
	wantWarnings(t, p, []string{"p.yaml:2: programs.odd", "it never runs"}, []string{"programs.cls", "it never runs"})
	if c := programOf(t, p, "odd"); c.Hook != specs.HookXDP || len(c.Attachments) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestSeveralObjects(t *testing.T) {
	const objects = "objects: {a: {file: mixed.bpf.o}, b: {builtin: meter}, c: {builtin: meter}}\n"
	p := must(t, objects+"programs: {a/flow: {direction: to-container}, b/skb_egress: {}, skb: {direction: to-container}}\n")
	if got, want := keys(p), []string{"a/flow", "b/skb_egress", "a/skb"}; !slices.Equal(got, want) {
		t.Errorf("programs %v, want %v", got, want)
	}
	if len(p.Objects) != 2 || len(p.Plan.Objects) != 3 {
		t.Errorf("%d files for %+v", len(p.Objects), p.Plan.Objects)
	}
	_, err := prepare(t, objects+"programs: {skb_egress: {}}\n")
	wantErrors(t, err, []string{"p.yaml:2: programs.skb_egress: more than one object has a program skb_egress; write b/skb_egress or c/skb_egress"})
	_, err = prepare(t, objects+"programs:\n  a/flow: {direction: to-container}\n  flow: {direction: from-container}\n")
	wantErrors(t, err, []string{"p.yaml:4: programs.flow: the program stands at line 3 already"})
}

// The section begins with "?".
func TestOptionalPrograms(t *testing.T) {
	p, err := prepare(t, "object: {file: optional.bpf.o}\n")
	if err != nil {
		t.Fatal(err)
	}
	wantWarnings(t, p, []string{"program nested is left out"},
		[]string{"p.yaml:1: object", "program on_request is left out", "name it under programs:"})
	if got, want := keys(p), []string{"egress"}; !slices.Equal(got, want) {
		t.Errorf("programs %v, want %v", got, want)
	}
}

// Every program is a tail-call target.
func TestNothingAttached(t *testing.T) {
	_, err := prepare(t, "object: {file: wild.bpf.o}\nmaps: {calls: {maxEntries: 2, programs: {0: wild, 1: tame}}}\n")
	wantErrors(t, err, []string{"p.yaml:1", "no program of the policy is attached; attach at least one of tame and wild"})
}

// A built-in program keeps its direction, on the side where nothing gets past it.
func TestBuiltinProgramsGoByDirection(t *testing.T) {
	p := must(t, "object: {builtin: egress}\n")
	seen := map[string]specs.Direction{}
	for _, prog := range p.Plan.Programs {
		for _, a := range prog.Attachments {
			if a.Hook.Target() == specs.TargetInterface {
				seen[a.Name] = a.Direction
				if a.Side != specs.SideAuto {
					t.Errorf("%s is bound to the %s's side", a.Name, a.Side)
				}
			}
		}
	}
	if seen["from_container"] != specs.FromContainer || seen["to_container"] != specs.ToContainer {
		t.Errorf("directions %v", seen)
	}
}
