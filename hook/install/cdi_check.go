// SPDX-License-Identifier: Apache-2.0

package install

import (
	"path"
	"slices"
	"strings"

	cdi "tags.cncf.io/container-device-interface/specs-go"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
)

// cdiDirs are what runtimes read by default; a device in a later one masks that in
// an earlier. /var/run is a link to /run nearly everywhere.
var cdiDirs = []string{cdiDir, "/var/run/cdi"}

// cdiOther is another file beside ours, or a directory that can't be read. spec is nil
// if err is not; runtimes pass over such a file.
type cdiOther struct {
	path string
	spec *cdi.Spec
	err  error
}

func cdiOthers(h change.Host) []cdiOther {
	var out []cdiOther
	for _, dir := range cdiDirs {
		names, err := h.ReadDir(dir)
		if err != nil {
			out = append(out, cdiOther{path: dir, err: err})
			continue
		}
		for _, n := range names {
			p := path.Join(dir, n)
			if ext := path.Ext(n); p == cdiFile || ext != ".json" && ext != ".yaml" {
				continue
			}
			f, err := h.Read(p)
			if err == nil && f.Missing {
				continue // a dangling link, or gone since
			}
			o := cdiOther{path: p, err: err}
			if err == nil {
				o.spec, o.err = cdiParse(p, f.Data)
			}
			out = append(out, o)
		}
	}
	return out
}

// Check looks for what keeps runtimes from offering the policies as devices. It
// returns nothing if the file is not there: devices are an offer, nobody needs them.
func (c CDI) Check(h change.Host) []change.Finding {
	if !h.Exists(cdiFile) {
		return nil
	}
	remedy := "run linkpin install cdi"
	f, _, err := c.own(h)
	if err != nil {
		bad := failing(err)
		bad.Detail += ": no policy can be had as a device"
		return []change.Finding{bad}
	}
	var out []change.Finding
	add := func(level change.Level, detail, remedy string) {
		out = append(out, change.Finding{Level: level, What: cdiFile, Detail: detail, Remedy: remedy})
	}
	s, err := cdiParse(cdiFile, f.Data)
	if err != nil {
		return []change.Finding{failing(err)}
	}
	switch least, err := cdi.MinimumRequiredVersion(s); {
	case len(s.Devices) == 0:
		add(change.Fail, "has no device: runtimes refuse it", remedy)
	case err == nil && s.Version != least:
		add(change.Warn, "has cdiVersion "+s.Version+" where "+least+" would do: old runtimes may refuse it", remedy)
	}

	applied := map[string]bool{}
	for _, p := range c.Policies {
		applied[p.Name] = true
	}
	for _, d := range s.Devices {
		if !applied[d.Name] {
			add(change.Warn, "offers "+d.Name+", and no applied policy of that name is optIn: a container that asks for it is refused", remedy)
		}
		delete(applied, d.Name)
		out = append(out, c.checkDevice(h, d, remedy)...)
	}
	for _, p := range c.Policies {
		if applied[p.Name] {
			add(change.Warn, "does not offer the policy "+p.Name+": a container that asks for it does not start", remedy)
		}
	}
	for _, o := range cdiOthers(h) {
		if o.err != nil {
			bad := change.FindingOf(change.Warn, o.path, o.err, "make it readable")
			bad.Detail += ": runtimes pass over it, so whatever it offers can't be had"
			out = append(out, bad)
			continue
		}
		if o.spec.Kind != cdiKind {
			continue
		}
		detail := "defines devices of " + cdiKind + ", too: it takes the place of " + cdiFile
		if path.Dir(o.path) == cdiDir {
			detail = "defines devices of " + cdiKind + ", too: runtimes refuse a device that two files define"
		}
		out = append(out, change.Finding{Level: change.Fail, What: o.path, Detail: detail, Remedy: "remove it"})
	}
	out = append(out, checkCDIDirs(h)...)
	if len(out) == 0 {
		return []change.Finding{{Level: change.OK, What: cdiFile, Detail: "offers every policy that is optIn"}}
	}
	return uniqueFindings(out)
}

// checkDevice judges the hooks of a device.
func (c CDI) checkDevice(h change.Host, d cdi.Device, remedy string) []change.Finding {
	var out []change.Finding
	add := func(level change.Level, detail, remedy string) {
		out = append(out, change.Finding{Level: level, What: cdiFile, Detail: detail, Remedy: remedy})
	}
	for _, stage := range []string{stageCreate, stagePoststop} {
		i := slices.IndexFunc(d.ContainerEdits.Hooks, func(k *cdi.Hook) bool { return k != nil && k.HookName == stage })
		if i < 0 {
			add(change.Fail, "device "+d.Name+" has no hook for "+stage, remedy)
			continue
		}
		hook := d.ContainerEdits.Hooks[i]
		if c.Hook != "" && hook.Path != c.Hook {
			add(change.Warn, "calls "+hook.Path+" and not "+c.Hook, remedy)
		}
		if !h.Executable(hook.Path) {
			add(change.Fail, hook.Path+" is missing or not executable: containers that ask for a policy do not start", remedy)
		}
		want := []string{stage, "--caller", string(specs.CallerCDI), "--policy", d.Name}
		if len(hook.Args) == 0 || !slices.Equal(hook.Args[1:], want) {
			add(change.Fail, "device "+d.Name+" calls the hook with other arguments than "+strings.Join(want, " "), remedy)
		}
		out = append(out, checkTimeout(cdiFile, hook.Timeout, remedy)...)
	}
	return out
}

// checkCDIDirs looks for runtimes that are configured to read other directories.
// podman knows the setting since 5.0; before that it always reads the default.
func checkCDIDirs(h change.Host) []change.Finding {
	var out []change.Finding
	for _, r := range []hooksdRuntime{podmanRuntime(), crioRuntime()} {
		if program(h, r.command) == "" {
			continue
		}
		files, err := r.configs(h)
		if err != nil {
			out = append(out, failing(err))
			continue
		}
		list := hooksdList{key: "cdi_spec_dirs", dirs: cdiDirs}
		for _, name := range files {
			value, err := configValue(h, name, r.table, list.key)
			if err == nil && value != nil {
				err = list.set(name, value)
			}
			if err != nil {
				out = append(out, failing(err))
			}
		}
		if !containsDir(h, list.dirs, cdiDir) {
			out = append(out, change.Finding{Level: change.Fail, What: r.name, Detail: "reads CDI files from " + strings.Join(list.dirs, ", ") +
				" and not from " + cdiDir, Remedy: "add " + cdiDir + " to cdi_spec_dirs in its configuration"})
		}
	}
	return out
}

// uniqueFindings leaves out what was said before: devices share their hook.
func uniqueFindings(in []change.Finding) []change.Finding {
	var out []change.Finding
	for _, f := range in {
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}
