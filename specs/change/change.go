// SPDX-License-Identifier: Apache-2.0

// Package change is what installers share: they plan changes of a host's
// configuration files, and a plan is shown as a diff or made, one atomic file after
// the other, all of it or nothing. It knows nothing of any runtime.
package change

import (
	"bytes"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
)

// Timeouts of hooks, as installers write them. A runtime that kills the hook leaves
// its cleaning up to gc, so its own deadlines must come first: 5 s for reading the
// state, 5 s for locks, 5 s for loading and 30 s for attaching.
const (
	HookTimeout    = 60 * time.Second // what installers write
	HookTimeoutMin = 45 * time.Second // less is a finding of doctor
)

// Target is a program that can be made to call linkpin. Its options are fields of
// the type that implements it. Methods read the host and change nothing.
type Target interface {
	// Name is the word on the command line: "podman".
	Name() string
	// Binaries are the programs of linkpin that the target calls, and where the host
	// has them. Whoever uses the target places them before Install's changes are made,
	// and removes them after those of Uninstall if nobody uses them any more.
	Binaries() []Binary
	// Install plans what is missing. The plan is empty if nothing is.
	Install(h Host) (*Plan, error)
	// Uninstall plans the reverse: what Install wrote goes, everything else stays
	// byte by byte. The plan is empty if nothing is installed.
	Uninstall(h Host) (*Plan, error)
	// Uses reports whether the target's configuration names the binary at path
	// (as the host sees it). An unreadable configuration counts as a use.
	Uses(h Host, path string) bool
	// Check looks for whatever would keep the target from calling linkpin. It
	// returns nothing if the target is not on the host.
	Check(h Host) []Finding
}

// Binary is a program of linkpin on a host.
type Binary struct {
	Name string // "linkpin-hook"
	Path string // absolute, as the host sees it
}

// Level says how bad a Finding is.
type Level string

// The levels of findings.
const (
	OK   Level = "ok"
	Warn Level = "warn" // some containers may go without policies, or will after a change
	Fail Level = "fail" // containers run without policies, or do not start
)

// Finding is what a check says about one thing: one line each.
type Finding struct {
	Level  Level  `json:"level"`
	What   string `json:"what"`             // the object: a file, a runtime
	Detail string `json:"detail"`           // the state, or the cause
	Remedy string `json:"remedy,omitempty"` // what to do about it; empty for OK
}

// Change is what happens to one file.
type Change struct {
	Path string // absolute, as the host sees it
	Old  *File  // as it was when the plan was made; Old.Missing if it was not there
	// New is the content to be; nil removes the file, or the directory if Old.Mode
	// says that it is one and it is empty.
	New  []byte
	Mode fs.FileMode // permissions of a new file; an existing one keeps its own
	// Placed means that the file belongs to root and has Mode, whatever was there.
	Placed bool
}

// Kind is what a change does.
type Kind string

// The kinds of changes.
const (
	Create Kind = "create"
	Update Kind = "update"
	Delete Kind = "remove"
)

// Kind returns what the change does.
func (c Change) Kind() Kind {
	switch {
	case c.removes():
		return Delete
	case c.Old.Missing:
		return Create
	}
	return Update
}

// removes reports whether the change takes a file away.
func (c Change) removes() bool { return c.New == nil }

// Plan is an ordered list of changes. The order is that in which a host is whole
// after each of them: binaries before what names them, and the reverse at the end.
type Plan struct {
	Changes []Change
	Notes   []string // what is left for the user to do, a line each: "restart containerd"
}

// Write plans a file's content. Nothing is planned if the file has it already and
// mode is the executable bit's worth the same. mode counts for new files only.
func (p *Plan) Write(f *File, data []byte, mode fs.FileMode) {
	if !f.Missing && bytes.Equal(f.Data, data) && (mode&0o111 == 0 || f.Mode&0o111 != 0) {
		return
	}
	if data == nil {
		data = []byte{}
	}
	p.Changes = append(p.Changes, Change{Path: f.Path, Old: f, New: data, Mode: mode})
}

// Place plans a program: its content, root as its owner, and mode 0755, whatever is
// there. Nothing is planned if all of that is so.
func (p *Plan) Place(f *File, data []byte) {
	const mode = fs.FileMode(0o755)
	if !f.Missing && bytes.Equal(f.Data, data) && f.UID == 0 && f.GID == 0 && f.Mode == mode {
		return
	}
	p.Changes = append(p.Changes, Change{Path: f.Path, Old: f, New: data, Mode: mode, Placed: true})
}

// Remove plans the removal of a file that is there.
func (p *Plan) Remove(f *File) {
	if !f.Missing {
		p.Changes = append(p.Changes, Change{Path: f.Path, Old: f})
	}
}

// RemoveDir plans the removal of a directory, if it is empty by then.
func (p *Plan) RemoveDir(path string) {
	p.Changes = append(p.Changes, Change{Path: path, Old: &File{Path: path, Mode: fs.ModeDir | 0o755}})
}

// Note adds a line for the user. It is printed once.
func (p *Plan) Note(line string) {
	if !slices.Contains(p.Notes, line) {
		p.Notes = append(p.Notes, line)
	}
}

// Empty reports whether there is nothing to change.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// Append adds another plan's changes and notes after those of p.
func (p *Plan) Append(q *Plan) {
	p.Changes = append(p.Changes, q.Changes...)
	for _, n := range q.Notes {
		p.Note(n)
	}
}

// Host is the machine whose configuration is changed. The zero value is this one.
type Host struct {
	// Dir is its root directory: an image or a chroot. Empty means "/". Symbolic
	// links below it never lead out of it.
	Dir string
}

// Local reports whether the host is the running machine, so that its programs and
// daemons may be asked.
func (h Host) Local() bool { return h.Dir == "" || filepath.Clean(h.Dir) == "/" }

// root is the host's root directory on this machine.
func (h Host) root() string {
	if h.Local() {
		return "/"
	}
	return h.Dir
}
