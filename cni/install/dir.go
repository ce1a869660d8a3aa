// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// maxConfig bounds what is read as a network configuration, in bytes.
const maxConfig = 1 << 20

// config is one file of the directory that runtimes read.
type config struct {
	*list      // nil if err is not
	file       *change.File
	err        error    // why runtimes can't use the file, a *fault.Error
	dropins    []string // types of the plugins that libcni appends from the directory of the network's name
	dropinPath string   // the first of those files that names our plugin, or ""
	linked     bool     // the file is a symbolic link
}

func (c *config) name() string { return path.Base(c.file.Path) }

// single reports whether the file holds one plugin instead of a list.
func (c *config) single() bool { return path.Ext(c.file.Path) != ".conflist" }

// readable reports whether runtimes look at a file of this name (libcni, ConfFiles).
func readable(name string) bool {
	return slices.Contains([]string{".conf", ".conflist", ".json"}, path.Ext(name))
}

// read returns the files that runtimes read, in their order: that of the bytes of the
// names. A directory that is missing has none.
func (c *CNI) read(h change.Host) ([]*config, error) {
	names, err := h.ReadDir(c.dir())
	if err != nil {
		return nil, unread(c.dir(), err)
	}
	var out []*config
	for _, name := range names {
		if !readable(name) {
			continue
		}
		conf, err := readConfig(h, path.Join(c.dir(), name))
		if err != nil {
			return nil, err
		}
		if conf != nil {
			out = append(out, conf)
		}
	}
	return out, nil
}

// readConfig reads one file; nil if it is a directory, which runtimes pass over.
func readConfig(h change.Host, p string) (*config, error) {
	resolved, err := h.Resolve(p)
	if err != nil {
		return nil, err
	}
	dir, err := h.Resolve(path.Dir(p))
	if err != nil {
		return nil, err
	}
	if st, err := os.Stat(resolved); err == nil && st.IsDir() {
		return nil, nil
	}
	file, err := h.Read(p)
	if err != nil && !errors.Is(err, change.ErrNotFile) {
		return nil, unread(p, err)
	}
	c := &config{file: file, linked: resolved != filepath.Join(dir, path.Base(p))}
	switch {
	case err != nil:
		c.file, c.err = &change.File{Path: p}, err
	case file.Missing && c.linked:
		c.err = fault.Newf(p, "is a symbolic link to nothing: containerd takes no network at all then", "remove it")
	case file.Missing:
		return nil, nil // it went in the meantime
	case len(file.Data) > maxConfig:
		c.err = fault.Newf(p, fmt.Sprintf("is larger than %d bytes", maxConfig), "is it a network configuration?")
	case c.single():
		c.list, err = parseSingle(file.Data)
	default:
		c.list, err = parseList(file.Data)
	}
	if err != nil && c.err == nil {
		c.err = located(p, file.Data, err)
	}
	if c.err == nil && !c.single() {
		c.readDropins(h)
	}
	return c, nil
}

// unread says why something could not be read.
func unread(p string, err error) error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	return fault.New(p, err, "run it as root")
}

// readDropins reads what libcni appends to a list since 1.3: the plugins of the
// directory that has the network's name.
func (c *config) readDropins(h change.Host) {
	if v := exact(c.root, "loadOnlyInlinedPlugins"); v != nil && bytes.Contains(bytes.ToLower(c.src[v.start:v.end]), []byte("true")) {
		return
	}
	dir := path.Join(path.Dir(c.file.Path), c.network)
	names, err := h.ReadDir(dir)
	if err != nil || c.network == ".." || c.network == "." {
		return
	}
	for _, name := range names {
		if path.Ext(name) != ".conf" {
			continue
		}
		f, err := h.Read(path.Join(dir, name))
		if err != nil || f.Missing || len(f.Data) > maxConfig {
			continue
		}
		t := typeOf(f.Data)
		c.dropins = append(c.dropins, t)
		if t == Plugin && c.dropinPath == "" {
			c.dropinPath = f.Path
		}
	}
}

// located turns the errors of this package into what a user sees: the file, the line,
// the remedy.
func located(p string, src []byte, err error) error {
	var syntax *syntaxError
	var entry *entryError
	switch {
	case errors.As(err, &syntax):
		return fault.New(fmt.Sprintf("%s:%d", p, syntax.line), syntax.cause, "correct the file").WithExit(fault.ExitInput)
	case errors.As(err, &entry):
		return fault.Newf(fmt.Sprintf("%s:%d", p, lineOf(src, entry.at)), entry.cause, entry.remedy).WithExit(fault.ExitInput)
	}
	return fault.New(p, err, "")
}
