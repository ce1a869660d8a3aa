// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/watch"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
)

// What no link owns is marked wherever it is shown.
func TestUnownedIsMarked(t *testing.T) {
	item := entry.Item{
		Place: pin.InterfaceEntry(pin.SandboxKey("pod"), "net", "eth0", "guard"),
		Record: &pin.Record{
			Policy: "guard", Identity: specs.Identity{ContainerID: "pod"}, Created: time.Unix(1000, 0),
			Interface: &pin.InterfaceRecord{Name: "eth0", PeerName: "veth0"},
			Programs: []pin.ProgramRecord{
				{Name: "in", Hook: specs.HookTCXIngress, Target: specs.TargetInterface, Side: specs.SideHost, ProgramID: 7,
					Filter: &pin.FilterRecord{Priority: 0xc000, Handle: 0x4c50, Protocol: "all", Name: "linkpin:guard/in"}},
				{Name: "x", Hook: specs.HookXDP, Target: specs.TargetInterface, Side: specs.SideHost, LinkID: 5, ProgramID: 8},
			},
		},
		Links: []entry.LinkState{{Info: attach.Info{State: attach.Live}}, {Info: attach.Info{State: attach.Live}}},
	}
	var out bytes.Buffer
	a := &app{Env: Env{Stdout: &out, Now: func() time.Time { return time.Unix(1060, 0) }}}
	e := describeEntry(item)
	if err := a.printList([]entry.Item{item}, lsOutput{Entries: []entryOutput{e}}); err != nil {
		t.Fatal(err)
	}
	if err := a.printInspected(inspectedEntry{entryOutput: e}); err != nil {
		t.Fatal(err)
	}
	retired := item
	retired.Place = pin.RetiredEntry("1030-deleted-00000001")
	retired.Retired = &pin.Retired{Time: time.Unix(1030, 0), Reason: "deleted"}
	if err := a.printList([]entry.Item{retired}, lsOutput{Entries: []entryOutput{describeEntry(retired)}}); err != nil {
		t.Fatal(err)
	}
	unreadable := entry.Item{Place: pin.RetiredEntry("1030-left-00000002"), Err: pin.ErrNoRecord}
	preview := gcPreview{WouldRemove: []entryOutput{describeEntry(retired), describeEntry(unreadable)}}
	if err := a.printPreview([]entry.Item{retired, unreadable}, preview); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []watch.Kind{watch.Attached, watch.Retired} {
		line, err := a.eventLine(watch.Event{Kind: kind, Place: retired.Place, Item: retired, Detail: "by cni"})
		if err != nil {
			t.Fatal(err)
		}
		out.Write(line)
	}
	if err := a.printVerified(verifyOutput{Links: 2, Unowned: unowned(item.Record)}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"veth0 (host side of eth0)  live (unowned)",
		"veth0 (host side of eth0)  live  ",
		"live (unowned)  (tc filter at priority 49152, handle 0x4c50, program 7)",
		"live  (link 5, program 8)",
		"veth0 (host side of eth0)  live (unowned), retired 30s ago: deleted",
		"2 (1 unowned)  60s",
		"attached  pod  guard  eth0  by cni  (1 unowned tc filter)\n",
		"retired   pod  guard  eth0  by cni  (1 unowned tc filter)\n",
		"2 links compared (1 unowned tc filter), 0 cases of drift",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	a.json = true
	line, err := a.eventLine(watch.Event{Kind: watch.Attached, Place: item.Place, Item: item})
	if err != nil || !strings.Contains(string(line), `"unowned":1`) {
		t.Errorf("watch: %s, %v", line, err)
	}
	text, err := json.Marshal(preview.WouldRemove[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"owned":false,"filter":{"priority":49152,"handle":19536,"protocol":"all","name":"linkpin:guard/in"},"linkId":0`,
		`"owned":true,"linkId":5`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
}

func TestFallbackIsShown(t *testing.T) {
	p := policySummary{Name: "guard", Targets: []specs.TargetKind{specs.TargetInterface}, TC: specs.FallbackClsact}
	if got := p.targetsText(); got != "interface (tc fallback clsact)" {
		t.Errorf("list: %s", got)
	}
	var out bytes.Buffer
	a := &app{Env: Env{Stdout: &out}}
	if err := a.printPolicy(policyOutput{policySummary: p}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "clsact, without an owner, where the kernel has no TCX links") {
		t.Errorf("show: %s", out.String())
	}
}

func TestDoctorSaysWhatIsUnowned(t *testing.T) {
	dir, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	text := "apiVersion: linkpin.io/v1\nkind: Policy\nmetadata: {name: guard}\nobject: {file: x.bpf.o}\nselect: {all: true}\nonError: deny\n" +
		"programs: {from_wire: {attach: tcx/ingress}}\ntc: {fallback: clsact}\n...\n"
	object, err := os.ReadFile("../../../../bpf/prepare/testdata/plain.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string][]byte{"p.yaml": []byte(text), "x.bpf.o": object} {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, stderr := runLinkpin(t, "policy", "apply", "--dir", dir, "--state", state); code != 0 {
		t.Fatal(stderr)
	}
	for _, c := range []struct {
		missing error
		want    change.Level
		detail  string
	}{
		{&attach.UnsupportedError{Feature: "tcx link"}, change.Warn, "have no owner on this kernel"},
		{os.ErrPermission, change.Fail, "does not work here"},
	} {
		a := &app{Env: Env{Stdout: new(strings.Builder), Stderr: new(strings.Builder)}}
		a.roots.state = state
		d := &doctor{app: a}
		d.checkApplied(map[specs.Hook]error{specs.HookTCXIngress: c.missing})
		if len(d.findings) == 0 || d.findings[0].Level != c.want || d.findings[0].What != "policy guard" || !strings.Contains(d.findings[0].Detail, c.detail) {
			t.Errorf("%v: %+v", c.missing, d.findings)
		}
	}
	for _, args := range [][]string{{"policy", "list"}, {"policy", "show", "guard"}} {
		if code, stdout, stderr := runLinkpin(t, append(args, "--state", state)...); code != 0 || !strings.Contains(stdout, "clsact") {
			t.Errorf("%q: %s%s", args, stdout, stderr)
		}
	}
}
