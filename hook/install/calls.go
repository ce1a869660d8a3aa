// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/linkpin/linkpin/specs/change"
)

// containerdAny stands for a containerd that is not there: it reads all versions of
// configuration files that linkpin knows.
var containerdAny = containerdVersion{2, 3}

// Calls returns the hook that podman is configured to call, or "" if there is none or
// it can't be told.
func (p Podman) Calls(h change.Host) string { return p.hooksd().calls(h) }

// Calls returns the hook that CRI-O is configured to call, or "" if there is none or
// it can't be told.
func (c CRIO) Calls(h change.Host) string { return c.hooksd().calls(h) }

func (t hooksd) calls(h change.Host) string {
	c, err := t.read(h)
	if err != nil {
		return ""
	}
	found, err := t.found(h, c)
	if err != nil {
		return ""
	}
	for _, f := range found {
		return f.says.Hook.Path
	}
	return ""
}

// Calls returns the hook that our devices call, or "" if there is none or it can't be
// told.
func (c CDI) Calls(h change.Host) string {
	f, err := h.Read(cdiFile)
	if err != nil || f.Missing {
		return ""
	}
	s, err := cdiParse(cdiFile, f.Data)
	if err != nil {
		return ""
	}
	for _, d := range s.Devices {
		for _, k := range d.ContainerEdits.Hooks {
			if k != nil {
				return k.Path
			}
		}
	}
	return ""
}

// Calls returns the hook that a runtime handler's base spec names, or "" if there is
// none or it can't be told.
func (c Containerd) Calls(h change.Host) string {
	c, _, err := c.on(h)
	if err != nil {
		return ""
	}
	for hook, err := range c.hooks(h) {
		if err == nil {
			return hook
		}
	}
	return ""
}

// hooks yields the hooks that the base specs of all runtime handlers name, and an
// error for what can't be read. c has its defaults.
func (c Containerd) hooks(h change.Host) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		conf, err := containerdLoad(containerdFS{Host: h}, c.Config, c.likely(h), containerdRaw)
		if err != nil {
			yield("", err)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(conf.runtimes())) {
			t, _ := conf.runtime(name)
			p, _ := t["base_runtime_spec"].(string)
			if p == "" {
				continue
			}
			f, err := h.Read(p)
			var spec map[string]any
			if err == nil {
				spec, err = containerdParseSpec(f.Data) // of a missing file too
			}
			if err != nil {
				if !yield("", fmt.Errorf("%s: %w", p, err)) {
					return
				}
				continue
			}
			hooks := containerdHooks(spec)
			for _, stage := range containerdStages {
				if call, ok := hooks[stage]; ok && !yield(call.path, nil) {
					return
				}
			}
		}
	}
}

// Calls returns the hook that the plugin is configured to inject, or "" if there is
// none or it can't be told.
func (n NRI) Calls(h change.Host) string {
	f, err := h.Read(n.file())
	if err != nil || f.Missing {
		return ""
	}
	doc, err := nriParse(f)
	if err != nil {
		return ""
	}
	return doc.hook
}
