// SPDX-License-Identifier: Apache-2.0

package install

import "github.com/linkpin/linkpin/specs/change"

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
	c, err := c.defaults()
	if err != nil {
		return ""
	}
	daemon, err := c.release(h)
	if err != nil {
		return ""
	}
	conf, err := containerdLoad(containerdFS{Host: h}, c.Config, daemon, containerdRaw)
	if err != nil {
		return ""
	}
	for name := range conf.runtimes() {
		t, _ := conf.runtime(name)
		p, _ := t["base_runtime_spec"].(string)
		if p == "" {
			continue
		}
		f, err := h.Read(p)
		if err != nil || f.Missing {
			continue
		}
		if spec, err := containerdParseSpec(f.Data); err == nil {
			for _, call := range containerdHooks(spec) {
				return call.path
			}
		}
	}
	return ""
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
