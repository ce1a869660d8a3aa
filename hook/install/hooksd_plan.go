// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// hooksd is what podman and CRI-O have in common as targets.
type hooksd struct {
	hooksdRuntime
	hook string
	when When // what the user has chosen, or empty
	need When // what the policies in effect need, or empty
}

// hooksdFound is one of our files on a host.
type hooksdFound struct {
	file *change.File
	dir  string
	says *hooksdFile
}

func (t hooksd) valid() error {
	for _, w := range []When{t.when, t.need} {
		if w != "" && w != Always && w != OptIn {
			return fault.Newf(t.Name(), fmt.Sprintf("has no condition %q", string(w)), "use "+string(Always)+" or "+string(OptIn)).WithExit(fault.ExitUsage)
		}
	}
	return hookPath(t.hook)
}

// condition returns what the files should say: what the user chooses; else what they
// say already, if that is enough for the policies; else what the policies need.
func (t hooksd) condition(found []hooksdFound) When {
	switch {
	case t.when != "":
		return t.when
	case t.need == Always:
		return Always
	case len(found) == 0 && t.need == OptIn:
		return OptIn
	case len(found) > 0 && !slices.ContainsFunc(found, func(f hooksdFound) bool { return !f.says.When.optIn() }):
		return OptIn
	}
	return Always
}

// installed returns the target with the condition that its files should have.
func (t hooksd) installed(h change.Host) hooksd {
	c, err := t.read(h)
	if err != nil {
		return t // check says it
	}
	found, err := t.found(h, c)
	if err != nil {
		return t
	}
	t.when = t.condition(found)
	return t
}

// Name is the target's word on the command line.
func (t hooksd) Name() string { return string(t.caller) }

func (t hooksd) install(h change.Host) (*change.Plan, error) {
	if err := t.valid(); err != nil {
		return nil, err
	}
	c, err := t.read(h)
	if err != nil {
		return nil, err
	}
	found, err := t.found(h, c)
	if err != nil {
		return nil, err
	}
	t.when = t.condition(found)
	dir, err := t.choose(h, c, found)
	if err != nil {
		return nil, err
	}
	dropIn, err := t.ownDropIn(h)
	if err != nil {
		return nil, err
	}
	private := dir == t.private

	// Directories that an earlier Install made in the same place stay noted.
	var made []string
	for _, f := range found {
		if sameDir(h, f.dir, dir) {
			made = append(made, f.says.Made...)
		}
	}
	if made, err = addMissing(h, made, dir); err != nil {
		return nil, err
	}
	if private {
		if made, err = addMissing(h, made, path.Dir(t.dropIn)); err != nil {
			return nil, err
		}
	}

	plan := &change.Plan{}
	for _, stage := range hooksdStages {
		p := path.Join(dir, hooksdName(t.caller, stage))
		f, err := h.Read(p)
		if err != nil {
			return nil, err
		}
		if !f.Missing && !slices.ContainsFunc(found, func(o hooksdFound) bool { return sameDir(h, o.dir, dir) && path.Base(o.file.Path) == path.Base(p) }) {
			return nil, fault.Newf(p, "is not linkpin's", "move it away or give it another name")
		}
		content := hooksdContent(t.hook, t.caller, t.when, stage)
		if stage == stageCreate {
			content.Made = made
		}
		data, err := content.bytes()
		if err != nil {
			return nil, err
		}
		plan.Write(f, data, 0o644)
	}
	var stale []hooksdFound
	for _, f := range found {
		if !sameDir(h, f.dir, dir) {
			stale = append(stale, f)
		}
	}
	switch {
	case private:
		if c.late != "" {
			return nil, fault.Newf(c.late, "sets hooks_dir after "+t.dropIn+" would", "add "+t.private+" to its list and run it again")
		}
		data := t.dropInContent(append(slices.Clone(c.others), t.private))
		if dropIn.Missing || !bytes.Equal(dropIn.Data, data) {
			plan.Write(dropIn, data, 0o644)
			t.noteRestart(plan)
		}
	case !dropIn.Missing:
		plan.Remove(dropIn)
		t.noteRestart(plan)
	}
	removeFound(plan, stale)
	return plan, nil
}

func (t hooksd) noteRestart(plan *change.Plan) {
	if t.restart != "" {
		plan.Note(t.restart)
	}
}

func (t hooksd) uninstall(h change.Host) (*change.Plan, error) {
	c, err := t.read(h)
	if err != nil {
		return nil, err
	}
	found, err := t.found(h, c)
	if err != nil {
		return nil, err
	}
	dropIn, err := t.ownDropIn(h)
	if err != nil {
		return nil, err
	}
	plan := &change.Plan{}
	if !dropIn.Missing {
		plan.Remove(dropIn)
		t.noteRestart(plan)
	}
	removeFound(plan, found)
	return plan, nil
}

// removeFound plans the removal of files, and then of the directories that were
// made for them. The file that attaches goes before the one that retires.
func removeFound(plan *change.Plan, found []hooksdFound) {
	for _, f := range slices.Backward(found) {
		plan.Remove(f.file)
	}
	for _, f := range found {
		for _, dir := range f.says.Made {
			plan.Remove(&change.File{Path: dir, Mode: fs.ModeDir | 0o755})
		}
	}
}

// known lists the directories that may hold our files: those in effect, those that
// would be without the drop-in, the defaults and our own.
func (t hooksd) known(h change.Host, c hooksdConfig) []string {
	var dirs []string
	for _, d := range slices.Concat(c.dirs, c.others, t.defaults, []string{"/etc/containers/oci/hooks.d", t.private}) {
		if path.IsAbs(d) && !containsDir(h, dirs, d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// found returns our files in the order of hooksdStages per directory. One that has
// our name and can't be read is an error, since it may be ours; one that somebody
// else has put there is not ours.
func (t hooksd) found(h change.Host, c hooksdConfig) ([]hooksdFound, error) {
	var out []hooksdFound
	for _, dir := range t.known(h, c) {
		for _, stage := range hooksdStages {
			p := path.Join(dir, hooksdName(t.caller, stage))
			f, err := h.Read(p)
			if err != nil {
				return nil, err
			}
			if f.Missing {
				continue
			}
			says, err := hooksdParse(p, f.Data)
			if err != nil {
				return nil, err
			}
			if says.ours(t.hook) {
				ways := []string{dir}
				if sameDir(h, dir, t.private) {
					ways = append(ways, path.Dir(t.dropIn))
				}
				if says.Made, err = leadingTo(h, says.Made, ways...); err != nil {
					return nil, err
				}
				out = append(out, hooksdFound{file: f, dir: dir, says: says})
			}
		}
	}
	return out, nil
}

// ownDropIn reads the drop-in. One that is not linkpin's is an error.
func (t hooksd) ownDropIn(h change.Host) (*change.File, error) {
	f, err := h.Read(t.dropIn)
	if err != nil {
		return nil, err
	}
	if !f.Missing && !bytes.HasPrefix(f.Data, []byte(dropInHead)) {
		return nil, fault.Newf(t.dropIn, "is not linkpin's", "move it away or give it another name")
	}
	return f, nil
}

// choose returns where the files go: where they are if that is fine, else the last
// directory that will do, else our own.
func (t hooksd) choose(h change.Host, c hooksdConfig, found []hooksdFound) (string, error) {
	last := ""
	for _, dir := range slices.Backward(c.others) {
		if t.usable(h, dir) != nil || t.other().reads(h, dir) {
			continue
		}
		if last == "" {
			last = dir
		}
		if t.complete(h, dir, found) && !t.masked(h, c.others, dir) {
			return dir, nil
		}
	}
	if last == "" {
		if err := t.usable(h, t.private); err != nil {
			return "", err
		}
		return t.private, nil
	}
	return last, nil
}

// complete reports whether a directory has our file for each stage.
func (t hooksd) complete(h change.Host, dir string, found []hooksdFound) bool {
	n := 0
	for _, f := range found {
		if sameDir(h, f.dir, dir) {
			n++
		}
	}
	return n == len(hooksdStages)
}

// masked reports whether a later directory has a file with the name of one of ours.
func (t hooksd) masked(h change.Host, dirs []string, dir string) bool {
	i := slices.IndexFunc(dirs, func(d string) bool { return sameDir(h, d, dir) })
	for _, later := range dirs[i+1:] {
		if sameDir(h, later, dir) {
			continue
		}
		for _, stage := range hooksdStages {
			if h.Exists(path.Join(later, hooksdName(t.caller, stage))) {
				return true
			}
		}
	}
	return false
}

// missingDirs lists a directory and those above it that don't exist, innermost first,
// without symbolic links.
func missingDirs(h change.Host, dir string) ([]string, error) {
	root, place, err := placeOf(h, dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for ; place != root; place = filepath.Dir(place) {
		if _, err := os.Lstat(place); err == nil {
			break
		}
		out = append(out, path.Join("/", strings.TrimPrefix(place, root)))
	}
	return out, nil
}

// placeOf returns where the host's root directory and one of its paths are on this
// machine.
func placeOf(h change.Host, p string) (root, place string, err error) {
	if root, err = h.Resolve("/"); err != nil {
		return "", "", err
	}
	place, err = h.Resolve(p)
	return root, place, err
}

// leadingTo keeps of the directories that a file says were made for it those that
// lead to one of dirs. The file may be edited or another's: Uninstall must not remove
// whatever directory somebody writes into it.
func leadingTo(h change.Host, made []string, dirs ...string) ([]string, error) {
	ways := map[string]bool{}
	for _, dir := range dirs {
		root, place, err := placeOf(h, dir)
		if err != nil {
			return nil, err
		}
		for ; place != root; place = filepath.Dir(place) {
			ways[path.Join("/", strings.TrimPrefix(place, root))] = true
		}
	}
	var out []string
	for _, m := range made {
		if ways[m] && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out, nil
}

// addMissing adds to made what is missing of some directories.
func addMissing(h change.Host, made []string, dirs ...string) ([]string, error) {
	for _, dir := range dirs {
		missing, err := missingDirs(h, dir)
		if err != nil {
			return nil, err
		}
		for _, m := range missing {
			if !slices.Contains(made, m) {
				made = append(made, m)
			}
		}
	}
	return made, nil
}
