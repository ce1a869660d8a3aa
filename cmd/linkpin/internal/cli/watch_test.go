// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/watch"
	"github.com/linkpin/linkpin/specs"
)

func watchedItem() entry.Item {
	key := pin.ContainerKey("web", "/bundle")
	return entry.Item{Place: pin.ContainerEntry(key, "meter"), Record: &pin.Record{
		Policy: "meter", Identity: specs.Identity{ContainerID: "web"}, Interface: &pin.InterfaceRecord{Name: "eth0"},
	}}
}

// Every event is one line of JSON with no other fields than those that `linkpin help
// output` lists, and one line for people.
func TestEventLines(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.FixedZone("", 3600))
	it := watchedItem()
	about := watch.Event{Time: now, Place: it.Place, Item: it}
	with := func(change func(*watch.Event)) watch.Event {
		e := about
		change(&e)
		return e
	}
	for _, c := range []struct {
		name string
		e    watch.Event
		want map[string]any // nil: absent
		text string
	}{
		{
			"attached", with(func(e *watch.Event) { e.Kind, e.Initial, e.Detail = watch.Attached, true, "program a" }),
			map[string]any{"event": "attached", "initial": true, "policy": "meter", "path": it.Place.String(), "interface": "eth0", "detail": "program a",
				"time": "2026-01-02T02:04:05.006Z", "problem": nil, "program": nil, "reason": nil, "denied": nil},
			"2026-01-02T03:04:05.006+01:00  attached  web  meter  eth0  program a  (since before)\n",
		},
		{
			"drift", with(func(e *watch.Event) {
				e.Kind, e.Program, e.Problem, e.Detail = watch.Drift, "connect4", entry.ProblemSevered, "two\nlines \x1b[1m"
			}),
			map[string]any{"event": "drift", "initial": false, "program": "connect4", "problem": "severed"},
			"",
		},
		{
			"the state", watch.Event{Time: now, Kind: watch.Drift, Problem: watch.ProblemHidden, Detail: "gone"},
			map[string]any{"container": nil, "policy": nil, "path": nil, "interface": nil, "problem": "hidden"},
			"2026-01-02T03:04:05.006+01:00  drift     -  -  hidden:  gone\n",
		},
		{
			"denied", with(func(e *watch.Event) {
				e.Kind = watch.Denied
				e.Denied = &watch.Denial{Address: netip.MustParseAddr("192.0.2.1"), Protocol: "tcp", Port: 443, Attempts: 3, Bytes: 4, Last: now}
			}),
			map[string]any{"denied": map[string]any{"address": "192.0.2.1", "port": 443., "protocol": "tcp", "attempts": 3., "bytes": 4.,
				"last": "2026-01-02T02:04:05.006Z", "others": false}},
			"",
		},
		{
			"others", with(func(e *watch.Event) {
				e.Kind, e.Denied = watch.Denied, &watch.Denial{Protocol: "any", Attempts: 1, Others: true}
			}),
			map[string]any{"denied": map[string]any{"protocol": "any", "attempts": 1., "bytes": 0., "others": true}},
			"",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &app{json: true}
			line, err := a.eventLine(c.e)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(string(line), "\n") != 1 || strings.ContainsRune(string(line), 0x1b) {
				t.Errorf("%q is not one plain line", line)
			}
			var got map[string]any
			if err := json.Unmarshal(line, &got); err != nil {
				t.Fatal(err)
			}
			for name, want := range c.want {
				have, there := got[name]
				haveText, _ := json.Marshal(have)
				wantText, _ := json.Marshal(want)
				if want == nil && there || want != nil && string(haveText) != string(wantText) {
					t.Errorf("%s is %s, want %s", name, haveText, wantText)
				}
			}
			for _, always := range []string{"time", "event", "initial", "detail"} {
				if _, there := got[always]; !there {
					t.Errorf("no %s in %s", always, line)
				}
			}
			a.json = false
			text, err := a.eventLine(c.e)
			if err != nil || strings.Count(string(text), "\n") != 1 || strings.ContainsRune(string(text), 0x1b) || c.text != "" && string(text) != c.text {
				t.Errorf("%q, want %q (%v)", text, c.text, err)
			}
		})
	}
}

// What is attached for the sandbox of a container that is meant is meant, too, whichever
// of them comes first.
func TestWatchFilter(t *testing.T) {
	web := watchedItem()
	web.Record.Sandbox = "s1"
	pod := entry.Item{Place: pin.InterfaceEntry("s1", "net", "eth0", "egress"), Record: &pin.Record{Policy: "egress"}}
	other := entry.Item{Place: pin.InterfaceEntry("s2", "net", "eth0", "egress"), Record: &pin.Record{Policy: "egress"}}
	f := watchFilter{ids: []string{"web"}}
	for i, c := range []struct {
		it   entry.Item
		want bool
	}{{pod, false}, {web, true}, {pod, true}, {other, false}} {
		if got := f.match(c.it); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
	f = watchFilter{policy: "meter"}
	if !f.match(web) || f.match(pod) {
		t.Error("by policy")
	}
	if f = (watchFilter{ids: []string{"nobody"}}); f.match(web) {
		t.Error("somebody else")
	}
}

// A program above the cgroups of many containers is one line, and counts for all.
func TestCollapse(t *testing.T) {
	behind := findingOutput{Problem: entry.ProblemBehind, Program: "connect4", Detail: "program 7"}
	another, drift := behind, findingOutput{Problem: entry.ProblemSevered, Program: "connect4", Detail: "program 7"}
	another.Detail = "program 8"
	shown, alike := collapse([]findingOutput{behind, drift, behind, another, drift, behind})
	if len(shown) != 4 || !slices.Equal(alike, []int{2, 0, 0, 0}) {
		t.Errorf("%+v %v", shown, alike)
	}
}
