// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// hooksdRuntime is what differs between the runtimes that read hooks directories.
type hooksdRuntime struct {
	name     string // as users write it: "CRI-O"
	caller   specs.Caller
	command  string   // file name of its program
	table    []string // of hooks_dir in its configuration
	defaults []string // its value if no file sets it
	configs  func(change.Host) ([]string, error)
	// dropIn is the configuration file that linkpin adds if no directory of the
	// runtime will do, and private the directory that it then adds to the list.
	dropIn, private string
	// restart is what the user has to do after a change of the configuration.
	restart string
	// malformed is what a runtime does about a file that it can't read.
	malformed string
	other     func() hooksdRuntime
}

// hooksdConfig is what the files of a runtime say about hooks_dir.
type hooksdConfig struct {
	dirs   []string // in effect
	others []string // what would be in effect without linkpin's own drop-in
	late   string   // a file that sets it after the drop-in's place, or ""
}

// programDirs is where packages and people put the programs of runtimes.
var programDirs = []string{"/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin", "/opt/bin"}

// program returns where a host has a program, or "".
func program(h change.Host, name string) string {
	for _, dir := range programDirs {
		if p := path.Join(dir, name); h.Executable(p) {
			return p
		}
	}
	return ""
}

// read evaluates the runtime's configuration as the runtime does: files in order, a
// later list replaces an earlier one. A file that the runtime could not read is an
// error with its line.
func (r hooksdRuntime) read(h change.Host) (hooksdConfig, error) {
	c := hooksdConfig{}
	files, err := r.configs(h)
	if err != nil {
		return c, err
	}
	all := hooksdList{key: "hooks_dir", dirs: r.defaults}
	others := all
	for _, name := range files {
		value, err := configValue(h, name, r.table, all.key)
		if err != nil {
			return c, err
		}
		if value == nil {
			continue
		}
		if err := all.set(name, value); err != nil {
			return c, err
		}
		if name == r.dropIn {
			continue
		}
		if err := others.set(name, value); err != nil {
			return c, err
		}
		if rest, ok := strings.CutPrefix(name, path.Dir(r.dropIn)+"/"); ok && rest > path.Base(r.dropIn) {
			c.late = name
		}
	}
	c.dirs, c.others = all.dirs, others.dirs
	return c, nil
}

// hooksdList is a list of directories that several files set. An element
// {append = true} makes this list and all later ones add to it (containers.conf
// of newer podman; 4.3.1 refuses it).
type hooksdList struct {
	key  string // as the files name it
	dirs []string
	adds bool
}

func (l *hooksdList) set(name string, value any) error {
	list, ok := value.([]any)
	if !ok {
		return configTypeError(name, l.key, value)
	}
	dirs := []string{}
	for _, e := range list {
		switch e := e.(type) {
		case string:
			dirs = append(dirs, e)
		case map[string]any:
			adds, ok := e["append"].(bool)
			if !ok || len(e) != 1 {
				return configTypeError(name, l.key, e)
			}
			l.adds = adds
		default:
			return configTypeError(name, l.key, e)
		}
	}
	if l.adds {
		dirs = append(slices.Clone(l.dirs), dirs...)
	}
	l.dirs = dirs
	return nil
}

func configTypeError(name, key string, value any) error {
	return fault.Newf(name, fmt.Sprintf("%s has the value %v, which is not a list of directories", key, value), "mend it").WithExit(fault.ExitInput)
}

// configValue returns the value of a key in a TOML file, nil if it is not set or
// the file is missing.
func configValue(h change.Host, name string, table []string, key string) (any, error) {
	f, err := h.Read(name)
	if err != nil {
		return nil, err
	}
	var values map[string]any
	if err := toml.Unmarshal(f.Data, &values); err != nil {
		object, cause := name, err
		if at, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, _ := at.Position()
			object += ":" + strconv.Itoa(line)
		}
		return nil, fault.New(object, cause, "mend the TOML; nothing was changed").WithExit(fault.ExitInput)
	}
	for _, t := range table {
		sub, ok := values[t].(map[string]any)
		if !ok {
			if values[t] != nil {
				return nil, fault.Newf(name, t+" is not a table", "mend it").WithExit(fault.ExitInput)
			}
			return nil, nil //nolint:nilnil // not set is neither a value nor an error
		}
		values = sub
	}
	return values[key], nil
}

// usable reports why a directory can't take our files; nil if it can. A missing
// directory can: runtimes pass over it, or make it.
func (r hooksdRuntime) usable(h change.Host, dir string) error {
	if !path.IsAbs(dir) {
		return fault.Newf(dir, "is not an absolute path", "write it with its full path in "+r.name+"'s hooks_dir")
	}
	place, err := h.Resolve(dir)
	if err != nil {
		return err
	}
	st, err := os.Stat(place)
	switch {
	case err == nil && !st.IsDir():
		return fault.Newf(dir, "is not a directory", "take it out of "+r.name+"'s hooks_dir")
	case errors.Is(err, unix.ENOTDIR):
		return fault.New(dir, err, "take it out of "+r.name+"'s hooks_dir")
	}
	for errors.Is(err, fs.ErrNotExist) {
		place = path.Dir(place)
		_, err = os.Stat(place)
	}
	if err != nil {
		return err
	}
	if err := unix.Access(place, unix.W_OK); errors.Is(err, unix.EROFS) {
		return fault.New(dir, err, "remount the file system, or change the image it comes from with --root")
	}
	return nil
}

// reads reports whether the runtime is on the host and reads a directory.
func (r hooksdRuntime) reads(h change.Host, dir string) bool {
	if program(h, r.command) == "" {
		return false
	}
	dirs := r.defaults
	if c, err := r.read(h); err == nil {
		dirs = c.dirs
	}
	return slices.ContainsFunc(dirs, func(d string) bool { return sameDir(h, d, dir) })
}

// sameDir reports whether two paths are one directory.
func sameDir(h change.Host, a, b string) bool {
	if path.Clean(a) == path.Clean(b) {
		return true
	}
	x, errX := h.Resolve(a)
	y, errY := h.Resolve(b)
	return errX == nil && errY == nil && x == y
}

// dropInContent is a TOML file that sets hooks_dir.
func (r hooksdRuntime) dropInContent(dirs []string) []byte {
	var b strings.Builder
	b.WriteString(dropInHead)
	fmt.Fprintf(&b, "[%s]\nhooks_dir = [\n", strings.Join(r.table, "."))
	for _, d := range dirs {
		fmt.Fprintf(&b, "  %s,\n", tomlString(d))
	}
	b.WriteString("]\n")
	return []byte(b.String())
}

// dropInHead is how our drop-ins begin, and how they are known.
const dropInHead = "# Written by linkpin install. A later hooks_dir replaces earlier ones: this list\n" +
	"# repeats theirs, and adds linkpin's directory. After a change of the others,\n" +
	"# run linkpin install again.\n"

// tomlString quotes a string for TOML. Its basic strings know JSON's escapes.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteRune('\\')
			b.WriteRune(c)
		case c < 0x20 || c == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
