// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/specs/fault"
)

// inspectOutput is `linkpin inspect ID -o json`.
type inspectOutput struct {
	Entries []inspectedEntry `json:"entries"`
}

type inspectedEntry struct {
	entryOutput
	Content []mapContent `json:"content"` // of the maps
}

// mapContent is what a map holds: entries, if there are few of them.
type mapContent struct {
	Map     string     `json:"map"`
	Type    string     `json:"type"`
	Count   int        `json:"count"`             // of entries; -1 if the map has none to count
	More    bool       `json:"more,omitempty"`    // there are more than Count
	Entries []mapEntry `json:"entries,omitempty"` // at most 8; per-CPU numbers are added up
	Error   string     `json:"error,omitempty"`
}

const (
	fewEntries = 8      // that inspect shows; map dump shows all
	maxCount   = 10_000 // that inspect counts
)

// errEnough ends the reading of a map.
var errEnough = errors.New("enough")

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect ID",
		Short: "Show everything about one container: programs, links, counters, what is not covered",
		Long: `Show everything about one container or sandbox, by its id, the beginning of its id, or
its name. Maps with few entries are shown whole, with per-CPU counters added up.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, done, err := a.session()
			if err != nil {
				return err
			}
			defer done()
			all, err := items(s)
			if err != nil {
				return err
			}
			found, err := match(all, args[0])
			if err != nil {
				return err
			}
			out := inspectOutput{}
			declared := a.declarations()
			defer declared.close()
			for _, it := range found {
				out.Entries = append(out.Entries, inspectedEntry{describeEntry(it), contents(s, it, declared)})
			}
			marked := make([]*entryOutput, len(out.Entries))
			for i := range out.Entries {
				marked[i] = &out.Entries[i].entryOutput
			}
			a.standings(s, found, marked)
			if a.json {
				return a.printJSON(out)
			}
			for _, e := range out.Entries {
				if err := a.printInspected(e); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// contents reads the maps of an entry.
func contents(s *entry.Session, it entry.Item, declared *declarations) []mapContent {
	out := []mapContent{}
	e, err := s.Root.Entry(it.Place)
	if err != nil {
		return out // it has just gone
	}
	for _, name := range e.Maps() {
		c := mapContent{Map: name}
		if err := c.read(e.MapPath(name), declared.of(it.Record, name)); err != nil {
			c.Error = fault.OneLine(err.Error())
		}
		out = append(out, c)
	}
	return out
}

func (c *mapContent) read(path string, fromObject func() *ebpf.MapSpec) error {
	m, err := openTyped(path, fromObject)
	if err != nil {
		return err
	}
	defer m.Close()
	c.Type = m.Type().String()
	err = m.each(func(e mapEntry) error {
		if c.Count == maxCount {
			c.More = true
			return errEnough
		}
		if c.Count++; c.Count <= fewEntries {
			if total, ok := sumCPUs(e.CPUs); ok {
				e.Value, e.CPUs = total, nil
			}
			c.Entries = append(c.Entries, e)
		}
		return nil
	})
	if c.Count > fewEntries {
		c.Entries = nil
	}
	switch {
	case errors.Is(err, errNoEntries):
		c.Count = -1
		return nil
	case errors.Is(err, errEnough), errors.Is(err, ebpf.ErrIterationAborted):
		return nil // others add and remove entries meanwhile: the count is about right
	}
	return err
}

func (a *app) printInspected(e inspectedEntry) error {
	t := a.table("container", e.Container.ID)
	if name := label(e.Container.identity()); name != shorten(e.Container.ID) {
		t.row("name", name)
	}
	t.row("policy", e.Policy)
	if e.Error != "" {
		t.row("record", e.Error)
		return t.flush()
	}
	t.row("digest", e.Digest+standingText(e.entryOutput))
	if e.Updated != nil {
		t.row("updated", age(a.Now().Sub(*e.Updated))+" ago")
	}
	t.row("attached", fmt.Sprintf("%s ago by %s, on error %s", age(a.Now().Sub(e.Created)), e.By, e.OnError))
	if e.Retired != nil {
		t.row("retired", fmt.Sprintf("%s ago: %s", age(a.Now().Sub(e.Retired.Time)), e.Retired.Reason))
	}
	if e.Cgroup != nil {
		t.row("cgroup", fmt.Sprintf("%s (id %d)", e.Cgroup.Path, e.Cgroup.ID))
	}
	if e.Netns != nil {
		t.row("netns", fmt.Sprintf("%s (cookie %d)", e.Netns.Path, e.Netns.Cookie))
	}
	if i := e.Interface; i != nil {
		t.row("interface", strings.TrimSpace(fmt.Sprintf("%s (%s) %s", i.Name, i.Kind, strings.Join(i.Addresses, " "))))
	}
	for _, p := range e.Programs {
		state := p.stateText()
		if p.Error != "" {
			state += ": " + p.Error
		}
		t.row("program", fmt.Sprintf("%s  %s on %s  %s  (%s, program %d)", p.Name, hookText(p), targetText(e.entryOutput, p), state, p.idText(), p.ProgramID))
	}
	for _, u := range e.Uncovered {
		t.row("not covered", u)
	}
	for _, c := range e.Content {
		switch {
		case c.Error != "":
			t.row("map", c.Map+"  "+c.Error)
		case c.Count < 0:
			t.row("map", c.Map+"  "+c.Type)
		default:
			more := ""
			if c.More {
				more = "more than "
			}
			t.row("map", fmt.Sprintf("%s  %s, %s%s", c.Map, c.Type, more, count(c.Count, "entry", "entries")))
		}
		for _, entry := range c.Entries {
			t.row(" ", strings.TrimPrefix(entryText(entry), "- "))
		}
	}
	t.row(" ")
	return t.flush()
}
