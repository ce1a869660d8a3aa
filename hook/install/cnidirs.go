// SPDX-License-Identifier: Apache-2.0

package install

import (
	"slices"

	"github.com/linkpin/linkpin/specs/change"
)

// CNIDirs are the directories in which a host's runtimes look for CNI networks and
// plugins. What no configuration says is empty.
type CNIDirs struct {
	Conf string
	Bin  []string
}

// ConfiguredCNI reads them from containerd's configuration, or else from CRI-O's. A
// configuration that can't be read says nothing here: the checks of its own target
// report it.
func ConfiguredCNI(h change.Host) CNIDirs {
	d := containerdCNI(h)
	c := crioCNI(h)
	if d.Conf == "" {
		d.Conf = c.Conf
	}
	for _, dir := range c.Bin {
		if !slices.Contains(d.Bin, dir) {
			d.Bin = append(d.Bin, dir)
		}
	}
	return d
}

// containerdCNI reads the table "cni" of the CRI plugin: conf_dir, and bin_dir or,
// since containerd 2.1, bin_dirs.
func containerdCNI(h change.Host) CNIDirs {
	var d CNIDirs
	c, _, err := Containerd{}.on(h)
	if err != nil {
		return d
	}
	// Each file's own version says where its table is: no daemon has to be asked.
	conf, err := containerdLoad(containerdFS{Host: h}, c.Config, containerdAny, containerdRaw)
	if err != nil {
		return d
	}
	for _, f := range conf.files {
		plugin := containerdPlugin(f.version)
		cni := containerdTable(f.tree, []string{plugin[0], plugin[1], "cni"})
		if s, _ := cni["conf_dir"].(string); s != "" {
			d.Conf = s
		}
		if s, _ := cni["bin_dir"].(string); s != "" {
			d.Bin = []string{s}
		}
		if list, _ := cni["bin_dirs"].([]any); len(list) > 0 {
			d.Bin = stringsOf(list)
		}
	}
	return d
}

// crioCNI reads the table crio.network: network_dir and plugin_dirs.
func crioCNI(h change.Host) CNIDirs {
	var d CNIDirs
	files, err := crioConfigs(h)
	if err != nil {
		return d
	}
	for _, name := range files {
		table := []string{"crio", "network"}
		if v, err := configValue(h, name, table, "network_dir"); err == nil {
			if s, _ := v.(string); s != "" {
				d.Conf = s
			}
		}
		if v, err := configValue(h, name, table, "plugin_dirs"); err == nil {
			if list, _ := v.([]any); len(list) > 0 {
				d.Bin = stringsOf(list)
			}
		}
	}
	return d
}

func stringsOf(list []any) []string {
	var out []string
	for _, v := range list {
		if s, ok := v.(string); ok && s != "" {
			out = append(out, s)
		}
	}
	return out
}
