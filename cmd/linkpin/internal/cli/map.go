// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/bpf/entry"
	"github.com/linkpin/linkpin/bpf/value"
	"github.com/linkpin/linkpin/specs/fault"
)

// mapsOutput is `linkpin map dump -o json` and `linkpin map get -o json`.
type mapsOutput struct {
	Maps []mapDump `json:"maps"` // several, if a policy has one for the cgroup and one for each interface
}

type mapDump struct {
	Path      string     `json:"path"` // of the entry, below linkpin/v1 in bpffs
	Policy    string     `json:"policy"`
	Interface string     `json:"interface,omitempty"` // inside the container; empty: cgroup or namespace
	Map       string     `json:"map"`
	Type      string     `json:"type"`
	KeyType   string     `json:"keyType,omitempty"` // in C; empty if only the size is known
	ValueType string     `json:"valueType,omitempty"`
	Entries   []mapEntry `json:"entries"`
}

// mapFilter says which of a container's entries are meant.
type mapFilter struct {
	policy string
	iface  string
}

func (a *app) mapCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "map",
		Short: "Read the maps of a container's policies",
	}
	cmd.AddCommand(a.mapDumpCommand(), a.mapGetCommand())
	return cmd
}

func (f *mapFilter) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.policy, "policy", "", "only the map of this policy")
	cmd.Flags().StringVar(&f.iface, "interface", "", "only the map of this interface, as the container calls it")
}

func (a *app) mapDumpCommand() *cobra.Command {
	var filter mapFilter
	cmd := &cobra.Command{
		Use:   "dump ID MAP",
		Short: "Show all entries of a map, as a policy would write them",
		Long: `Show all entries of a map, in the notation of policies. Per-CPU maps show the value of
each CPU. Maps of programs and maps show ids.`,
		Args: cobra.ExactArgs(2),
	}
	filter.addFlags(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return a.readMaps(args[0], args[1], filter, func(m *typedMap) ([]mapEntry, error) {
			entries := []mapEntry{}
			err := m.each(func(e mapEntry) error {
				entries = append(entries, e)
				return nil
			})
			return entries, err
		})
	}
	return cmd
}

func (a *app) mapGetCommand() *cobra.Command {
	var filter mapFilter
	cmd := &cobra.Command{
		Use:   "get ID MAP KEY",
		Short: "Show one entry of a map",
		Long: `Show one entry of a map. The key is written as in a policy: 443, 10.0.0.0/8,
'{addr: 10.0.0.1, port: 443}', hex:0a000001.`,
		Args: cobra.ExactArgs(3),
	}
	filter.addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key, err := parseArgument("KEY", args[2])
		if err != nil {
			return usage(cmd, fmt.Errorf("KEY %q: %w", args[2], err))
		}
		found := false
		err = a.readMaps(args[0], args[1], filter, func(m *typedMap) ([]mapEntry, error) {
			data, err := m.encodeKey(key)
			if err != nil {
				return nil, err
			}
			e, err := m.get(data)
			if errors.Is(err, ebpf.ErrKeyNotExist) {
				return []mapEntry{}, nil
			}
			if err != nil {
				return nil, err
			}
			found = true
			return []mapEntry{e}, nil
		})
		if err == nil && !found {
			return fault.New("map "+args[1], fmt.Errorf("has no key %s", args[2]), "`linkpin map dump` shows all")
		}
		return err
	}
	return cmd
}

// readMaps prints what read returns of each map of that name.
func (a *app) readMaps(id, name string, filter mapFilter, read func(*typedMap) ([]mapEntry, error)) error {
	s, done, err := a.session()
	if err != nil {
		return err
	}
	defer done()
	found, err := findMaps(s, id, name, filter)
	if err != nil {
		return err
	}
	out := mapsOutput{Maps: []mapDump{}}
	declared := a.declarations()
	defer declared.close()
	for _, it := range found {
		dump, err := dumpMap(s, it, name, declared, read)
		if err != nil {
			return fault.New(fmt.Sprintf("map %s of %s", name, it.Place), err, "")
		}
		out.Maps = append(out.Maps, dump)
	}
	if a.json {
		return a.printJSON(out)
	}
	for _, dump := range out.Maps {
		if len(out.Maps) > 1 {
			where := ""
			if dump.Interface != "" {
				where = ", interface " + dump.Interface
			}
			a.printf("# %s\n", fault.OneLine("policy "+dump.Policy+where))
		}
		for _, e := range dump.Entries {
			a.printf("%s\n", entryText(e))
		}
	}
	return nil
}

// entryText writes an entry as an element of `entries:`.
func entryText(e mapEntry) string {
	if e.CPUs != nil {
		return "- {key: " + flow(e.Key) + ", cpus: " + flow(e.CPUs) + "}"
	}
	return "- {key: " + flow(e.Key) + ", value: " + flow(e.Value) + "}"
}

// findMaps returns the entries of a container that have a map of that name. What
// drains counts only where nothing else is left.
func findMaps(s *entry.Session, id, name string, filter mapFilter) ([]entry.Item, error) {
	all, err := items(s)
	if err != nil {
		return nil, err
	}
	mine, err := match(all, id)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(mine, func(it entry.Item) bool { return it.Retired == nil }) {
		mine = slices.DeleteFunc(mine, func(it entry.Item) bool { return it.Retired != nil })
	}
	var found []entry.Item
	var names []string
	for _, it := range mine {
		if it.Record == nil || filter.policy != "" && it.Record.Policy != filter.policy ||
			filter.iface != "" && (it.Record.Interface == nil || it.Record.Interface.Name != filter.iface) {
			continue
		}
		e, err := s.Root.Entry(it.Place)
		if err != nil {
			return nil, err
		}
		if slices.Contains(e.Maps(), name) {
			found = append(found, it)
		}
		for _, m := range e.Maps() {
			if !slices.Contains(names, m) {
				names = append(names, m)
			}
		}
	}
	if len(found) == 0 {
		list := "there is none"
		if len(names) > 0 {
			list = "there are " + strings.Join(names, ", ")
		}
		return nil, fault.Newf("map "+name, "none of that name is pinned for "+id, list)
	}
	return found, nil
}

func dumpMap(s *entry.Session, it entry.Item, name string, declared *declarations, read func(*typedMap) ([]mapEntry, error)) (mapDump, error) {
	dump := mapDump{Path: it.Place.String(), Policy: it.Record.Policy, Map: name}
	if it.Record.Interface != nil {
		dump.Interface = it.Record.Interface.Name
	}
	e, err := s.Root.Entry(it.Place)
	if err != nil {
		return dump, err
	}
	m, err := openTyped(e.MapPath(name), declared.of(it.Record, name))
	if err != nil {
		return dump, err
	}
	defer m.Close()
	dump.Type = m.Type().String()
	if m.key != nil {
		dump.KeyType = value.TypeName(m.key)
	}
	if m.value != nil {
		dump.ValueType = value.TypeName(m.value)
	}
	dump.Entries, err = read(m)
	return dump, err
}
