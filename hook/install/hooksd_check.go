// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/linkpin/linkpin/specs/change"
)

// check is Check of podman and CRI-O.
func (t hooksd) check(h change.Host) []change.Finding {
	present := program(h, t.command) != ""
	c, err := t.read(h)
	if err != nil {
		if !present && !t.traces(h) {
			return nil
		}
		return []change.Finding{failing(err)}
	}
	var out []change.Finding
	out = append(out, t.checkDirs(h, c)...)
	placed, more := t.checkPlaces(h, c)
	out = append(out, more...)
	if !present && len(placed) == 0 && len(more) == 0 && !h.Exists(t.dropIn) {
		return nil // what lies in shared directories is others' business
	}
	if len(placed) == 0 && len(more) == 0 {
		return append(out, change.Finding{Level: change.Warn, What: t.name, Detail: "does not call linkpin",
			Remedy: t.remedy() + " if its containers should have policies"})
	}
	for _, stage := range hooksdStages {
		f, ok := placed[stage]
		if !ok {
			out = append(out, change.Finding{Level: change.Fail, What: t.name, Detail: "does not call linkpin at " + stage +
				": no directory that it reads has " + hooksdName(t.caller, stage), Remedy: t.remedy()})
			continue
		}
		out = append(out, t.checkFile(h, stage, f)...)
	}
	out = append(out, t.checkDropIn(h, c)...)
	if !slices.ContainsFunc(out, func(f change.Finding) bool { return f.Level != change.OK }) {
		out = append(out, change.Finding{Level: change.OK, What: t.name,
			Detail: "calls " + t.hook + " (" + placed[stageCreate].dir + ")"})
	}
	return out
}

func (t hooksd) remedy() string { return "run linkpin install " + string(t.caller) }

// traces reports whether one of our files may be on a host whose configuration
// can't be read.
func (t hooksd) traces(h change.Host) bool {
	for _, dir := range t.known(h, hooksdConfig{}) {
		for _, stage := range hooksdStages {
			if h.Exists(path.Join(dir, hooksdName(t.caller, stage))) {
				return true
			}
		}
	}
	return h.Exists(t.dropIn)
}

// failing turns an error into a finding.
func failing(err error) change.Finding {
	return change.FindingOf(change.Fail, "", err, "make it readable")
}

// checkDirs judges the directories that the runtime reads and what others have put
// there: one bad file is enough to stop all containers.
func (t hooksd) checkDirs(h change.Host, c hooksdConfig) []change.Finding {
	var out []change.Finding
	for _, dir := range c.dirs {
		if !path.IsAbs(dir) || h.Exists(dir) && !hostDir(h, dir) {
			out = append(out, change.Finding{Level: change.Fail, What: t.name + " hooks_dir",
				Detail: fmt.Sprintf("%q is not the absolute path of a directory", dir), Remedy: "mend hooks_dir in its configuration"})
			continue
		}
		names, err := h.ReadDir(dir)
		if err != nil {
			out = append(out, failing(err))
			continue
		}
		for _, n := range names {
			if !strings.HasSuffix(n, ".json") {
				continue
			}
			p := path.Join(dir, n)
			f, err := h.Read(p)
			if err == nil && f.Missing {
				continue // a dangling link; the runtime passes over it
			}
			var says *hooksdFile
			if err == nil {
				says, err = hooksdParse(p, f.Data)
			}
			if err != nil {
				bad := failing(err)
				bad.Detail += ": " + t.malformed
				out = append(out, bad)
				continue
			}
			if says.Hook.Path != "" && !h.Exists(says.Hook.Path) && !t.isName(n) {
				out = append(out, change.Finding{Level: change.Warn, What: p,
					Detail: t.name + " silently leaves the hook out: there is no " + says.Hook.Path, Remedy: "install that program, or remove the file"})
			}
		}
	}
	return out
}

func (t hooksd) isName(name string) bool {
	return slices.ContainsFunc(hooksdStages, func(s string) bool { return hooksdName(t.caller, s) == name })
}

// checkPlaces returns for each stage the file that is in effect, if it is ours, and
// findings about files of the same name in other places.
func (t hooksd) checkPlaces(h change.Host, c hooksdConfig) (map[string]hooksdFound, []change.Finding) {
	placed := map[string]hooksdFound{}
	var out []change.Finding
	for _, stage := range hooksdStages {
		var seen []hooksdFound // ours, in order of reading, then those that nobody reads
		name := hooksdName(t.caller, stage)
		for _, dir := range t.known(h, c) {
			p := path.Join(dir, name)
			f, err := h.Read(p)
			if err != nil || f.Missing {
				continue
			}
			says, err := hooksdParse(p, f.Data)
			if err != nil {
				if !containsDir(h, c.dirs, dir) {
					out = append(out, failing(err)) // otherwise checkDirs has said it
				}
				continue
			}
			seen = append(seen, hooksdFound{file: f, dir: dir, says: says})
		}
		read := slices.DeleteFunc(slices.Clone(seen), func(f hooksdFound) bool { return !containsDir(h, c.dirs, f.dir) })
		// In a list that names a directory twice, its last place counts.
		slices.SortStableFunc(read, func(a, b hooksdFound) int { return lastIndex(h, c.dirs, a.dir) - lastIndex(h, c.dirs, b.dir) })
		for _, f := range seen {
			if f.says.ours(t.hook) && !containsDir(h, c.dirs, f.dir) {
				out = append(out, change.Finding{Level: change.Fail, What: f.file.Path,
					Detail: t.name + " does not read this directory; it reads " + strings.Join(c.dirs, ", "), Remedy: t.remedy()})
			}
		}
		if len(read) == 0 {
			continue
		}
		winner := read[len(read)-1]
		if winner.says.ours(t.hook) {
			placed[stage] = winner
		}
		for _, f := range read[:len(read)-1] {
			switch {
			case !f.says.ours(t.hook):
			case winner.says.ours(t.hook):
				out = append(out, change.Finding{Level: change.Warn, What: f.file.Path,
					Detail: "is masked by " + winner.file.Path, Remedy: t.remedy() + ", which removes it"})
			default:
				out = append(out, change.Finding{Level: change.Fail, What: f.file.Path,
					Detail: "is masked by " + winner.file.Path + ", which is not linkpin's: the hook is not called", Remedy: "move that file away"})
			}
		}
		if len(read) == 1 && !winner.says.ours(t.hook) {
			out = append(out, change.Finding{Level: change.Fail, What: winner.file.Path,
				Detail: "has linkpin's name and is not linkpin's", Remedy: "move it away, then " + t.remedy()})
		}
	}
	return placed, out
}

func lastIndex(h change.Host, dirs []string, dir string) int {
	last := -1
	for i, d := range dirs {
		if sameDir(h, d, dir) {
			last = i
		}
	}
	return last
}

// checkFile judges a file of ours that the runtime reads.
func (t hooksd) checkFile(h change.Host, stage string, f hooksdFound) []change.Finding {
	var out []change.Finding
	add := func(level change.Level, remedy, detail string, args ...any) {
		out = append(out, change.Finding{Level: level, What: f.file.Path, Detail: fmt.Sprintf(detail, args...), Remedy: remedy})
	}
	hook := f.says.Hook
	if t.hook != "" && hook.Path != t.hook {
		add(change.Warn, t.remedy(), "calls %s and not %s", hook.Path, t.hook)
	}
	switch {
	case !h.Exists(hook.Path):
		add(change.Fail, t.remedy(), "there is no %s: %s silently leaves the hook out, containers run without policies", hook.Path, t.name)
	case !h.Executable(hook.Path):
		add(change.Fail, "make it executable", "%s can't be executed: containers do not start", hook.Path)
	}
	out = append(out, checkTimeout(f.file.Path, hook.Timeout, t.remedy())...)

	want := hooksdContent(hook.Path, t.caller, t.when, stage)
	if !slices.Equal(f.says.Stages, want.Stages) {
		add(change.Fail, t.remedy(), "is for the stages %s and not for %s alone", strings.Join(f.says.Stages, ", "), stage)
	}
	if len(hook.Args) == 0 || !slices.Equal(hook.Args[1:], want.Hook.Args[1:]) {
		add(change.Fail, t.remedy(), "calls the hook with the arguments %q and not %q", hook.Args, want.Hook.Args)
	}
	w := f.says.When
	switch {
	case w.always():
	case w.optIn() && t.when == OptIn:
	case w.optIn():
		add(change.Fail, t.remedy()+" for all containers", "calls the hook only for containers with the annotation: policies that select by themselves are missed")
	default:
		add(change.Fail, t.remedy(), "has conditions that are not linkpin's: containers that do not meet them run without policies")
	}
	if other := t.other(); other.reads(h, f.dir) {
		add(change.Fail, t.remedy(), "%s reads %s, too: its containers would be taken for those of %s", other.name, f.dir, t.name)
	}
	return out
}

// checkTimeout judges a hook's timeout in seconds.
func checkTimeout(what string, timeout *int, remedy string) []change.Finding {
	switch least := int(hookTimeoutMin / time.Second); {
	case timeout == nil:
		return []change.Finding{{Level: change.Warn, What: what, Detail: "sets no timeout: a hook that hangs blocks its container for ever", Remedy: remedy}}
	case *timeout < least:
		return []change.Finding{{Level: change.Fail, What: what,
			Detail: fmt.Sprintf("sets a timeout of %d s: the runtime kills the hook while it may still be at work, for up to %d s", *timeout, least), Remedy: remedy}}
	}
	return nil
}

// always reports whether the conditions are met by every container.
func (w hooksdWhen) always() bool {
	return w.Always != nil && *w.Always && len(w.Annotations) == 0 && len(w.Commands) == 0 && w.HasBindMounts == nil
}

// optIn reports whether the conditions are met by every container with the annotation.
func (w hooksdWhen) optIn() bool {
	return (w.Always == nil || *w.Always) && len(w.Annotations) == 1 && w.Annotations[hooksdOptInKey] == ".*" &&
		len(w.Commands) == 0 && w.HasBindMounts == nil
}

// checkDropIn looks whether our list still repeats those of the others.
func (t hooksd) checkDropIn(h change.Host, c hooksdConfig) []change.Finding {
	f, err := t.ownDropIn(h)
	if err != nil {
		return []change.Finding{failing(err)}
	}
	if f.Missing {
		return nil
	}
	if want := append(slices.Clone(c.others), t.private); !bytes.Equal(f.Data, t.dropInContent(want)) {
		return []change.Finding{{Level: change.Warn, What: t.dropIn,
			Detail: "does not repeat what hooks_dir is without it (" + strings.Join(c.others, ", ") + "): hooks of others may be left out", Remedy: t.remedy()}}
	}
	return nil
}

// uses reports whether a file of ours names a program. What can't be read counts.
func (t hooksd) uses(h change.Host, program string) bool {
	c, err := t.read(h)
	if err != nil {
		return true
	}
	for _, dir := range t.known(h, c) {
		for _, stage := range hooksdStages {
			p := path.Join(dir, hooksdName(t.caller, stage))
			f, err := h.Read(p)
			if errors.Is(err, fs.ErrNotExist) || err == nil && f.Missing {
				continue
			}
			if err != nil {
				return true
			}
			if says, err := hooksdParse(p, f.Data); err != nil || says.Hook.Path == program {
				return true
			}
		}
	}
	return false
}
