// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/policy"
)

// parseGood parses a file of testdata/good with one policy.
func parseGood(t *testing.T, name string) *policy.Policy {
	t.Helper()
	policies, err := policy.Parse(name, testdata(t, "good")[name])
	if err != nil || len(policies) == 0 {
		t.Fatalf("%d policies, %v", len(policies), err)
	}
	return policies[0]
}

func scalar(line int, field, text string) *policy.Value {
	return &policy.Value{Pos: policy.Pos{File: "example.yaml", Line: line, Field: field}, Text: text}
}

// The example of the design, field by field.
func TestExample(t *testing.T) {
	at := func(line int, field string) policy.Pos {
		return policy.Pos{File: "example.yaml", Line: line, Field: field}
	}
	const entry = "maps.allow.entries[0]"
	want := &policy.Policy{
		Pos:         at(2, ""),
		Name:        "egress-web",
		Description: "only HTTPS to the internal network",
		Objects:     []policy.Object{{Pos: at(5, "object"), Builtin: "egress"}},
		Select:      specs.Select{OptIn: true, Fields: specs.Fields{Namespaces: []string{"prod-*"}}},
		OnError:     specs.Deny,
		Scope:       specs.ScopeContainer,
		Cgroup:      specs.CgroupContainer,
		Teardown:    specs.Drain,
		Programs: []policy.Program{{
			Pos: at(13, "programs.from_container"), Name: "from_container",
			Attachments: []policy.Attachment{{
				Pos: at(13, "programs.from_container"), Direction: specs.FromContainer, Interface: "eth0", Side: specs.SideHost,
			}},
		}},
		Constants: []policy.Constant{{
			Pos: at(14, "constants.default_deny"), Name: "default_deny", Value: scalar(14, "constants.default_deny", "true"),
		}},
		Maps: []policy.Map{{
			Pos: at(16, "maps.allow"), Name: "allow", Share: policy.ShareContainer,
			Entries: []policy.MapEntry{{
				Pos: at(16, entry),
				Key: &policy.Value{
					Pos: at(16, entry+".key"), Kind: policy.MapValue,
					Keys:  []*policy.Value{scalar(16, entry+".key.prefix", "prefix")},
					Items: []*policy.Value{scalar(16, entry+".key.prefix", "10.0.0.0/8")},
				},
				Value: &policy.Value{
					Pos: at(16, entry+".value"), Kind: policy.MapValue,
					Keys:  []*policy.Value{scalar(16, entry+".value.port", "port"), scalar(16, entry+".value.proto", "proto")},
					Items: []*policy.Value{scalar(16, entry+".value.port", "443"), scalar(16, entry+".value.proto", "tcp")},
				},
			}},
		}},
	}
	if diff := cmp.Diff(want, parseGood(t, "example.yaml")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCgroupOfThePod(t *testing.T) {
	p := parseGood(t, "cgroup-pod.yaml")
	if p.Cgroup != specs.CgroupPod {
		t.Errorf("cgroup %q", p.Cgroup)
	}
	want := specs.Fields{Namespaces: []string{"prod-*"}, Callers: []specs.Caller{specs.CallerCRIO, specs.CallerContainerd}}
	if diff := cmp.Diff(want, p.Select.Fields); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDefaults(t *testing.T) {
	p := parseGood(t, "minimal.yaml")
	if p.Scope != specs.ScopeContainer || p.Cgroup != specs.CgroupContainer || p.Teardown != specs.Drain {
		t.Errorf("scope %q, teardown %q", p.Scope, p.Teardown)
	}
	if p.Programs != nil || p.Constants != nil || p.Maps != nil {
		t.Error("what the file leaves out is not nil")
	}
	if len(p.Objects) != 1 || p.Objects[0].Name != "" || p.Objects[0].File != "objects/x.bpf.o" {
		t.Errorf("objects %+v", p.Objects)
	}
}

func TestSeveralPolicies(t *testing.T) {
	policies, err := policy.Parse("p", testdata(t, "good")["several-policies.yaml"])
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range policies {
		got = append(got, p.Name)
	}
	if diff := cmp.Diff([]string{"first", "second", "third"}, got); diff != "" {
		t.Error(diff)
	}
	if policies[1].Pos.Line != 10 {
		t.Errorf("the second policy is at line %d", policies[1].Pos.Line)
	}
}

func TestPrograms(t *testing.T) {
	for _, p := range parseGood(t, "tail-calls.yaml").Programs {
		if p.LoadOnly != (p.Name != "entry") || p.LoadOnly != (len(p.Attachments) == 0) {
			t.Errorf("%+v", p)
		}
		if want := map[string]specs.Hook{"parse_ipv6": specs.HookTCXIngress, "xdp_tail": specs.HookXDP}[p.Name]; p.LoadAs != want {
			t.Errorf("%s is loaded as %q", p.Name, p.LoadAs)
		}
		if frags := p.Frags != nil && *p.Frags; frags != (p.Name == "xdp_tail") {
			t.Errorf("%s: frags %t", p.Name, frags)
		}
	}
	several := parseGood(t, "several-objects.yaml").Programs
	if got := several[1]; got.Name != "filter_1/check" || got.LoadOnly || got.Attachments != nil {
		t.Errorf("a program without a value: %+v", got)
	}
	twice := parseGood(t, "attach-twice.yaml").Programs
	if len(twice) != 3 || len(twice[0].Attachments) != 3 || twice[0].Attachments[2].Attach != "cgroup_skb/egress" {
		t.Errorf("%+v", twice)
	}
	input := parseGood(t, "netfilter.yaml").Programs[0].Attachments
	if a := input[0]; a.Family != "ipv4" || a.Hook != "input" || *a.Priority != -300 || !a.Defrag {
		t.Errorf("%+v", a)
	}
	if *input[1].Priority != 16 {
		t.Errorf("0x10 is %d", *input[1].Priority)
	}
	if xdp := parseGood(t, "xdp.yaml").Programs; xdp[0].Attachments[0].Mode != specs.XDPNative || *xdp[3].Attachments[0].Frags {
		t.Errorf("%+v", xdp)
	}
}

func TestMaps(t *testing.T) {
	maps := map[string]policy.Map{}
	for _, m := range parseGood(t, "map-overrides.yaml").Maps {
		maps[m.Name] = m
	}
	if m := maps["sized_by_loader"]; *m.MaxEntries != 65536 || m.Type != "" || m.KeySize != nil || m.Flags != nil {
		t.Errorf("%+v", m)
	}
	if m := maps["old_definition"]; m.Type != "lpm_trie" || *m.KeySize != 8 || *m.ValueSize != 4 || m.Flags[0] != "no_prealloc" {
		t.Errorf("%+v", m)
	}
	if m := maps["cleared"]; m.Flags == nil || len(m.Flags) != 0 {
		t.Errorf("an empty list of flags is %#v: nil would keep them", m.Flags)
	}
	if e := maps["free_ports"].Entries; len(e) != 2 || e[0].Key != nil || e[1].Value.Text != "30001" {
		t.Errorf("%+v", e)
	}
	if in := maps["outer"].Inner; in == nil || in.Type != "array" || in.KeySize != 4 || in.ValueSize != 8 || in.MaxEntries != 16 || len(in.Flags) != 2 {
		t.Errorf("%+v", in)
	}
	jump := parseGood(t, "tail-calls.yaml").Maps[0]
	if len(jump.Slots) != 2 || jump.Slots[1].Key.Text != "0x1" || jump.Slots[1].Program != "parse_ipv6" {
		t.Errorf("%+v", jump.Slots)
	}
	if m := parseGood(t, "several-objects.yaml").Maps[1]; m.Name != "parser/private" || m.Share != policy.ShareNobody {
		t.Errorf("%+v", m)
	}
}

// What the encoder has to know: text as written, and whether it was quoted.
func TestValues(t *testing.T) {
	got := map[string]string{}
	for _, c := range parseGood(t, "values.yaml").Constants {
		text := c.Value.Text
		if c.Value.Quoted {
			text = "quoted " + text
		}
		switch c.Value.Kind {
		case policy.ListValue:
			text = "list of " + strings.Repeat("i", len(c.Value.Items))
		case policy.MapValue:
			text = "map of " + strings.Repeat("i", len(c.Value.Items))
		}
		got[c.Name] = text
	}
	want := map[string]string{
		"u8": "255", "negative": "-1", "hex": "0xffffffffffffffff", "flag": "true", "text": "quoted 443", "enum": "DROP",
		"raw": "hex:0a0b0c0d", "order": "be:443", "ratio": "1.5", "list": "list of iii", "nested": "map of ii",
		"ipv6": "2001:db8::1", "mac": "02:00:00:00:00:01", "empty_struct": "map of ", "empty_list": "list of ",
		"empty_text": "quoted ", "banner": "quoted two\nlines\n", "folded": "quoted one line", "tagged": "quoted 12",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	nested := parseGood(t, "values.yaml").Constants[10].Value
	inner := nested.Get("a").Get("b").Items[1].Get("c")
	if inner.Text != "2" || inner.Pos.String() != "values.yaml:18: constants.nested.a.b[1].c" {
		t.Errorf("%+v", inner)
	}
	if nested.Get("none") != nil {
		t.Error("Get finds a key that is not there")
	}
}

func TestSelectorIsRead(t *testing.T) {
	want := specs.Select{
		Fields: specs.Fields{
			Namespaces: []string{"prod-*", `[a-c]?-\*`}, Pods: []string{"*"}, Containers: []string{"web", "envoy-[^0-9]*"},
			Callers: []specs.Caller{specs.CallerCRIO, specs.CallerContainerd, specs.CallerPodman, specs.CallerCDI, specs.CallerNone},
		},
		Annotations: map[string]string{"example.org/team": "shop/*", "blank": "", "tier": "1"},
		Exclude: &specs.Fields{
			Namespaces: []string{"kube-system"}, Pods: []string{"debug-*"}, Containers: []string{"x"},
			Networks: []string{"storage"}, Callers: []specs.Caller{specs.CallerCDI},
		},
	}
	if diff := cmp.Diff(want, parseGood(t, "selector.yaml").Select); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p := parseGood(t, "tc-fallback.yaml"); p.TC == nil || p.TC.Fallback != specs.FallbackClsact || p.TC.Pos.Line != 7 || p.TC.Pos.Field != "tc" {
		t.Errorf("tc: %+v", p.TC)
	}
	if p := parseGood(t, "opt-in.yaml"); p.TC != nil {
		t.Errorf("a fallback that nobody asked for: %+v", p.TC)
	}
	if p := parseGood(t, "opt-in.yaml"); !p.Select.OptIn || p.Select.All || p.Teardown != specs.Detach {
		t.Errorf("%+v", p)
	}
}
