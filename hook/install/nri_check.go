// SPDX-License-Identifier: Apache-2.0

package install

import (
	"path"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs/change"
)

// nriPlugin is NRI in containerd's configuration, in all its versions.
const nriPlugin = "io.containerd.nri.v1.nri"

// Check looks for what keeps the runtime from starting the plugin, or the plugin from
// its work. It returns nothing if neither plugin nor configuration is there.
func (n NRI) Check(h change.Host) []change.Finding {
	copies, err := n.copies(h)
	if err != nil {
		return []change.Finding{change.FindingOf(change.Fail, n.pluginDir(), err, "make it readable")}
	}
	if !h.Exists(n.file()) && len(copies) == 0 {
		return nil
	}
	out := append(n.checkPlugin(h, copies), n.checkFile(h)...)
	out = append(out, n.checkContainerd(h)...)
	out = append(out, nriCheckCRIO(h)...)
	if len(out) == 0 {
		out = append(out, change.Finding{Level: change.OK, What: n.plugin(), Detail: "puts linkpin's hooks into all containers"})
	}
	return out
}

// copies returns the names of linkpin's plugins in the plugin directory.
func (n NRI) copies(h change.Host) ([]string, error) {
	names, err := h.ReadDir(n.pluginDir())
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool {
		return name != nriName && !strings.HasSuffix(name, "-"+nriName)
	}), nil
}

func nriFail(what, detail, remedy string) change.Finding {
	return change.Finding{Level: change.Fail, What: what, Detail: detail, Remedy: remedy}
}

func (n NRI) checkPlugin(h change.Host, copies []string) []change.Finding {
	var out []change.Finding
	if !h.Executable(n.plugin()) {
		out = append(out, nriFail(n.plugin(), "is missing or not executable: containers run without policies", "run linkpin install nri, then restart the runtime"))
	}
	for _, name := range copies {
		p := path.Join(n.pluginDir(), name)
		switch index, _, indexed := strings.Cut(name, "-"+nriName); {
		case p == n.plugin() || !h.Executable(p):
		case name == nriName || !indexed || !nriIndex.MatchString(index):
			out = append(out, nriFail(p, "has no index in its name: the runtime starts none of the plugins", "remove it"))
		default:
			out = append(out, change.Finding{Level: change.Warn, What: p, Detail: "is a second copy of the plugin", Remedy: "remove it and restart the runtime"})
		}
	}
	return out
}

func (n NRI) checkFile(h change.Host) []change.Finding {
	// The runtime prefers a file that is named with the index (getPluginConfig).
	file := path.Join(path.Dir(n.file()), path.Base(n.plugin())+".conf")
	var out []change.Finding
	if !h.Exists(file) {
		file = n.file()
	} else {
		out = append(out, change.Finding{Level: change.Warn, What: file, Detail: "is read instead of " + n.file(), Remedy: "remove it"})
	}
	f, err := h.Read(file)
	if err != nil {
		return append(out, failing(err))
	}
	doc, err := nriParse(f)
	if err != nil {
		return append(out, failing(err))
	}
	hook := nriOr(doc.hook, "/usr/local/bin/"+hookName)
	if !h.Executable(hook) {
		out = append(out, nriFail(hook, "is missing or not executable: no container is created", "run linkpin install nri"))
	}
	return out
}

// checkContainerd judges containerd's configuration, if containerd is on the host.
func (n NRI) checkContainerd(h change.Host) []change.Finding {
	const table = `[plugins."` + nriPlugin + `"]`
	c := Containerd{Version: n.Version, Daemon: n.Daemon}
	if n.Version == "" && c.daemon(h) == "" {
		return nil
	}
	version, err := c.release(h)
	if err != nil {
		return []change.Finding{failing(err)}
	}
	if !version.atLeast(1, 7) {
		return []change.Finding{nriFail("containerd "+version.String(), "has no NRI: containers run without policies", "use linkpin install containerd, or containerd 1.7 or newer")}
	}
	main := nriOr(n.Config, containerdMain)
	conf, err := containerdLoad(containerdFS{Host: h}, main, version, containerdRaw)
	if err != nil {
		return []change.Finding{failing(err)}
	}
	t := containerdTree{}
	var out []change.Finding
	for _, f := range conf.files {
		if off, _ := f.tree["disabled_plugins"].([]any); slices.Contains(off, any(nriPlugin)) {
			out = append(out, nriFail(f.Path, "disables "+nriPlugin+": containers run without policies", "take it out of disabled_plugins and restart containerd"))
		}
		own := containerdTable(f.tree, []string{"plugins", nriPlugin})
		if own != nil && !version.atLeast(2, 0) {
			t = containerdTree{} // replaced as a whole
		}
		containerdMerge(t, own)
	}
	// Off by default in 1.7, on from 2.0 (DefaultConfig in pkg/nri, internal/nri).
	if disabled, said := t["disable"].(bool); disabled || !said && !version.atLeast(2, 0) {
		out = append(out, nriFail(main, "leaves NRI switched off: containers run without policies", "set disable = false in "+table+" and restart containerd"))
	}
	for key, want := range map[string]string{"plugin_path": n.pluginDir(), "plugin_config_path": path.Dir(n.file())} {
		if dir, said := t[key].(string); said && path.Clean(dir) != want {
			out = append(out, nriFail(main, key+" is "+dir+", and linkpin's plugin is installed for "+want, "install it for that directory, or take "+key+" out"))
		}
	}
	return append(out, nriCheckValidator(main, version, containerdTable(t, []string{"default_validator"}))...)
}

// nriCheckValidator judges containerd's own validator. It came with NRI 0.10, in
// containerd 2.2.
func nriCheckValidator(main string, version containerdVersion, t containerdTree) []change.Finding {
	const without = "containers run without policies while the plugin is away"
	if !version.atLeast(2, 2) {
		return []change.Finding{{
			Level: change.Warn, What: "containerd " + version.String(), Detail: "can't require NRI plugins: " + without,
			Remedy: "use linkpin install containerd, or containerd 2.2 or newer",
		}}
	}
	on, _ := t["enable"].(bool)
	reject, _ := t["reject_oci_hook_adjustment"].(bool)
	required, _ := t["required_plugins"].([]any)
	tolerate, _ := t["tolerate_missing_plugins_annotation"].(string)
	const table = `[plugins."` + nriPlugin + `".default_validator]`
	switch {
	case on && reject:
		return []change.Finding{nriFail(main, "refuses plugins that add hooks (reject_oci_hook_adjustment): no container is created", "take reject_oci_hook_adjustment out")}
	case !on || !slices.Contains(required, any(nriName)):
		return []change.Finding{{
			Level: change.Warn, What: main, Detail: "does not require the plugin: " + without,
			Remedy: `set enable = true and required_plugins = ["` + nriName + `"] in ` + table + " and restart containerd",
		}}
	case tolerate != "":
		return []change.Finding{{
			Level: change.Warn, What: main, Detail: "lets pods with the annotation " + tolerate + " do without the plugin while it is away",
			Remedy: "take tolerate_missing_plugins_annotation out, unless the pods of this node's control plane need it",
		}}
	}
	return nil
}

// nriCheckCRIO looks for NRI that is switched off. CRI-O has it on by default.
func nriCheckCRIO(h change.Host) []change.Finding {
	files, err := crioConfigs(h)
	if err != nil {
		return []change.Finding{failing(err)}
	}
	off := ""
	for _, name := range files {
		f, err := h.Read(name)
		if err != nil || f.Missing {
			continue // CRI-O's own target judges its files
		}
		tree, err := containerdDecode(name, f.Data)
		if err != nil {
			continue
		}
		if on, said := containerdTable(tree, []string{"crio", "nri"})["enable_nri"].(bool); said {
			off = name
			if on {
				off = ""
			}
		}
	}
	if off == "" {
		return nil
	}
	return []change.Finding{nriFail(off, "switches NRI off (enable_nri): CRI-O does not start the plugin", "take enable_nri out, or use linkpin install crio")}
}
