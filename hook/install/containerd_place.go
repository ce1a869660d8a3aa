// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// errContainerdLost means that a later file would override what is to be written.
var errContainerdLost = errors.New("a file that is read later overrides it")

// place returns the files that have to change so that the configuration says what is
// wanted; it has checked that containerd, reading them, would see that and else
// nothing new.
func (c Containerd) place(h change.Host, w *containerdWant) ([]containerdPlanned, error) {
	files, err := c.texts(h, w)
	if err != nil {
		return nil, err
	}
	fs := containerdFS{Host: h, planned: map[string][]byte{}}
	for _, f := range files {
		fs.planned[f.Path] = f.text
		if f.gone {
			fs.planned[f.Path] = nil
		}
	}
	got, err := containerdLoad(fs, c.Config, w.conf.daemon, containerdRaw)
	if err != nil {
		return nil, err
	}
	lost := func(what string) error {
		last := c.Config
		if len(got.files) > 0 {
			last = got.files[len(got.files)-1].Path
		}
		return fault.New(what, fmt.Errorf("can't be put into effect: %w", errContainerdLost), "look into the imports, the last of which is "+last)
	}
	if t, _ := got.runtime(c.Handler); !reflect.DeepEqual(containerdPlain(t), containerdPlain(w.table)) {
		return nil, lost(fmt.Sprintf("runtime handler %q", c.Handler))
	}
	for _, name := range append(slices.Collect(maps.Keys(w.conf.runtimes())), "runc") {
		before, _ := w.conf.runtime(name)
		if after, _ := got.runtime(name); name != c.Handler && !reflect.DeepEqual(before, after) {
			return nil, lost(fmt.Sprintf("runtime handler %q", name))
		}
	}
	if got.defaultRuntime() != w.conf.defaultRuntime() {
		return nil, lost("default_runtime_name")
	}
	return files, nil
}

// texts returns the files that have to change.
func (c Containerd) texts(h change.Host, w *containerdWant) ([]containerdPlanned, error) {
	// What stands in blocks of ours goes first: what is outdated must not stay behind.
	files, err := c.stripped(h, w.conf)
	if err != nil {
		return nil, err
	}
	if len(w.sets) == 0 {
		return files, nil
	}
	sets := map[string][]containerdSet{}
	comments := map[string][]string{}
	add := func(p string, version int, list ...containerdSet) {
		for _, s := range list {
			sets[p] = append(sets[p], containerdSet{slices.Concat(containerdPlugin(version), s.path), s.value})
		}
	}
	dropIn, importing := c.dropIn(w.conf)
	version := w.conf.version
	target := c.Config
	switch {
	case dropIn != "":
		target = dropIn
		sets[dropIn] = []containerdSet{{[]string{"version"}, int64(version)}}
		if !importing {
			sets[c.Config] = []containerdSet{{[]string{"imports"}, []any{dropIn}}}
		}
		dir := path.Dir(dropIn)
		if !h.Exists(dir) || slices.Contains(containerdMadeDirs(files), dir) {
			comments[dropIn] = append(comments[dropIn], containerdMade+"directory")
		}
	case len(w.conf.files) > 0:
		target, version = c.owner(w)
	}
	add(target, version, w.sets...)

	var order []string
	for _, p := range []string{dropIn, target, c.Config} { // what is imported is there before it is
		if p != "" && sets[p] != nil && !slices.Contains(order, p) {
			order = append(order, p)
		}
	}
	var out []containerdPlanned
	for _, p := range order {
		f, err := h.Read(p)
		if err != nil {
			return nil, err
		}
		text, ours, err := containerdStrip(p, f.Data)
		if err != nil {
			return nil, err
		}
		if p == c.Config && (f.Missing || containerdMadeFile(text, ours)) {
			// The line stays outside of our block: whoever adds to the file needs it.
			text = fmt.Appendf(nil, "version = %d\n", version)
			comments[p] = append(comments[p], containerdMade+"file")
		}
		if p == dropIn && len(bytes.TrimSpace(text)) > 0 {
			sets[p] = sets[p][1:] // somebody has added to our file: let its version stand
		}
		if text, err = containerdEdit(p, text, sets[p], comments[p], containerdQuote(version)); err != nil {
			return nil, err
		}
		out = append(out, containerdPlanned{File: f, text: containerdKeep(f, text)})
	}
	for _, f := range files {
		if !slices.Contains(order, f.Path) {
			out = append(out, f)
		}
	}
	return out, nil
}

// containerdKeep returns what is in a file if it says what text says: the user may
// have moved our block.
func containerdKeep(f *change.File, text []byte) []byte {
	if f.Missing {
		return text
	}
	have, err := containerdDecode(f.Path, f.Data)
	if err != nil {
		return text
	}
	if want, err := containerdDecode(f.Path, text); err == nil && reflect.DeepEqual(have, want) {
		return f.Data
	}
	return text
}

// dropIn returns where a file of our own goes, if imported files are merged key by
// key, and whether the main file imports it already. It is empty if the main file has
// to be edited: if it does not exist, or has imports that don't reach our file.
//
// `containerd config default` of 2.2 and later writes an import of
// /etc/containerd/conf.d/*.toml into the file, but a main file without imports has
// none: LoadConfig follows those of files only. So the main file gets one, for our
// file alone: others in that directory stay as asleep as they were.
func (c Containerd) dropIn(conf *containerdConfig) (p string, importing bool) {
	if !conf.daemon.atLeast(2, 1) || len(conf.files) == 0 || containerdMadeFile(conf.files[0].text, containerdOurLines(conf.files[0].File)) {
		return "", false
	}
	list, ok := conf.files[0].tree["imports"].([]any)
	if !ok {
		return path.Join(path.Dir(c.Config), "conf.d", containerdDropIn), false
	}
	for _, e := range list {
		pattern, _ := e.(string)
		if !path.IsAbs(pattern) {
			pattern = path.Join(path.Dir(c.Config), pattern)
		}
		dir, base := path.Split(path.Clean(pattern))
		if ok, _ := path.Match(base, containerdDropIn); ok && !strings.ContainsAny(dir, `*?[\`) {
			return path.Join(dir, containerdDropIn), true
		}
	}
	return "", false
}

// owner returns the file to edit and its version: where the handler stands, else
// the file whose table of the CRI plugin counts, else the main file.
func (c Containerd) owner(w *containerdWant) (string, int) {
	target, version := c.Config, w.conf.version
	for _, f := range w.conf.files {
		plugin := containerdPlugin(f.version)
		runtimes := containerdTable(f.tree, append(slices.Clone(plugin), "runtimes"))
		if w.conf.daemon.atLeast(2, 0) && runtimes[c.Handler] == nil ||
			!w.conf.daemon.atLeast(2, 0) && containerdTable(f.tree, plugin[:2]) == nil {
			continue
		}
		target, version = f.Path, f.version
	}
	return target, version
}

// stripped returns the files that hold blocks of ours, without them.
func (c Containerd) stripped(h change.Host, conf *containerdConfig) ([]containerdPlanned, error) {
	files := make([]*change.File, 0, len(conf.files)+1)
	for _, f := range conf.files {
		files = append(files, f.File)
	}
	// The drop-in is found also if nothing imports it any more.
	own, err := h.Read(path.Join(path.Dir(c.Config), "conf.d", containerdDropIn))
	if err != nil {
		return nil, err
	}
	if !own.Missing && !slices.ContainsFunc(files, func(f *change.File) bool { return f.Path == own.Path }) {
		files = append(files, own)
	}
	var out []containerdPlanned
	for _, f := range files {
		text, ours, err := containerdStrip(f.Path, f.Data)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(text, f.Data) {
			continue
		}
		gone := len(bytes.TrimSpace(text)) == 0 || containerdMadeFile(text, ours)
		out = append(out, containerdPlanned{File: f, text: text, gone: gone && f.Path != c.Config || containerdMadeFile(text, ours)})
	}
	return out, nil
}

// containerdOurLines returns the lines of ours in a file.
func containerdOurLines(f *change.File) []string {
	_, ours, err := containerdStrip(f.Path, f.Data)
	if err != nil {
		return nil
	}
	return ours
}

// containerdMadeFile reports whether a file, here without our blocks but for their
// lines, was made by us and holds nothing else.
func containerdMadeFile(text []byte, ours []string) bool {
	return slices.Contains(ours, containerdMade+"file") &&
		bytes.HasPrefix(bytes.TrimSpace(text), []byte("version =")) && bytes.Count(bytes.TrimSpace(text), []byte("\n")) == 0
}

// containerdMadeDirs returns the directories that we made for those of files that go.
func containerdMadeDirs(files []containerdPlanned) []string {
	var dirs []string
	for _, f := range files {
		if f.gone && slices.Contains(containerdOurLines(f.File), containerdMade+"directory") {
			dirs = append(dirs, path.Dir(f.Path))
		}
	}
	return dirs
}
