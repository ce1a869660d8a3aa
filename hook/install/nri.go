// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// NRI makes containerd and CRI-O put linkpin's hooks into every container, by a
// plugin of the Node Resource Interface that they start from their plugin directory.
// It needs no handler and no list of annotations, but it lives as a process beside
// the runtime.
type NRI struct {
	// Hook is the path of linkpin-hook on the host, absolute. Mandatory.
	Hook string
	// PluginDir is where the runtime looks for plugins. Default: /opt/nri/plugins.
	PluginDir string
	// ConfDir is where it looks for their configuration. Default: /etc/nri/conf.d.
	ConfDir string
	// Index is the plugin's place in the order of all, two digits. Default: that of the
	// plugin that is in the directory, else 10.
	Index string
	// Host is where Binaries and Check look for the plugin. It must be the host that the
	// other methods are given.
	Host change.Host
	// Config is containerd's configuration; default /etc/containerd/config.toml.
	// Only Check reads it.
	Config string
	// Version is the release of containerd ("2.2"); empty: Check asks the host's.
	Version string
	// Daemon is where the host has containerd; empty: in one of the usual directories.
	Daemon string
}

var _ change.Target = NRI{}

const (
	nriName = "linkpin-nri"
	// nriHead is how the file begins if linkpin made it.
	nriHead = "# Configuration of linkpin's NRI plugin. Written by linkpin install nri.\n"
	nriMade = "# Directories that were made for it: "
	nriKey  = "hook"
)

var nriIndex = regexp.MustCompile(`^[0-9]{2}$`)

// Name returns "nri".
func (NRI) Name() string { return "nri" }

// Binaries returns the hook, and the plugin in the runtime's plugin directory. The
// plugin is one that Uninstall itself plans to remove.
func (n NRI) Binaries() []change.Binary {
	return []change.Binary{{Name: hookName, Path: n.Hook}, {Name: nriName, Path: n.plugin()}}
}

// plugin is where the plugin is to be.
func (n NRI) plugin() string {
	if n.Index == "" {
		if there, err := n.plugins(n.Host); err == nil && len(there) > 0 {
			return there[0]
		}
	}
	return path.Join(n.pluginDir(), nriOr(n.Index, "10")+"-"+nriName)
}

// plugins are the paths of all linkpin plugins that the runtime would start, whatever
// their index, in its order.
func (n NRI) plugins(h change.Host) ([]string, error) {
	names, err := h.ReadDir(n.pluginDir())
	if err != nil {
		return nil, fault.New(n.pluginDir(), err, "make it readable")
	}
	var out []string
	for _, name := range names {
		p := path.Join(n.pluginDir(), name)
		if index, ok := strings.CutSuffix(name, "-"+nriName); ok && nriIndex.MatchString(index) && !hostDir(h, p) {
			out = append(out, p)
		}
	}
	return out, nil
}

// removePlugins plans the removal of all plugins but the one at keep.
func (n NRI) removePlugins(h change.Host, plan *change.Plan, keep string) error {
	there, err := n.plugins(h)
	if err != nil {
		return err
	}
	dir, err := h.Resolve(n.pluginDir())
	if err != nil {
		return err
	}
	for _, p := range there {
		if p == keep {
			continue
		}
		// A plan removes what a link leads to: that may be a package's.
		if st, err := os.Lstat(filepath.Join(dir, path.Base(p))); err == nil && st.Mode()&fs.ModeSymlink != 0 {
			return fault.Newf(p, "is a symbolic link, which linkpin has not made", "remove it and run it again; nothing was changed")
		}
		f, err := h.Read(p)
		if err != nil {
			return err
		}
		plan.Remove(f)
	}
	return nil
}

func (n NRI) pluginDir() string { return nriOr(n.PluginDir, "/opt/nri/plugins") }

func (n NRI) file() string { return path.Join(nriOr(n.ConfDir, "/etc/nri/conf.d"), nriName+".conf") }

func nriOr(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// Install plans the plugin's configuration. Plugins with another index than is asked
// for go: each would put the hooks into containers once more.
func (n NRI) Install(h change.Host) (*change.Plan, error) {
	n.Host = h
	if err := hookPath(n.Hook); err != nil {
		return nil, err
	}
	if n.Index != "" && !nriIndex.MatchString(n.Index) {
		return nil, fault.Newf("index "+n.Index, "is no place in the order of NRI plugins", "give two digits: 10").WithExit(fault.ExitUsage)
	}
	f, err := h.Read(n.file())
	if err != nil {
		return nil, err
	}
	doc, err := nriParse(f)
	if err != nil {
		return nil, err
	}
	dirs, err := missingDirs(h, path.Dir(n.file()))
	if err != nil {
		return nil, err
	}
	data, err := doc.with(n.Hook, dirs)
	if err != nil {
		return nil, err
	}
	plan := &change.Plan{}
	plan.Write(f, data, 0o644)
	if err := n.removePlugins(h, plan, n.plugin()); err != nil {
		return nil, err
	}
	if !plan.Empty() || !h.Executable(n.plugin()) {
		plan.Note("restart containerd or CRI-O: they start NRI plugins when they start themselves, and containers that they created before have no hooks")
		plan.Note(`containerd 1.7 has NRI switched off: set disable = false in [plugins."io.containerd.nri.v1.nri"]; older releases have none`)
		plan.Note(`containerd 2.2 and newer can refuse containers while the plugin is away: set enable = true and required_plugins = ["` + nriName + `"] in [plugins."io.containerd.nri.v1.nri".default_validator]`)
	}
	return plan, nil
}

// Uninstall plans the reverse: every plugin goes first, since one that has lost its
// configuration or its hook refuses all containers. Then the line goes, and the file
// if nothing else is in it.
func (n NRI) Uninstall(h change.Host) (*change.Plan, error) {
	f, err := h.Read(n.file())
	if err != nil {
		return nil, err
	}
	doc, err := nriParse(f)
	if err != nil {
		return nil, err
	}
	data, ours, made := doc.without()
	if made, err = leadingTo(h, made, path.Dir(n.file())); err != nil {
		return nil, err
	}
	plan := &change.Plan{}
	if err := n.removePlugins(h, plan, ""); err != nil {
		return nil, err
	}
	if ours && len(bytes.TrimSpace(data)) == 0 {
		plan.Remove(f)
		for _, dir := range made {
			plan.Remove(&change.File{Path: dir, Mode: fs.ModeDir | 0o755})
		}
	} else if !f.Missing {
		plan.Write(f, data, 0o644)
	}
	if !plan.Empty() {
		plan.Note("restart containerd or CRI-O now: the plugin that runs goes on, and refuses containers once linkpin-hook is gone")
	}
	return plan, nil
}

// Uses reports whether the configuration names the hook at p, or belongs to the
// plugin at p, or the runtime would start the plugin at p.
func (n NRI) Uses(h change.Host, p string) bool {
	n.Host = h
	there, err := n.plugins(h)
	if err != nil || slices.Contains(there, path.Clean(p)) {
		return true
	}
	f, err := h.Read(n.file())
	if err != nil {
		return true
	}
	doc, err := nriParse(f)
	if err != nil {
		return true
	}
	return doc.hook != "" && (doc.hook == path.Clean(p) || n.plugin() == path.Clean(p))
}

// nriDoc is the plugin's configuration as text, and the place of the hook in it.
type nriDoc struct {
	file       string
	data       []byte
	missing    bool
	hook       string // empty if the file says none
	start, end int    // of the hook's value in data
}

// nriParse reads a configuration: a YAML mapping, or nothing.
func nriParse(f *change.File) (*nriDoc, error) {
	doc := &nriDoc{file: f.Path, data: f.Data, missing: f.Missing}
	var root yaml.Node
	if err := yaml.Unmarshal(f.Data, &root); err != nil {
		return nil, fault.New(f.Path, fmt.Errorf("is not valid YAML: %w", err), "mend the file; it was not changed").WithExit(fault.ExitInput)
	}
	if len(root.Content) == 0 {
		return doc, nil
	}
	m := root.Content[0]
	if m.Kind == yaml.ScalarNode && m.Value == "" {
		return doc, nil // a document with nothing but comments
	}
	if m.Kind != yaml.MappingNode {
		return nil, doc.refuse(m.Line, "is not a mapping")
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		key, value := m.Content[i], m.Content[i+1]
		switch {
		case key.Value != nriKey:
			return nil, doc.refuse(key.Line, fmt.Sprintf("has the unknown key %q: the plugin refuses all containers", key.Value))
		case value.Kind != yaml.ScalarNode || value.Line != key.Line || m.Style&yaml.FlowStyle != 0 || value.Anchor != "":
			return nil, doc.refuse(value.Line, "is written in a way that can't be edited safely")
		case value.ShortTag() != "!!str":
			return nil, doc.refuse(value.Line, "says no path for "+nriKey)
		}
		doc.hook = value.Value
		doc.start = nriLine(f.Data, value.Line) + value.Column - 1
		doc.end = doc.start + len(value.Value)
		if value.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			doc.end += 2
		}
		if doc.end > len(f.Data) || !bytes.Contains(f.Data[doc.start:doc.end], []byte(value.Value)) {
			return nil, doc.refuse(value.Line, "is written in a way that can't be edited safely")
		}
	}
	return doc, nil
}

func (d *nriDoc) refuse(line int, cause string) error {
	return fault.Newf(fmt.Sprintf("%s:%d", d.file, line), cause, "write it as a line of its own, \"hook: PATH\"; the file was not changed").WithExit(fault.ExitInput)
}

// nriLine returns where a line begins, counted from 1.
func nriLine(data []byte, line int) int {
	at := 0
	for range line - 1 {
		at += bytes.IndexByte(data[at:], '\n') + 1
	}
	return at
}

// with returns the text with the hook at path. A file that is new also says which
// directories were made for it.
func (d *nriDoc) with(path string, dirs []string) ([]byte, error) {
	value, err := nriScalar(path)
	if err != nil {
		return nil, err
	}
	line := nriKey + ": " + value + "\n"
	switch {
	case d.hook == path:
		return d.data, nil
	case d.hook != "":
		return bytes.Join([][]byte{d.data[:d.start], []byte(value), d.data[d.end:]}, nil), nil
	case d.missing && len(dirs) > 0:
		return []byte(nriHead + nriMade + strings.Join(dirs, " ") + "\n" + line), nil
	case d.missing:
		return []byte(nriHead + line), nil
	case len(d.data) > 0 && d.data[len(d.data)-1] != '\n':
		return []byte(string(d.data) + "\n" + line), nil
	}
	return []byte(string(d.data) + line), nil
}

// without returns the text without the hook's line and without our comments, whether
// linkpin made the file, and the directories that it made for it.
func (d *nriDoc) without() (rest []byte, ours bool, dirs []string) {
	rest = d.data
	if d.hook != "" {
		start := bytes.LastIndexByte(rest[:d.start], '\n') + 1
		end := len(rest)
		if i := bytes.IndexByte(rest[d.end:], '\n'); i >= 0 {
			end = d.end + i + 1
		}
		rest = bytes.Join([][]byte{rest[:start], rest[end:]}, nil)
	}
	before, after, ours := bytes.Cut(rest, []byte(nriHead))
	if !ours {
		return rest, false, nil
	}
	if line, more, ok := bytes.Cut(after, []byte("\n")); ok && bytes.HasPrefix(line, []byte(nriMade)) {
		after, dirs = more, strings.Fields(string(line[len(nriMade):]))
	}
	return append(bytes.Clone(before), after...), true, dirs
}

// nriScalar writes a path as YAML on one line.
func nriScalar(path string) (string, error) {
	text, err := yaml.Marshal(path)
	if err != nil {
		return "", err
	}
	value := strings.TrimSuffix(string(text), "\n")
	if strings.Contains(value, "\n") || strings.HasPrefix(value, "|") || strings.HasPrefix(value, ">") {
		return "", fault.Newf("hook "+path, "can't be written on one line", "choose another path").WithExit(fault.ExitUsage)
	}
	return value, nil
}
