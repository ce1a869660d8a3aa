// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"fmt"
	"maps"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// containerdLists are the keys of a handler that say which annotations hooks see.
var containerdLists = []string{"container_annotations", "pod_annotations"}

// containerdInstalled is what a host's files show of earlier installs.
type containerdInstalled struct {
	blocks []string       // handlers to which lines of ours give the hooks, sorted
	calls  []string       // all handlers that call linkpin, sorted; blocks among them
	raw    containerdTree // the handlers as they are
	runc   bool           // lines of ours keep the built-in runc
	lines  bool           // a file has lines of ours; set by Check
}

// on fills in what may be empty from what is installed on the host, so that whoever
// gives no options means what is there.
func (c Containerd) on(h change.Host) (Containerd, containerdInstalled, error) {
	handler := c.Handler
	if c.Config == "" {
		c.Config = containerdRecoverConfig(h)
	}
	c, err := c.defaults()
	if err != nil {
		return c, containerdInstalled{}, err
	}
	in := c.installed(h)
	if handler == "" && len(in.blocks) > 0 {
		c.Handler = in.blocks[0] // not one that somebody has made by hand
	}
	return c, in, nil
}

// containerdRecoverConfig returns the only configuration that our base specs belong
// to, or the default one.
func containerdRecoverConfig(h change.Host) string {
	names, err := h.ReadDir(containerdSpecs)
	if err != nil {
		return containerdMain
	}
	found := containerdMain
	for _, n := range names {
		name, ok := strings.CutSuffix(n, ".json")
		if !ok {
			continue
		}
		_, escaped, other := strings.Cut(name, "@")
		config, err := url.PathUnescape(escaped)
		switch {
		case !other:
			return containerdMain
		case err != nil || !path.IsAbs(config) || !h.Exists(config):
			continue
		case found != containerdMain && found != config:
			return containerdMain
		}
		found = config
	}
	if main, err := h.Read(containerdMain); err != nil || bytes.Contains(main.Data, []byte(containerdBeginAny)) {
		return containerdMain
	}
	return found
}

// installed looks for what earlier installs have left. Files are merged as by the
// newest containerd, so that what an older one drops is found too. What can't be read
// shows nothing.
func (c Containerd) installed(h change.Host) (in containerdInstalled) {
	raw, err := containerdLoad(containerdFS{Host: h}, c.Config, containerdAny, containerdRaw)
	if err != nil {
		return in
	}
	foreign, err := containerdLoad(containerdFS{Host: h}, c.Config, containerdAny, containerdForeign)
	if err != nil {
		return in
	}
	in.raw = raw.runtimes()
	for _, name := range slices.Sorted(maps.Keys(in.raw)) {
		is, _ := raw.runtime(name)
		was, _ := foreign.runtime(name)
		base, _ := is["base_runtime_spec"].(string)
		ours := slices.ContainsFunc(append([]string{"base_runtime_spec"}, containerdLists...), func(key string) bool {
			return !reflect.DeepEqual(is[key], was[key])
		})
		if ours {
			in.blocks = append(in.blocks, name)
		}
		if ours || c.specCalls(h, base) {
			in.calls = append(in.calls, name)
		}
	}
	_, is := in.raw["runc"]
	_, was := foreign.runtimes()["runc"]
	in.runc = is && !was
	return in
}

// added returns what earlier installs have added to an allow-list: it stands behind
// linkpin's own pattern.
func (in containerdInstalled) added(handler, key string) (keys []string) {
	table, _ := in.raw[handler].(containerdTree)
	list, _ := table[key].([]any)
	i := slices.Index(list, any(containerdOurs))
	if i < 0 || !slices.Contains(in.blocks, handler) {
		return nil
	}
	return stringsOf(list[i+1:])
}

// moves returns an error if an install would take the hooks from another handler.
func (c Containerd) moves(in containerdInstalled) error {
	for _, name := range in.blocks {
		if name != c.Handler {
			return fault.Newf(c.Config, fmt.Sprintf("its runtime handler %q calls linkpin already, and would no longer: pods that use it would go without policies", name),
				fmt.Sprintf("give --handler %s, or run linkpin uninstall containerd first", name)).WithExit(fault.ExitUsage)
		}
	}
	return nil
}

// likely returns the version of containerd for all that can do with a guess: nothing
// of another host is run for it. A configuration tells which one reads it.
func (c Containerd) likely(h change.Host) containerdVersion {
	if c.Version != "" || h.Local() {
		if v, err := c.release(h); err == nil {
			return v
		}
	}
	conf, err := containerdLoad(containerdFS{Host: h}, c.Config, containerdAny, containerdRaw)
	if err != nil {
		return containerdAny
	}
	guess := containerdAny
	switch conf.version {
	case 2:
		guess = containerdVersion{1, 7}
	case 3:
		guess = containerdVersion{2, 2}
	}
	// A file of our own is made for 2.1 and later only.
	own := slices.ContainsFunc(conf.files, func(f containerdFile) bool { return path.Base(f.Path) == containerdDropIn })
	if _, err := containerdLoad(containerdFS{Host: h}, c.Config, guess, containerdRaw); err != nil || own && !guess.atLeast(2, 0) {
		return containerdAny
	}
	return guess
}

// off reports whether the CRI plugin is switched off, or the configuration one that
// linkpin can't serve: of version 1, which a file without a version is. what says it.
func (c Containerd) off(h change.Host) (what string, disabled bool) {
	f, err := h.Read(c.Config)
	if err != nil || f.Missing {
		return "", false
	}
	tree, err := containerdDecode(c.Config, f.Data)
	if err != nil {
		return "", false
	}
	conf := &containerdConfig{files: []containerdFile{{File: f, tree: tree}}}
	if full, err := containerdLoad(containerdFS{Host: h}, c.Config, containerdAny, containerdRaw); err == nil {
		conf = full
	}
	if conf.disabled() {
		return "its CRI plugin is off (disabled_plugins)", true
	}
	if v, _ := tree["version"].(int64); v <= 1 {
		return "is a configuration of version 1 (it has no \"version = 2\"): linkpin knows 2, 3 and 4", false
	}
	return "", false
}

// without returns the configuration without a handler.
func (c *containerdConfig) without(handler string) *containerdConfig {
	next := *c
	next.cri = containerdTree{}
	containerdMerge(next.cri, c.cri)
	if runtimes := next.runtimes(); runtimes != nil {
		if delete(runtimes, handler); len(runtimes) == 0 {
			delete(next.cri, "runtimes")
		}
	}
	return &next
}

// containerdMissing returns what have, which stands at path, lacks of want.
func containerdMissing(at []string, want, have containerdTree) (sets []containerdSet) {
	if have == nil {
		return []containerdSet{{at, want}}
	}
	var subs []string
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if _, sub := want[k].(containerdTree); sub {
			subs = append(subs, k)
		} else if !reflect.DeepEqual(containerdPlain(want[k]), have[k]) {
			sets = append(sets, containerdSet{append(slices.Clone(at), k), want[k]})
		}
	}
	for _, k := range subs { // behind the values: those belong to the header before
		sub, _ := want[k].(containerdTree)
		old, _ := have[k].(containerdTree)
		sets = append(sets, containerdMissing(append(slices.Clone(at), k), sub, old)...)
	}
	return sets
}

// stays returns an error if what is left after Uninstall would keep containerd's CRI
// plugin from starting: lines of the user for a handler that goes, or for others
// beside which the built-in one is not there.
func (c Containerd) stays(raw, rest *containerdConfig) error {
	for _, name := range slices.Sorted(maps.Keys(rest.runtimes())) {
		was, _ := raw.runtime(name)
		is, _ := rest.runtime(name)
		if is["runtime_type"] == nil && was["runtime_type"] != nil {
			return fault.Newf(containerdWhere(rest, name), fmt.Sprintf("is a part of the runtime handler %q, which is to go: containerd's CRI plugin does not start with a handler without runtime_type", name),
				"take these lines out first")
		}
	}
	if !raw.hasDefault() || rest.hasDefault() {
		return nil
	}
	if _, set := rest.cri["default_runtime_name"]; set {
		return fault.Newf(c.Config, fmt.Sprintf("default_runtime_name = %q names the runtime handler that is to go: containerd would not start", rest.defaultRuntime()),
			"let default_runtime_name name another handler first")
	}
	others := slices.Sorted(maps.Keys(rest.runtimes()))
	return fault.Newf(containerdWhere(rest, others[0]), fmt.Sprintf("beside a runtime handler of a file, here %q, containerd has no built-in runc, and linkpin's lines for runc are to go: its CRI plugin would not start", others[0]),
		"write a table runtimes.runc with its runtime_type, or a default_runtime_name")
}

// containerdWhere returns FILE:LINE where a handler's first line stands, blocks aside.
func containerdWhere(conf *containerdConfig, handler string) string {
	for _, f := range slices.Backward(conf.files) {
		doc, err := newContainerdDoc(f.text)
		if err != nil {
			continue
		}
		at := append(containerdPlugin(f.version), "runtimes", handler)
		for _, e := range doc.exprs {
			if !containerdWithin(e.table, at) && !slices.ContainsFunc(e.entries, func(v containerdEntry) bool { return containerdWithin(v.path, at) }) {
				continue
			}
			line := f.text[e.start:e.end]
			for start, l := range containerdLines(f.Data) {
				if bytes.HasSuffix(l, line) { // or what a block of ours has replaced
					return fmt.Sprintf("%s:%d", f.Path, containerdLine(f.Data, start))
				}
			}
		}
	}
	return conf.owner
}

// mentions reports whether the text of the configuration has the path of a hook, or
// that of a base spec of ours that has it. What can't be read may have it.
func (c Containerd) mentions(h change.Host, hook string) bool {
	var text []byte
	names, err := h.ReadDir(containerdSpecs)
	if err != nil {
		return true
	}
	for _, p := range []string{c.Config, path.Join(path.Dir(c.Config), "conf.d", containerdDropIn)} {
		f, err := h.Read(p)
		if err != nil {
			return true
		}
		text = append(text, f.Data...)
	}
	if bytes.Contains(text, []byte(hook)) {
		return true
	}
	for _, n := range names {
		p := path.Join(containerdSpecs, n)
		if !bytes.Contains(text, []byte(p)) {
			continue
		}
		if f, err := h.Read(p); err != nil || bytes.Contains(f.Data, []byte(hook)) {
			return true
		}
	}
	return false
}
