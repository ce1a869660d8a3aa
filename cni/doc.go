// SPDX-License-Identifier: Apache-2.0

// Package cni is the CNI side of linkpin: a chained plugin that attaches the
// interface and namespace programs of the selected policies when an interface is
// added to a sandbox, and retires them when it is deleted (CNI spec 0.3.0 to 1.1).
// It changes nothing of the network and returns the previous result as it came.
package cni

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs/applied"
)

// Plugin carries the roots of one invocation. The zero value means the real
// places; they are set by tests only.
type Plugin struct {
	BPFFS   pin.Options
	Roots   target.Roots
	Applied applied.Options
	Exempt  string // default applied.DefaultExempt
	// Warn takes what went wrong without failing the call; it may be nil.
	Warn func(error)
}

// Versions are the versions of the CNI spec that the plugin speaks.
var Versions = version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

// Funcs returns the plugin's verbs for skel.
func (p *Plugin) Funcs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: p.Add, Del: p.Del, Check: p.Check, GC: p.GC, Status: p.Status}
}

func (p *Plugin) warn(err error) {
	if p.Warn != nil && err != nil {
		p.Warn(err)
	}
}
