// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/change"
)

// again is the remedy of whatever Install mends.
const again = "run linkpin install cni"

// Check looks at every network of the directory. It returns nothing if there is none.
func (c *CNI) Check(h change.Host) []change.Finding {
	if !h.Exists(c.dir()) {
		return nil
	}
	all, err := c.read(h)
	if err != nil {
		return []change.Finding{found(change.Fail, c.dir(), err)}
	}
	k := &checker{c: c, h: h, all: all, podman: c.caller(h) == specs.CallerPodman}
	k.chosen, _ = c.choose(h, all) // a file that can't be used is found below
	for i, conf := range all {
		k.file(i, conf)
	}
	if k.used {
		k.binary()
	}
	k.leftovers()
	return k.out
}

// checker gathers the findings of one directory.
type checker struct {
	c      *CNI
	h      change.Host
	all    []*config
	chosen *config // the network of Install, or nil
	podman bool    // the only runtime is podman, which goes by names
	used   bool    // linkpin-cni is in some chain
	out    []change.Finding
}

func (k *checker) add(level change.Level, what, detail, remedy string) {
	k.out = append(k.out, change.Finding{Level: level, What: what, Detail: detail, Remedy: remedy})
}

// found turns an error into a finding.
func found(level change.Level, what string, err error) change.Finding {
	return change.FindingOf(level, what, err, "correct the file")
}

func (k *checker) file(i int, conf *config) {
	p := conf.file.Path
	if conf.err != nil {
		level := change.Warn
		if i == 0 && !k.podman { // containerd stops here
			level = change.Fail
		}
		k.out = append(k.out, found(level, p, conf.err))
		return
	}
	for _, before := range k.all[:i] {
		if before.err == nil && before.network == conf.network {
			k.add(change.Warn, p, fmt.Sprintf("%s has a network %q too: podman reads only lists, others take the first file", before.file.Path, conf.network),
				"remove the one that is not meant")
		}
	}
	ours := conf.ours()
	if len(ours) == 0 && conf.dropinPath == "" {
		k.without(i, conf)
		return
	}
	k.used = true
	switch {
	case conf.single():
		k.add(change.Fail, p, Plugin+" is its only plugin: no pod starts", "remove the file")
	case len(ours) > 1 || len(ours) == 1 && conf.dropinPath != "":
		k.add(change.Fail, p, Plugin+" is in the chain more than once", "remove all entries but the last of the list")
	case len(ours) == 1:
		k.entry(conf, ours[0])
	default:
		k.add(change.OK, p, fmt.Sprintf("network %q has %s by %s", conf.network, Plugin, conf.dropinPath), "")
	}
}

// without judges a network that lacks the entry.
func (k *checker) without(i int, conf *config) {
	if conf != k.chosen && (i > 0 || k.podman || k.c.Network != "") {
		return // not what pods get
	}
	p := conf.file.Path
	at := slices.IndexFunc(k.all, func(o *config) bool { return o.err == nil && !o.single() && len(o.ours()) > 0 })
	switch {
	case at < 0 && isMultus(conf):
		k.add(change.Warn, p, Plugin+" is in no network that multus may call", again+" --network with the network that multus gives to pods")
		return
	case isMultus(conf):
		k.add(change.OK, p, fmt.Sprintf("multus calls other networks; %s is in %q", Plugin, k.all[at].network), "")
		return
	case at > i && !k.podman && k.c.Network == "":
		k.add(change.Fail, p, fmt.Sprintf("sorts before %s, which has %s, and is what pods get", k.all[at].file.Path, Plugin),
			"remove it, or "+again)
		return
	}
	detail := fmt.Sprintf("network %q goes without %s: no interface or namespace programs", conf.network, Plugin)
	if who := rewriter(conf); who != "" {
		detail += " (" + who + ")"
	}
	k.add(change.Warn, p, detail, again)
}

// entry judges our entry in a list.
func (k *checker) entry(conf *config, at int) {
	p, before := conf.file.Path, len(k.out)
	entry := conf.plugins.elems[at]
	if why := misplaced(conf.types, at); why != "" {
		k.add(change.Fail, p, Plugin+" has the wrong place: "+why, again)
	}
	if t := dropinAfter(conf); t != "" {
		k.add(change.Warn, p, fmt.Sprintf("%s of %s/%s comes after %s and changes the interface", t, k.c.dir(), conf.network, Plugin),
			"move it into the list, before "+Plugin)
	}
	if err := conf.checkVersion(); err != nil {
		k.out = append(k.out, found(change.Fail, p, located(p, conf.src, err)))
	}
	if bad := checkEntry(conf.src, entry); bad != nil {
		k.out = append(k.out, found(change.Fail, p, located(p, conf.src, bad)))
		return
	}
	missing, off := undeclared(conf.src, entry)
	if len(missing) > 0 {
		k.add(change.Warn, p, fmt.Sprintf("%s does not declare %s: runtimes do not pass it", Plugin, strings.Join(missing, ", ")), again)
	}
	if len(off) > 0 {
		k.add(change.Warn, p, fmt.Sprintf("the entry of %s turns %s off", Plugin, strings.Join(off, ", ")), "set it to true, or remove it and "+again)
	}
	for _, m := range entry.members {
		if !slices.ContainsFunc(keys, func(key string) bool { return strings.EqualFold(key, m.key) }) {
			k.add(change.Warn, fmt.Sprintf("%s:%d", p, lineOf(conf.src, m.keyStart)), fmt.Sprintf("%s does not know the key %q", Plugin, m.key), "remove it, or correct its name")
		}
	}
	if len(k.out) == before {
		k.add(change.OK, p, fmt.Sprintf("network %q has %s", conf.network, Plugin), "")
	}
}

// keys are those of an entry: ours, and those of the CNI spec.
var keys = []string{"type", "caller", "capabilities", "cniVersion", "name", "args", "runtimeConfig", "prevResult"}

// binary looks for the program where the chain's plugins are.
func (k *checker) binary() {
	p := path.Join(k.c.binDir(k.h), Plugin)
	if k.h.Executable(p) {
		return
	}
	detail := "is not there"
	if k.h.Exists(p) {
		detail = "is not executable"
	}
	for _, dir := range k.c.binDirs() {
		if other := path.Join(dir, Plugin); other != p && k.h.Executable(other) {
			detail = fmt.Sprintf("%s, only %s, and the other plugins of the chain are here", detail, other)
			break
		}
	}
	k.add(change.Fail, p, detail+": containerd starts no pod, CRI-O and podman drop the network", again)
}

// leftovers looks for what became a list that is gone, or came back.
func (k *checker) leftovers() {
	singles, err := k.c.saved(k.h)
	if err != nil {
		k.out = append(k.out, found(change.Warn, k.c.dir(), err))
		return
	}
	for _, single := range singles {
		p := path.Join(k.c.dir(), single+savedSuffix)
		isThere := func(name string) bool {
			return slices.ContainsFunc(k.all, func(conf *config) bool { return conf.name() == name })
		}
		switch {
		case isThere(single):
			k.add(change.Warn, path.Join(k.c.dir(), single), "is back, and sorts before the list that was made of it", again)
		case !slices.ContainsFunc(listNames(single), isThere):
			k.add(change.Warn, p, "is what a list was made of that is gone", "remove it, or rename it to "+single)
		}
	}
}
