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

// libexec is where installers put programs that no package has put on the host.
// Nothing else uses it.
const libexec = "/usr/local/libexec/linkpin"

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
// does not have them.
func (a *app) placeBinaries(h change.Host, plan *change.Plan, t change.Target) error {
	for _, b := range t.Binaries() {
		source, data, err := a.source(h, b)
		if err != nil {
			return err
		}
		if h.Executable(b.Path) && (data == nil || !placed(b)) {
			continue // it is the source itself, or a package's
		}
		if data == nil {
			return fault.Newf(b.Name, "is neither at "+b.Path+" nor beside linkpin ("+source+")", "build it (make build) or install it (make install)")
		}
		f, err := h.Read(b.Path)
		if err != nil {
			return err
		}
		plan.Write(f, data, 0o755)
	}
	return nil
}

// placed reports whether installers may put a program where it is: in their own
// directory, or in one of a runtime's plugins, which must be there and nowhere else.
func placed(b change.Binary) bool {
	return filepath.Dir(b.Path) == libexec || b.Name != "linkpin-hook"
}

// source reads the program that belongs to this linkpin. data is nil if there is
// none, or if it is the one that the host has already.
func (a *app) source(h change.Host, b change.Binary) (source string, data []byte, err error) {
	source = filepath.Join(a.Programs, b.Name)
	resolved, err := h.Resolve(b.Path)
	if err != nil {
		return source, nil, err
	}
	st, err := os.Stat(source)
	if errors.Is(err, os.ErrNotExist) {
		return source, nil, nil
	}
	if err != nil {
		return source, nil, err
	}
	if there, err := os.Stat(resolved); err == nil && os.SameFile(st, there) {
		return source, nil, nil
	}
	data, err = os.ReadFile(source)
	return source, data, err
}

// keeper is a target that may need its program for a while after it is uninstalled.
type keeper interface {
	Keeps(h change.Host) (reason string)
}

// removeBinaries plans the removal of the programs that a target called, where an
// installer has put them and nobody calls them any more.
func (a *app) removeBinaries(h change.Host, plan *change.Plan, t change.Target) error {
	all, err := a.targets(h)
	if err != nil {
		return err
	}
	for _, b := range t.Binaries() {
		if slices.ContainsFunc(all, func(other change.Target) bool { return other.Name() != t.Name() && other.Uses(h, b.Path) }) {
			continue
		}
		f, err := h.Read(b.Path)
		if err != nil {
			return err
		}
		_, data, err := a.source(h, b)
		if err != nil {
			return err
		}
		inLibexec := filepath.Dir(b.Path) == libexec
		if f.Missing || !placed(b) || !inLibexec && !bytes.Equal(data, f.Data) {
			continue // a package's, or one that somebody else has put there
		}
		if k, ok := t.(keeper); ok {
			if why := k.Keeps(h); why != "" {
				plan.Note(b.Path + " stays: " + why)
				continue
			}
		}
		plan.Remove(f)
		if inLibexec {
			plan.RemoveDir(libexec)
		}
	}
	return nil
}
