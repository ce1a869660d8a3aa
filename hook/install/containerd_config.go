// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// containerdMaxFiles bounds how many imported files are read.
const containerdMaxFiles = 1000

// containerdFile is one file of containerd's configuration.
type containerdFile struct {
	*change.File
	text []byte // what is looked at: the file, or the file without our blocks
	tree containerdTree
	// version is what the file says; that of the main file if it says none.
	version int
}

// containerdConfig is the configuration as the daemon puts it together.
type containerdConfig struct {
	files   []containerdFile // in the order in which they are read; empty if the main file is missing
	version int              // of the main file
	daemon  containerdVersion
	cri     containerdTree // the table "containerd" of the CRI plugin
	owner   string         // the last file that has the CRI plugin's table; empty if none
	// dropped are the files whose CRI table a later file replaces as a whole.
	dropped []string
}

// containerdView says what of a file is looked at.
type containerdView func(f *change.File) ([]byte, error)

// containerdFS is a host's files with some of them as they are to be; nil is one that
// goes.
type containerdFS struct {
	change.Host
	planned map[string][]byte
}

func (fs containerdFS) read(name string) (*change.File, error) {
	if data, ok := fs.planned[name]; ok {
		return &change.File{Path: name, Data: data, Missing: data == nil}, nil
	}
	return fs.Read(name)
}

func (fs containerdFS) list(dir string) ([]string, error) {
	names, err := fs.ReadDir(dir)
	for p, data := range fs.planned {
		if path.Dir(p) != path.Clean(dir) {
			continue
		}
		names = slices.DeleteFunc(names, func(n string) bool { return n == path.Base(p) })
		if data != nil {
			names = append(names, path.Base(p))
		}
	}
	slices.Sort(names)
	return names, err
}

func (fs containerdFS) exists(name string) bool {
	if data, ok := fs.planned[name]; ok {
		return data != nil
	}
	for p, data := range fs.planned {
		if data != nil && strings.HasPrefix(p, strings.TrimSuffix(name, "/")+"/") {
			return true
		}
	}
	return fs.Exists(name)
}

// containerdRaw looks at files as they are.
func containerdRaw(f *change.File) ([]byte, error) { return f.Data, nil }

// containerdForeign looks at files without our blocks.
func containerdForeign(f *change.File) ([]byte, error) {
	rest, _, err := containerdStrip(f.Path, f.Data)
	return rest, err
}

// containerdPlugin returns where a file of some version has the CRI plugin's tables.
// Version 2 is that of containerd 1.3 to 1.7; 3 came with 2.0 and renamed the plugin;
// 4 came with 2.3 and only moved the server's own settings (cmd/containerd/server/config).
func containerdPlugin(version int) []string {
	if version <= 2 {
		return []string{"plugins", "io.containerd.grpc.v1.cri", "containerd"}
	}
	return []string{"plugins", "io.containerd.cri.v1.runtime", "containerd"}
}

// containerdQuote returns the quotes that containerd itself uses in that version.
func containerdQuote(version int) byte {
	if version <= 2 {
		return '"'
	}
	return '\''
}

// containerdLoad reads the configuration: the main file, then its imports, breadth
// first. Before 2.0 a table of the CRI plugin replaces that of the files before it,
// from 2.0 on they are merged key by key, an empty value overriding too (LoadConfig
// and mergeConfig in services/server/config, later cmd/containerd/server/config).
func containerdLoad(h containerdFS, main string, daemon containerdVersion, view containerdView) (*containerdConfig, error) {
	c := &containerdConfig{daemon: daemon, cri: containerdTree{}, version: daemon.config()}
	pending := []string{main}
	seen := map[string]bool{}
	for from := ""; len(pending) > 0; {
		name := pending[0]
		pending = pending[1:]
		if seen[name] {
			continue
		}
		if seen[name] = true; len(seen) > containerdMaxFiles {
			return nil, fault.Newf(main, fmt.Sprintf("imports more than %d files", containerdMaxFiles), "")
		}
		f, err := h.read(name)
		if err != nil {
			return nil, err
		}
		if f.Missing {
			if name == main {
				return c, nil
			}
			return nil, fault.Newf(from, fmt.Sprintf("imports %s, which does not exist: containerd does not start", name), "make the file, or take it out of imports")
		}
		file := containerdFile{File: f}
		if file.text, err = view(f); err != nil {
			return nil, err
		}
		if file.tree, err = containerdDecode(name, file.text); err != nil {
			// The line as it stands in the file, our blocks included.
			if _, whole := containerdDecode(name, file.Data); whole != nil {
				err = whole
			}
			return nil, err
		}
		if err := c.add(main, file); err != nil {
			return nil, err
		}
		list, _ := file.tree["imports"].([]any)
		for _, e := range list {
			pattern, ok := e.(string)
			if !ok {
				return nil, fault.Newf(name, "imports is not a list of strings", "mend the file")
			}
			found, err := containerdImport(h, name, pattern)
			if err != nil {
				return nil, err
			}
			pending = append(pending, found...)
		}
		from = name
	}
	return c, nil
}

// add merges a file into what was read before it.
func (c *containerdConfig) add(main string, f containerdFile) error {
	v, _ := f.tree["version"].(int64)
	f.version = int(v)
	switch {
	case f.Path == main && (v == 0 || v == 1):
		return fault.Newf(main, "is a configuration of version 1 (it has no \"version = 2\"): linkpin knows 2, 3 and 4",
			"write it anew as version 2 or later (`containerd config default`, or `containerd config migrate`)").WithExit(fault.ExitInput)
	case f.Path == main:
		c.version = f.version
	case v == 0:
		f.version = c.version
	case f.version != c.version && !c.daemon.atLeast(2, 3):
		return fault.Newf(f.Path, fmt.Sprintf("has version %d, but %s has version %d: containerd %s takes the last one for all of them", v, main, c.version, c.daemon),
			"give all files the same version").WithExit(fault.ExitInput)
	}
	if f.version < 2 || f.version > c.daemon.config() {
		return fault.Newf(f.Path, fmt.Sprintf("has version %d; containerd %s knows versions 2 to %d", f.version, c.daemon, c.daemon.config()),
			"see `containerd config migrate`").WithExit(fault.ExitInput)
	}
	c.files = append(c.files, f)
	where := containerdPlugin(f.version)
	if f.version == 2 && c.daemon.atLeast(2, 0) && containerdTable(f.tree, containerdPlugin(3)) != nil {
		return fault.Newf(f.Path, "has version 2, but tables of version 3", "see `containerd config migrate`").WithExit(fault.ExitInput)
	}
	plugin := containerdTable(f.tree, where[:2])
	if plugin == nil {
		return nil
	}
	cri := containerdTable(f.tree, where)
	if !c.daemon.atLeast(2, 0) {
		if c.owner != "" {
			c.dropped = append(c.dropped, c.owner)
		}
		c.cri = containerdTree{}
	}
	c.owner = f.Path
	containerdMerge(c.cri, cri)
	return nil
}

// runtimes returns the runtime handlers that the files define.
func (c *containerdConfig) runtimes() containerdTree {
	return containerdTable(c.cri, []string{"runtimes"})
}

// runtime returns a handler's table, and whether a file defines it. The built-in runc
// goes as soon as a file has any handler before 2.0; from 2.0 on files add to it.
func (c *containerdConfig) runtime(name string) (table containerdTree, defined bool) {
	t, defined := c.runtimes()[name].(containerdTree)
	if name == "runc" && (c.runtimes() == nil || c.daemon.atLeast(2, 0)) {
		table = containerdTree{"runtime_type": "io.containerd.runc.v2"}
	}
	if defined {
		if table == nil {
			table = containerdTree{}
		}
		containerdMerge(table, t)
	}
	return table, defined
}

// defaultRuntime returns the handler of pods that name none.
func (c *containerdConfig) defaultRuntime() string {
	if s, _ := c.cri["default_runtime_name"].(string); s != "" {
		return s
	}
	return "runc"
}

// hasDefault reports whether the handler of pods that name none exists.
func (c *containerdConfig) hasDefault() bool {
	t, _ := c.runtime(c.defaultRuntime())
	return t != nil
}

// disabled reports whether the CRI plugin is switched off.
func (c *containerdConfig) disabled() bool {
	for _, f := range c.files {
		list, _ := f.tree["disabled_plugins"].([]any)
		if slices.ContainsFunc(list, func(e any) bool {
			return e == "cri" || e == "io.containerd.grpc.v1.cri" || e == "io.containerd.cri.v1.runtime"
		}) {
			return true
		}
	}
	return false
}

// containerdTable returns the table at a path, or nil.
func containerdTable(tree containerdTree, path []string) containerdTree {
	for _, k := range path {
		next, ok := tree[k].(containerdTree)
		if !ok {
			return nil
		}
		tree = next
	}
	return tree
}

// containerdMerge adds a copy of from to to.
func containerdMerge(to, from containerdTree) {
	for k, v := range from {
		if sub, ok := v.(containerdTree); ok {
			old, _ := to[k].(containerdTree)
			next := maps.Clone(old)
			if next == nil {
				next = containerdTree{}
			}
			containerdMerge(next, sub)
			to[k] = next
			continue
		}
		to[k] = v
	}
}

// containerdImport returns the files that an entry of imports stands for, as
// resolveImports of containerd does: relative to the importing file, and a pattern
// only if there is an asterisk in it.
func containerdImport(h containerdFS, from, pattern string) ([]string, error) {
	pattern = path.Clean(pattern)
	if !path.IsAbs(pattern) {
		pattern = path.Join(path.Dir(from), pattern)
	}
	if !strings.Contains(pattern, "*") {
		return []string{pattern}, nil
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fault.New(from, fmt.Errorf("imports %q: %w", pattern, err), "mend the pattern")
	}
	found := []string{"/"}
	for part := range strings.SplitSeq(strings.Trim(pattern, "/"), "/") {
		var next []string
		for _, dir := range found {
			if !strings.ContainsAny(part, `*?[\`) {
				if p := path.Join(dir, part); h.exists(p) {
					next = append(next, p)
				}
				continue
			}
			names, err := h.list(dir)
			if err != nil {
				return nil, err
			}
			for _, n := range names {
				if ok, _ := path.Match(part, n); ok {
					next = append(next, path.Join(dir, n))
				}
			}
		}
		found = next
	}
	return found, nil
}
