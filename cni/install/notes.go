// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs/change"
)

// notes says what the plan can't do.
func (c *CNI) notes(h change.Host, plan *change.Plan, conf *config, all []*config) {
	plan.Note("pods get it when they are created: those that run go on without it")
	if who := rewriter(conf); who != "" {
		plan.Note(conf.file.Path + ": " + who)
	}
	for _, other := range all {
		if other != conf && other.err == nil && other.network == conf.network {
			plan.Note(fmt.Sprintf("%s has a network %q too: podman reads only lists, others take the first file", other.file.Path, conf.network))
		}
	}
	if t := dropinAfter(conf); t != "" {
		plan.Note(fmt.Sprintf("%s/%s adds %s behind the list: move it into the list, before %s", c.dir(), conf.network, t, Plugin))
	}
	if c.caller(h) == "" && len(conf.ours()) == 0 {
		plan.Note("the entry does not say which runtime calls it, since the host has none or several: policies that select by caller need it (--caller)")
	}
}

// dropinAfter returns the type of a drop-in plugin that changes the interface after
// our entry.
func dropinAfter(conf *config) string {
	for _, t := range conf.dropins {
		if slices.Contains(later, t) {
			return t
		}
	}
	return ""
}

// rewriter says what is known of the provider of a chain that writes the file itself.
// Some tell by a plugin of theirs, kindnet by the network's name.
func rewriter(conf *config) string {
	for _, t := range append([]string{conf.network}, conf.types...) {
		switch {
		case t == "cilium-cni":
			return "the cilium agent puts its own file back at once: set cni.customConf=true and cni.configMap, and add the entry to that ConfigMap"
		case t == "calico":
			return "calico writes the list anew when its node pod starts: add the entry to cni_network_config of its ConfigMap too, or install again then"
		case t == "flannel":
			return "the flannel DaemonSet copies its list here when its pod starts: add the entry to cni-conf.json of its ConfigMap too, or install again then"
		case strings.HasPrefix(t, "weave-"), t == "aws-cni", t == "azure-vnet", t == "antrea", t == "ovn-k8s-cni-overlay", t == "kindnet":
			return "the network provider writes the list anew when it starts: install again then"
		}
	}
	return ""
}
