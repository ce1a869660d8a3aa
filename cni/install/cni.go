// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"fmt"
	"path"
	"slices"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// The places that are looked at if nothing else is said.
const (
	DefaultDir    = "/etc/cni/net.d"
	DefaultBinDir = "/opt/cni/bin"
	// DefaultCacheDir is where libcni keeps the configuration that an attachment was
	// made with; CRI-O makes DEL with that.
	DefaultCacheDir = "/var/lib/cni/results"
)

// DefaultBinDirs are the directories in which runtimes of distributions find plugins.
var DefaultBinDirs = []string{DefaultBinDir, "/usr/lib/cni", "/usr/libexec/cni", "/usr/local/lib/cni", "/usr/local/libexec/cni"}

// CNI is the chain of one network. The zero value is the network that pods get on
// this machine.
type CNI struct {
	// Host is where Binaries looks for the chain's plugins. It must be the host that the
	// other methods are given.
	Host change.Host
	// Dir holds the network configurations; empty: DefaultDir.
	Dir string
	// Network is the name of the network. Empty: Install takes the first by the
	// runtimes' own order (podman: its network "podman"), Uninstall takes the entry out
	// of all.
	Network string
	// BinDirs are the directories of plugins, in the runtime's order; empty:
	// DefaultBinDirs.
	BinDirs []string
	// Caller is the runtime that uses the network. Empty: the one that the host has;
	// if it has several or none, the entry does not say, and an entry that is there
	// keeps what it says.
	Caller specs.Caller
	// CacheDir is libcni's cache; empty: DefaultCacheDir.
	CacheDir string
}

var _ change.Target = (*CNI)(nil)

// Name returns "cni".
func (c *CNI) Name() string { return "cni" }

// Binaries returns linkpin-cni in the directory where Host has the plugins of the
// chain: runtimes look nowhere else, and some look in one directory only.
func (c *CNI) Binaries() []change.Binary {
	return []change.Binary{{Name: Plugin, Path: path.Join(c.binDir(c.Host), Plugin)}}
}

func (c *CNI) dir() string {
	if c.Dir == "" {
		return DefaultDir
	}
	return path.Clean(c.Dir)
}

func (c *CNI) binDirs() []string {
	if len(c.BinDirs) == 0 {
		return DefaultBinDirs
	}
	return c.BinDirs
}

// binDir is the first directory that has all plugins of the chain, or else the first
// that has the one that makes the interface.
func (c *CNI) binDir(h change.Host) string {
	dirs := c.binDirs()
	all, err := c.read(h)
	if err != nil {
		return dirs[0]
	}
	conf, err := c.choose(h, all)
	if err != nil {
		return dirs[0]
	}
	chain := slices.DeleteFunc(slices.Clone(conf.types), func(t string) bool { return t == Plugin })
	for ; len(chain) > 0; chain = chain[:len(chain)-1] {
		for _, dir := range dirs {
			if !slices.ContainsFunc(chain, func(t string) bool { return !h.Executable(path.Join(dir, t)) }) {
				return dir
			}
		}
	}
	return dirs[0]
}

// runtimes are the programs that tell which runtime a host has.
var runtimes = map[specs.Caller][]string{
	specs.CallerPodman:     {"/usr/bin/podman", "/usr/local/bin/podman"},
	specs.CallerCRIO:       {"/usr/bin/crio", "/usr/local/bin/crio"},
	specs.CallerContainerd: {"/usr/bin/containerd", "/usr/local/bin/containerd"},
}

// caller is the runtime that is said, or the only one that the host has, or "".
func (c *CNI) caller(h change.Host) specs.Caller {
	if c.Caller != "" {
		return c.Caller
	}
	var found []specs.Caller
	for caller, paths := range runtimes {
		if slices.ContainsFunc(paths, h.Executable) {
			found = append(found, caller)
		}
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

// choose returns the configuration of the network.
func (c *CNI) choose(h change.Host, all []*config) (*config, error) {
	if len(all) == 0 {
		return nil, fault.Newf(c.dir(), "has no network configuration", "install the network of the cluster first, or name the directory that its runtime reads").WithExit(fault.ExitUnavailable)
	}
	podman := c.caller(h) == specs.CallerPodman
	if c.Network == "" && !podman {
		return first(all[0])
	}
	want := c.Network
	if want == "" {
		want = "podman" // its default network
	}
	var names []string
	var broken error
	for _, conf := range all {
		switch {
		case podman && conf.single(): // podman does not read it
		case conf.err != nil:
			broken = conf.err
		case conf.network == want:
			return conf, nil
		case !slices.Contains(names, conf.network):
			names = append(names, conf.network)
		}
	}
	if broken != nil {
		return nil, fmt.Errorf("network %q is in no other file: %w", want, broken)
	}
	cause := fmt.Sprintf("has no network %q", want)
	if len(names) == 0 {
		return nil, fault.Newf(c.dir(), cause, "name the directory that the runtime reads")
	}
	return nil, fault.Newf(c.dir(), cause, fmt.Sprintf("name one of %q", names))
}

// first judges the configuration that pods get.
func first(conf *config) (*config, error) {
	if conf.err == nil && isMultus(conf) {
		return nil, fault.Newf(conf.file.Path, "is multus, which calls other networks and writes this file itself",
			"name the network that it gives to pods (--network), and restart multus afterwards")
	}
	return conf, conf.err
}

func isMultus(conf *config) bool {
	return conf.list != nil && len(conf.types) > 0 && (conf.types[0] == "multus" || conf.types[0] == "multus-shim")
}

// Install plans the entry in the network's chain. A single plugin becomes a list, and
// the file it was in is kept beside it.
func (c *CNI) Install(h change.Host) (*change.Plan, error) {
	if c.Caller != "" && !slices.Contains(specs.Callers, c.Caller) {
		return nil, fault.Newf("caller "+string(c.Caller), "is not known", fmt.Sprintf("use one of %v", specs.Callers)).WithExit(fault.ExitUsage)
	}
	all, err := c.read(h)
	if err != nil {
		return nil, err
	}
	conf, err := c.choose(h, all)
	if err != nil {
		return nil, err
	}
	if err := conf.checkVersion(); err != nil {
		return nil, located(conf.file.Path, conf.src, err)
	}
	if conf.dropinPath != "" {
		return nil, fault.Newf(conf.dropinPath, Plugin+" is in the chain of network "+conf.network+" by this file already", "remove it")
	}
	plan := &change.Plan{}
	if conf.single() {
		if err := c.convert(h, plan, conf, all); err != nil {
			return nil, err
		}
	} else {
		data, err := ensure(conf.src, c.caller(h), c.Caller)
		if err != nil {
			return nil, located(conf.file.Path, conf.src, err)
		}
		plan.Write(conf.file, data, 0o644)
	}
	if !plan.Empty() {
		c.notes(h, plan, conf, all)
	}
	return plan, nil
}

// Uninstall plans to take the entry out of the network, or of all. A list that was
// made of a single plugin becomes the file that it was, unless somebody has edited it.
func (c *CNI) Uninstall(h change.Host) (*change.Plan, error) {
	all, err := c.read(h)
	if err != nil {
		return nil, err
	}
	plan := &change.Plan{}
	done, err := c.restore(h, plan, all)
	if err != nil {
		return nil, err
	}
	for _, conf := range all {
		if conf.err != nil {
			if c.Network == "" && bytes.Contains(conf.file.Data, []byte(Plugin)) {
				return nil, conf.err
			}
			continue
		}
		if c.Network != "" && conf.network != c.Network || done[conf.name()] {
			continue
		}
		if conf.dropinPath != "" {
			plan.Note(conf.dropinPath + " names " + Plugin + " too, and was not written by linkpin: remove it")
		}
		switch {
		case conf.single() && len(conf.ours()) > 0:
			return nil, fault.Newf(conf.file.Path, Plugin+" is its only plugin", "remove the file")
		case conf.single():
			continue
		}
		data, err := removeOurs(conf.src)
		if err != nil {
			return nil, located(conf.file.Path, conf.src, err)
		}
		plan.Write(conf.file, data, 0)
	}
	if !plan.Empty() {
		plan.Note("what is attached to running pods stays until they end; linkpin gc takes it away then")
	}
	return plan, nil
}
