// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

func TestMatch(t *testing.T) {
	container := func(id specs.Identity, sandbox pin.Key) entry.Item {
		return entry.Item{
			Place:  pin.ContainerEntry(pin.ContainerKey(id.ContainerID, "/b"), "p"),
			Record: &pin.Record{Identity: id, Sandbox: sandbox},
		}
	}
	sandbox := func(id string) entry.Item {
		return entry.Item{
			Place:  pin.InterfaceEntry(pin.SandboxKey(id), "net", "eth0", "p"),
			Record: &pin.Record{Identity: specs.Identity{ContainerID: id, Pod: "web"}},
		}
	}
	long := strings.Repeat("ab", 32)
	all := []entry.Item{
		container(specs.Identity{ContainerID: long, Container: "app", Pod: "web", Namespace: "prod"}, pin.SandboxKey("pod1")),
		container(specs.Identity{ContainerID: "app"}, ""),
		container(specs.Identity{ContainerID: "abba", Container: "twice"}, ""),
		container(specs.Identity{ContainerID: "abbacus", Container: "twice"}, ""),
		sandbox("pod1"),
		{Place: pin.ContainerEntry(pin.ContainerKey("lost", "/b"), "p"), Err: errors.New("unreadable")},
	}
	for name, want := range map[string]struct {
		found []int
		err   error
	}{
		"app":          {[]int{1}, nil}, // an id comes before a name
		long:           {[]int{0, 4}, nil},
		long[:12]:      {[]int{0, 4}, nil},
		"prod/web/app": {[]int{0, 4}, nil},
		"pod1":         {[]int{4}, nil},
		"abba":         {[]int{2}, nil}, // an id comes before the beginning of one
		"abbac":        {[]int{3}, nil},
		"aba":          {nil, errNoRecord}, // too short for a beginning
		"abab":         {[]int{0, 4}, nil},
		"twice":        {nil, errAmbiguous},
		"lost":         {[]int{5}, nil},
		"":             {nil, errNoRecord},
		"nobody":       {nil, errNoRecord},
	} {
		found, err := match(all, name)
		if !errors.Is(err, want.err) {
			t.Errorf("%q: error %v", name, err)
		}
		var got []int
		for _, it := range found {
			got = append(got, slices.IndexFunc(all, func(o entry.Item) bool { return o.Place == it.Place }))
		}
		if !slices.Equal(got, want.found) {
			t.Errorf("%q: found %v, want %v", name, got, want.found)
		}
	}
}

func TestVerdict(t *testing.T) {
	severed := findingOutput{Problem: entry.ProblemSevered, Drift: true}
	repaired := findingOutput{Problem: entry.ProblemSevered, Drift: true, Repaired: "new link"}
	ended := findingOutput{Problem: entry.ProblemEnded}
	unknown := findingOutput{Problem: entry.ProblemUnknown, Level: entry.LevelUnknown}
	for _, test := range []struct {
		out  verifyOutput
		want int
	}{
		{verifyOutput{}, fault.ExitOK},
		{verifyOutput{Findings: []findingOutput{ended, repaired}}, fault.ExitOK},
		{verifyOutput{Findings: []findingOutput{repaired, severed}}, fault.ExitFailed},
		{verifyOutput{Findings: []findingOutput{severed, unknown}}, fault.ExitUnsure},
		{verifyOutput{Findings: []findingOutput{unknown, severed}}, fault.ExitUnsure},
		{verifyOutput{Findings: []findingOutput{severed}, NoRecord: []string{"x"}}, fault.ExitUnsure},
	} {
		if got := verdict(test.out); got != test.want {
			t.Errorf("%+v: %d, want %d", test.out, got, test.want)
		}
	}
}
