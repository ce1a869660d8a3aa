// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// savedSuffix is how the name of a single plugin's file ends after it has become a
// list. No runtime reads such a file.
const savedSuffix = ".linkpin-saved"

// convert plans to replace a single plugin by a list. The order of changes is that in
// which a network is there after each: the single file sorts before the list, and
// goes last.
func (c *CNI) convert(h change.Host, plan *change.Plan, conf *config, all []*config) error {
	p := conf.file.Path
	switch {
	case conf.types[0] == Plugin:
		return fault.Newf(p, Plugin+" is its only plugin: there is none that makes an interface", "remove the file")
	case conf.linked:
		return fault.Newf(p, "is a single plugin and a symbolic link", "put a list into its place (NAME.conflist) and install again")
	case conf.network == "":
		return fault.Newf(p, "has no network name, which a list needs", "give it one")
	}
	text, err := c.listText(h, conf.list)
	if err != nil {
		return err
	}
	data, err := ensure(text, c.caller(h), c.Caller)
	if err != nil {
		return located(p, conf.src, err)
	}
	target, err := c.listName(h, conf, all)
	if err != nil {
		return err
	}
	saved, err := h.Read(p + savedSuffix)
	if err != nil {
		return err
	}
	plan.Write(saved, conf.src, conf.file.Mode.Perm())
	plan.Write(target, data, conf.file.Mode.Perm())
	plan.Remove(conf.file)
	return nil
}

// listText returns a single plugin as a list of one, which means the same (libcni,
// ConfListFromConf): the plugin's own text, further in.
func (c *CNI) listText(h change.Host, l *list) ([]byte, error) {
	s := styleOf(l.src, l.root)
	plugin := string(l.src[l.root.start:l.root.end])
	array := "[" + plugin + "]"
	if s.lines() {
		in := s.inner()
		unit := strings.TrimPrefix(in.open, s.open)
		deep := strings.ReplaceAll(plugin, "\n", "\n"+unit+unit) // a JSON string has no line ends
		array = "[" + in.open + deep + s.open + "]"
	}
	var members [][2]string
	for _, key := range []string{"cniVersion", "name"} {
		if v := l.root.get(key); v != nil {
			members = append(members, [2]string{key, string(l.src[v.start:v.end])})
		}
	}
	// A list gets what the directory of its name holds; a single plugin does not.
	dropins, err := h.ReadDir(path.Join(c.dir(), l.network))
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(dropins, func(name string) bool { return path.Ext(name) == ".conf" }) {
		members = append(members, [2]string{"loadOnlyInlinedPlugins", "true"})
	}
	members = append(members, [2]string{"plugins", array})
	text := string(l.src[:l.root.start]) + s.write(members...) + string(l.src[l.root.end:])
	if _, err := parseList([]byte(text)); err != nil {
		return nil, fmt.Errorf("%s: as a list: %w", l.network, err)
	}
	return []byte(text), nil
}

// listNames are the names that a single plugin's list may have.
func listNames(single string) []string {
	return []string{strings.TrimSuffix(single, path.Ext(single)) + ".conflist", single + ".conflist"}
}

// listName returns the file that the list goes to: one that has the same place among
// the others, and is free or was made from the same file before.
func (c *CNI) listName(h change.Host, conf *config, all []*config) (*change.File, error) {
	place := func(name, without string) int {
		n := 0
		for _, other := range all {
			if o := other.name(); o != conf.name() && o != without && o < name {
				n++
			}
		}
		return n
	}
	for _, name := range listNames(conf.name()) {
		if place(name, name) != place(conf.name(), name) {
			continue
		}
		f, err := h.Read(path.Join(c.dir(), name))
		if err != nil {
			return nil, err
		}
		if f.Missing {
			return f, nil
		}
		there, err := readConfig(h, f.Path)
		if err != nil {
			return nil, err
		}
		if there == nil || there.err == nil && there.network != conf.network {
			continue
		}
		// An installer that was stopped has left the list, or the provider has written
		// its single file again.
		made, err := c.madeFrom(h, there, conf.list)
		if err != nil {
			return nil, err
		}
		if !made {
			if saved, err := c.savedOf(h, conf.name()); err == nil && saved != nil {
				made, err = c.madeFrom(h, there, saved)
				if err != nil {
					return nil, err
				}
			}
		}
		if !made {
			return nil, fault.Newf(f.Path, "stands beside "+conf.name()+", which would become this list", "remove the one that is not meant")
		}
		return f, nil
	}
	return nil, fault.Newf(conf.file.Path, "is a single plugin, and no name of a list has its place among the files of "+c.dir(),
		fmt.Sprintf("rename it so that others do not begin with %q", strings.TrimSuffix(conf.name(), path.Ext(conf.name()))))
}

// madeFrom reports whether a file is the list of a single plugin, our entry aside.
func (c *CNI) madeFrom(h change.Host, there *config, l *list) (bool, error) {
	if there.err != nil || there.linked || l.network == "" {
		return false, nil //nolint:nilerr // what is not a list is not this one; Check reports it
	}
	text, err := c.listText(h, l)
	if err != nil {
		return false, err
	}
	if sameBesideOurs(there.src, text) {
		return true, nil
	}
	// The directory of drop-ins may have come or gone since.
	return sameBesideOurs(withoutInlined(there.src), withoutInlined(text)), nil
}

// withoutInlined takes loadOnlyInlinedPlugins out of a list.
func withoutInlined(src []byte) []byte {
	l, err := parseList(src)
	if err != nil {
		return src
	}
	for i, m := range l.root.members {
		if m.key == "loadOnlyInlinedPlugins" && i+1 < len(l.root.members) {
			return splice(src, m.keyStart, l.root.members[i+1].keyStart, "")
		}
	}
	return src
}

// savedOf reads what a single plugin was when it became a list; nil if nothing was
// kept.
func (c *CNI) savedOf(h change.Host, single string) (*list, error) {
	f, err := h.Read(path.Join(c.dir(), single+savedSuffix))
	if err != nil || f.Missing {
		return nil, err
	}
	l, err := parseSingle(f.Data)
	if err != nil {
		return nil, located(f.Path, f.Data, err)
	}
	return l, nil
}

// saved lists the names of single plugins that have become lists.
func (c *CNI) saved(h change.Host) ([]string, error) {
	names, err := h.ReadDir(c.dir())
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range names {
		if single, ok := strings.CutSuffix(name, savedSuffix); ok && readable(single) {
			out = append(out, single)
		}
	}
	return out, nil
}

// restore plans to bring single plugins back. done are the names of the files that
// need nothing else.
func (c *CNI) restore(h change.Host, plan *change.Plan, all []*config) (done map[string]bool, err error) {
	singles, err := c.saved(h)
	if err != nil {
		return nil, err
	}
	done = map[string]bool{}
	for _, single := range singles {
		l, err := c.savedOf(h, single)
		if err != nil || l == nil || c.Network != "" && l.network != c.Network {
			if err != nil {
				return nil, err
			}
			continue
		}
		if err := c.restoreOne(h, plan, single, l, all, done); err != nil {
			return nil, err
		}
	}
	return done, nil
}

func (c *CNI) restoreOne(h change.Host, plan *change.Plan, single string, l *list, all []*config, done map[string]bool) error {
	original, err := h.Read(path.Join(c.dir(), single))
	if err != nil {
		return err
	}
	saved, err := h.Read(path.Join(c.dir(), single+savedSuffix))
	if err != nil {
		return err
	}
	var edited *config
	for _, name := range listNames(single) {
		i := slices.IndexFunc(all, func(conf *config) bool { return conf.name() == name })
		if i < 0 || all[i].err == nil && all[i].network != l.network {
			continue
		}
		there := all[i]
		made, err := c.madeFrom(h, there, l)
		if err != nil {
			return err
		}
		if !made {
			edited = there
			continue
		}
		if original.Missing {
			plan.Write(original, saved.Data, saved.Mode.Perm())
		}
		plan.Remove(there.file)
		plan.Remove(saved)
		done[name] = true
		return nil
	}
	switch {
	case edited != nil && edited.err != nil:
		return edited.err
	case edited != nil && len(edited.ours()) > 0:
		// What somebody has put into the list would be lost with it: it stays, and
		// Uninstall takes the entry out as it does of every list.
		plan.Note(fmt.Sprintf("%s was made of %s and was edited since: it stays a list, without %s; %s is what it was before: remove it, or put it into the list's place as %s",
			edited.file.Path, single, Plugin, saved.Path, single))
	case original.Missing && edited == nil:
		plan.Note(fmt.Sprintf("%s is what a list was made of that is gone: remove it, or rename it to %s", saved.Path, single))
	default:
		plan.Note(fmt.Sprintf("%s is no longer of use: remove it", saved.Path))
	}
	return nil
}
