// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/watch"
	"github.com/linkpin/linkpin/specs/fault"
)

// watchOutput is one line of `linkpin watch -o json`.
type watchOutput struct {
	Time      time.Time        `json:"time"`                // when it was seen
	Event     watch.Kind       `json:"event"`               // attached, updated, drift, repaired, warning, ended, retired, gone or denied
	Initial   bool             `json:"initial"`             // it was so when the watch began
	Container *containerOutput `json:"container,omitempty"` // absent: it is about linkpin's state as a whole
	Policy    string           `json:"policy,omitempty"`
	Path      string           `json:"path,omitempty"`      // of the entry, below linkpin/v1 in bpffs
	Interface string           `json:"interface,omitempty"` // inside the container
	Program   string           `json:"program,omitempty"`   // drift, repaired, warning; absent: the whole entry
	Problem   entry.Problem    `json:"problem,omitempty"`   // drift, repaired, warning, ended: as in verify
	Reason    string           `json:"reason,omitempty"`    // retired
	Detail    string           `json:"detail"`              // for people
	Unowned   int              `json:"unowned,omitempty"`   // programs of the entry that are tc filters in the place of links
	Denied    *deniedOutput    `json:"denied,omitempty"`    // denied
}

// deniedOutput is what was refused since the last look.
type deniedOutput struct {
	Address   string     `json:"address,omitempty"` // absent: unknown, not IP, or several
	Port      uint16     `json:"port,omitempty"`    // absent: unknown, or a protocol without ports
	Protocol  string     `json:"protocol"`          // as policies write it; any: unknown, or several
	EtherType uint16     `json:"etherType,omitempty"`
	Attempts  uint64     `json:"attempts"` // calls and packets
	Bytes     uint64     `json:"bytes"`    // of the packets
	Last      *time.Time `json:"last,omitempty"`
	Others    bool       `json:"others"` // all destinations that got no event of their own
}

func describeEvent(e watch.Event) watchOutput {
	out := watchOutput{
		Time: e.Time.UTC(), Event: e.Kind, Initial: e.Initial, Program: e.Program, Problem: e.Problem,
		Reason: e.Reason, Detail: fault.OneLine(e.Detail), Unowned: unowned(e.Item.Record),
	}
	if e.Place != (pin.Place{}) {
		about := describeEntry(e.Item)
		out.Container, out.Policy, out.Path = &about.Container, about.Policy, e.Place.String()
		if about.Interface != nil {
			out.Interface = about.Interface.Name
		}
	}
	if d := e.Denied; d != nil {
		out.Denied = &deniedOutput{
			Port: d.Port, Protocol: d.Protocol, EtherType: d.EtherType, Attempts: d.Attempts, Bytes: d.Bytes, Others: d.Others,
		}
		if d.Address.IsValid() {
			out.Denied.Address = d.Address.String()
		}
		if !d.Last.IsZero() {
			last := d.Last.UTC()
			out.Denied.Last = &last
		}
	}
	return out
}

// eventLine writes an event as one line.
func (a *app) eventLine(e watch.Event) ([]byte, error) {
	if a.json {
		return jsonLine(describeEvent(e))
	}
	words := []string{e.Time.Format("2006-01-02T15:04:05.000Z07:00"), fmt.Sprintf("%-8s", e.Kind)}
	if e.Place != (pin.Place{}) {
		words = append(words, itemLabel(e.Item), describeEntry(e.Item).Policy)
		if rec := e.Item.Record; rec != nil && rec.Interface != nil {
			words = append(words, rec.Interface.Name)
		}
	} else {
		words = append(words, "-", "-")
	}
	if e.Program != "" {
		words = append(words, e.Program)
	}
	if e.Problem != "" {
		words = append(words, string(e.Problem)+":")
	}
	words = append(words, e.Detail)
	if n := unowned(e.Item.Record); n > 0 && e.Program == "" && e.Denied == nil {
		words = append(words, "("+count(n, "unowned tc filter", "unowned tc filters")+")")
	}
	if e.Initial {
		words = append(words, "(since before)")
	}
	for i, w := range words {
		words[i] = fault.OneLine(w)
	}
	return []byte(strings.Join(words, "  ") + "\n"), nil
}

// jsonLine is printJSON for a stream.
func jsonLine(document any) ([]byte, error) {
	data, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for _, r := range string(data) {
		if r >= 0x7f && r < 0xa0 {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return []byte(b.String() + "\n"), nil
}

// watchFilter says what a watch is about. The containers may come later, so that
// nothing is unknown or ambiguous.
type watchFilter struct {
	ids       []string // none: all
	policy    string   // "": all
	sandboxes map[pin.Owner]bool
}

// match reports whether an entry is meant: it goes by one of the ids, or belongs to
// the sandbox of a container that does.
func (f *watchFilter) match(it entry.Item) bool {
	named := len(f.ids) == 0 || slices.ContainsFunc(f.ids, func(id string) bool { return goesBy(it, id) })
	owner, owned := it.Place.Owner()
	switch {
	case named && owned && !owner.IsSandbox() && it.Record != nil && it.Record.Sandbox != "":
		if f.sandboxes == nil {
			f.sandboxes = map[pin.Owner]bool{}
		}
		f.sandboxes[pin.Sandbox(it.Record.Sandbox)] = true
	case !named && owned:
		named = f.sandboxes[owner]
	}
	return named && (f.policy == "" || f.policy == it.Place.Policy() || it.Record != nil && f.policy == it.Record.Policy)
}

func goesBy(it entry.Item, name string) bool {
	all := ids(it)
	return slices.Contains(all, name) || len(name) >= minPrefix && strings.HasPrefix(all[0], name)
}
