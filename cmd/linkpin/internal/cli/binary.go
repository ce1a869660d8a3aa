// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// libexec is where installers put programs that no package has put on the host, and
// the receipts of all that they have placed anywhere. Nothing else uses it: packages
// and `make install` have /usr/libexec/linkpin and the like.
const libexec = "/usr/local/libexec/linkpin-installed"

// hookPath returns where the host has linkpin-hook: where the flag says; else where
// a package has put it; else where the installer puts a copy.
func (a *app) hookPath(h change.Host, flag string) (string, error) {
	const name = "linkpin-hook"
	if flag != "" {
		if !filepath.IsAbs(flag) {
			return "", fault.Newf("--hook "+flag, "is not an absolute path", "name it as the host sees it").WithExit(fault.ExitUsage)
		}
		return filepath.Clean(flag), nil
	}
	dirs := []string{"/usr/bin", "/usr/local/bin", "/usr/libexec/linkpin"}
	if h.Local() {
		// The one of this version, if it is not a build tree that will go.
		dirs = nil
		if p := a.Programs + "/"; strings.HasPrefix(p, "/usr/") || strings.HasPrefix(p, "/opt/") {
			dirs = []string{a.Programs}
		}
	}
	for _, dir := range dirs {
		if path := filepath.Join(dir, name); h.Executable(path) {
			return path, nil
		}
	}
	return filepath.Join(libexec, name), nil
}

// placeBinaries plans the copies of the programs that a target calls, where the host
// does not have them, and their receipts. What has no receipt is a package's, or
// somebody else's, and stays as it is. config is what the target itself changes.
func (a *app) placeBinaries(h change.Host, t change.Target, config *change.Plan) (*change.Plan, error) {
	plan := &change.Plan{}
	installed, err := t.Uninstall(h) // its files name the program already
	if err != nil {
		installed = &change.Plan{} // then Install has said why, or can do without
	}
	for _, b := range t.Binaries() {
		r, err := readReceipt(h, b)
		if err != nil {
			return nil, err
		}
		f, err := h.Read(b.Path)
		if err != nil {
			return nil, err
		}
		source, data, err := a.source(h, b)
		if err != nil {
			return nil, err
		}
		if !f.Missing && !r.owns(f) {
			if err := foreign(h, plan, b, f, data); err != nil {
				return nil, err
			}
			continue
		}
		if err := h.Trusted(filepath.Dir(b.Path)); err != nil {
			return nil, err
		}
		if data == nil && f.Missing {
			return nil, fault.Newf(b.Name, "is neither at "+b.Path+" nor where this linkpin has its programs ("+source+")", "build it (make build) or install it (make install)")
		}
		if data == nil {
			data = f.Data
		}
		if hash := sum(data); hash != r.SHA256 {
			r.SHA256, r.Replaces = hash, ""
			if !f.Missing && sum(f.Data) != hash {
				r.Replaces = sum(f.Data)
			}
		}
		r.addFiles(config, before(installed))
		if err := r.write(plan); err != nil {
			return nil, err
		}
		plan.Place(f, data)
	}
	return plan, forget(h, config)
}

// forget takes the receipts of what a plan removes with it.
func forget(h change.Host, plan *change.Plan) error {
	placed, err := receipts(h)
	if err != nil {
		return err
	}
	for _, r := range placed {
		if removes(plan, r.Path) {
			plan.Remove(r.file)
		}
	}
	return nil
}

// removes reports whether a plan takes a file away.
func removes(plan *change.Plan, path string) bool {
	return slices.ContainsFunc(plan.Changes, func(c change.Change) bool { return c.Path == path && c.Kind() == change.Delete })
}

// foreign looks at a program that no installer has placed. data is ours, or nil.
func foreign(h change.Host, plan *change.Plan, b change.Binary, f *change.File, data []byte) error {
	if !h.Executable(b.Path) {
		return fault.Newf(b.Path, "is not executable, and no installer has put it there", "make it executable, or move it away")
	}
	if data != nil && !bytes.Equal(data, f.Data) {
		plan.Note(b.Path + " is another build than that of this linkpin, and was not put there by an installer: it stays as it is")
	}
	return h.Trusted(b.Path)
}

// before turns a plan into one that brings back what it takes away: what it changes is
// there now.
func before(plan *change.Plan) *change.Plan {
	out := &change.Plan{}
	for _, c := range plan.Changes {
		out.Changes = append(out.Changes, change.Change{Path: c.Path, New: c.Old.Data})
	}
	return out
}

// source reads the program that belongs to this linkpin: beside it, or where `make
// install` puts what must not be in a directory of commands. data is nil if there is
// none, or if it is the one that the host has already.
func (a *app) source(h change.Host, b change.Binary) (source string, data []byte, err error) {
	resolved, err := h.Resolve(b.Path)
	if err != nil || a.Programs == "" {
		return b.Name, nil, err
	}
	var looked []string
	for _, dir := range []string{a.Programs, filepath.Join(filepath.Dir(a.Programs), "libexec/linkpin")} {
		source = filepath.Join(dir, b.Name)
		looked = append(looked, source)
		st, err := os.Stat(source)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return source, nil, err
		}
		if there, err := os.Stat(resolved); err == nil && os.SameFile(st, there) {
			return source, nil, nil
		}
		data, err := os.ReadFile(source)
		return source, data, err
	}
	return strings.Join(looked, ", "), nil, nil
}

// keeper is a target that may need its program for a while after it is uninstalled.
type keeper interface {
	Keeps(h change.Host) (reason string)
}

// removeBinaries adds to plan, with which the target takes its configuration back, the
// removal of the programs that installers have placed and nobody calls any more.
func (a *app) removeBinaries(h change.Host, plan *change.Plan, t change.Target) error {
	placed, err := receipts(h)
	if err != nil {
		return err
	}
	if err := foreignPlugin(plan, placed); err != nil {
		return err
	}
	own := t.Binaries()
	for _, r := range placed {
		i := slices.IndexFunc(own, func(b change.Binary) bool { return strings.HasSuffix(filepath.Base(r.Path), b.Name) })
		if i < 0 {
			continue
		}
		if err := r.prune(h, plan); err != nil {
			return err
		}
		used := len(r.Files) > 0
		if !used && !removes(plan, r.Path) { // else it goes with what calls it
			if used, err = a.used(h, plan, t, r); err != nil {
				return err
			}
		}
		if k, ok := t.(keeper); ok && !used && r.Path == own[i].Path {
			if why := k.Keeps(h); why != "" {
				plan.Note(r.Path + " stays: " + why)
				used = true
			}
		}
		if used {
			plan.Changes = slices.DeleteFunc(plan.Changes, func(c change.Change) bool { return c.Path == r.Path })
			if err := r.write(plan); err != nil {
				return err
			}
			continue
		}
		f, err := h.Read(r.Path)
		if err != nil {
			return err
		}
		switch {
		case removes(plan, r.Path): // the target has said when
		case r.owns(f):
			plan.Remove(f)
		case !f.Missing:
			plan.Note(r.Path + " is not what an installer has put there: it stays")
		}
		plan.Remove(r.file)
		plan.RemoveDir(libexec)
	}
	return nil
}

// foreignPlugin refuses a plan that removes a plugin which no installer has placed:
// without its configuration it would refuse every container, and it is not ours to
// remove.
func foreignPlugin(plan *change.Plan, placed []*receipt) error {
	for _, c := range plan.Changes {
		if c.Kind() != change.Delete || !strings.HasSuffix(filepath.Base(c.Path), "-linkpin-nri") {
			continue
		}
		if !slices.ContainsFunc(placed, func(r *receipt) bool { return r.Path == c.Path && r.owns(c.Old) }) {
			return fault.Newf(c.Path, "is a plugin that linkpin install has not put there", "remove it first (its package, if it has one); nothing was changed")
		}
	}
	return nil
}

// used reports whether a target calls a program once plan is made, with which t takes
// its configuration back.
func (a *app) used(h change.Host, plan *change.Plan, t change.Target, r *receipt) (bool, error) {
	all, err := a.targets(h)
	if err != nil {
		return false, err
	}
	for _, other := range all {
		if other.Name() != t.Name() {
			if other.Uses(h, r.Path) {
				return true, nil
			}
			continue
		}
		// The same target without options reads what is still there: it uses what is
		// not in this plan.
		installed, err := other.Uninstall(h)
		if err != nil {
			return true, nil //nolint:nilerr // who can't be asked may use it
		}
		for _, c := range installed.Changes {
			if c.Old.Mode.IsDir() || c.Path == r.Path {
				continue
			}
			if data, err := after(h, plan, c.Path); err != nil || r.namedBy(c.Path, data) {
				return true, nil //nolint:nilerr // as above
			}
		}
	}
	return false, nil
}
