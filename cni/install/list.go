// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// spoken are the versions of the CNI spec that linkpin-cni speaks (docs/cni.md).
var spoken = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// list is a network's configuration: a list of plugins (.conflist), or a single one.
type list struct {
	src     []byte
	root    *node
	network string
	plugins *node    // the array; nil for a single plugin
	types   []string // of the plugins, in the order of ADD
}

// ours are the indexes of our entries.
func (l *list) ours() []int {
	var out []int
	for i, t := range l.types {
		if t == Plugin {
			out = append(out, i)
		}
	}
	return out
}

// problem is a configuration that can't be used, with the byte it stands at.
func problem(src []byte, n *node, cause string) error {
	return &syntaxError{line: lineOf(src, n.start), cause: errors.New(cause)}
}

// parseRoot reads what lists and single plugins have in common.
func parseRoot(src []byte) (*list, error) {
	root, err := parseText(src)
	if err != nil {
		return nil, err
	}
	if root.kind != '{' {
		return nil, problem(src, root, "is not a JSON object")
	}
	l := &list{src: src, root: root}
	for i, m := range root.members {
		for _, before := range root.members[:i] {
			if before.key == m.key {
				return nil, &syntaxError{lineOf(src, m.keyStart), fmt.Errorf("has the key %q twice: runtimes take only one of them", m.key)}
			}
		}
	}
	if v := exact(root, "name"); v != nil {
		if v.kind != '"' || json.Unmarshal(src[v.start:v.end], &l.network) != nil {
			return nil, problem(src, v, "the network's name is not a string")
		}
	}
	return l, nil
}

// parseList reads a .conflist as libcni does (NetworkConfFromBytes).
func parseList(src []byte) (*list, error) {
	l, err := parseRoot(src)
	if err != nil {
		return nil, err
	}
	if l.network == "" {
		return nil, problem(src, l.root, "has no network name")
	}
	l.plugins = exact(l.root, "plugins")
	switch {
	case l.plugins == nil && l.root.get("type") != nil:
		return nil, problem(src, l.root, "is a single plugin, not a list: it has no \"plugins\"")
	case l.plugins == nil:
		return nil, problem(src, l.root, "has no \"plugins\"")
	case l.plugins.kind != '[':
		return nil, problem(src, l.plugins, "\"plugins\" is not an array")
	case len(l.plugins.elems) == 0:
		return nil, problem(src, l.plugins, "\"plugins\" is empty")
	}
	for _, p := range l.plugins.elems {
		t := ""
		if p.kind == '{' {
			t = typeOf(src[p.start:p.end])
		}
		if t == "" {
			return nil, problem(src, p, "a plugin has no type")
		}
		l.types = append(l.types, t)
	}
	return l, nil
}

// parseSingle reads a .conf or .json, which hold one plugin (libcni, ConfFromBytes).
func parseSingle(src []byte) (*list, error) {
	l, err := parseRoot(src)
	if err != nil {
		return nil, err
	}
	t := typeOf(src[l.root.start:l.root.end])
	if t == "" {
		if v := exact(l.root, "plugins"); v != nil {
			return nil, problem(src, v, "is a list of plugins, which runtimes read only from files that end in .conflist")
		}
		return nil, problem(src, l.root, "has no plugin type")
	}
	l.types = []string{t}
	return l, nil
}

// checkVersion refuses a list whose version of the CNI spec linkpin-cni does not
// speak. libcni takes the newest of cniVersions and cniVersion that it knows itself;
// before 1.2 it knew only cniVersion.
func (l *list) checkVersion() error {
	refuse := func(n *node, cause string) error {
		return &entryError{n.start, cause + Plugin + " speaks " + strings.Join(spoken, ", "), "use 0.4.0 or 1.0.0 if all plugins of the chain speak it"}
	}
	var all []string
	if v := exact(l.root, "cniVersions"); v != nil && json.Unmarshal(l.src[v.start:v.end], &all) != nil {
		return problem(l.src, v, "cniVersions are not an array of strings")
	}
	newest, at := "", l.root
	for _, v := range all {
		if !newer(v, spoken[len(spoken)-1]) && newer(v, newest) {
			newest, at = v, exact(l.root, "cniVersions")
		}
	}
	if v := exact(l.root, "cniVersion"); v != nil {
		var one string
		if v.kind != '"' || json.Unmarshal(l.src[v.start:v.end], &one) != nil {
			return problem(l.src, v, "cniVersion is not a string")
		}
		if !slices.Contains(spoken, one) || newer(one, newest) {
			newest, at = one, v
		}
	}
	switch {
	case newest == "":
		return refuse(at, "has no cniVersion, which stands for 0.1.0: ")
	case !slices.Contains(spoken, newest):
		return refuse(at, fmt.Sprintf("cniVersion is %q: ", newest))
	}
	return nil
}

// newer reports whether version a is above b; what is no version is below all.
func newer(a, b string) bool {
	return slices.Compare(numbers(a), numbers(b)) > 0
}

func numbers(version string) []int {
	var out []int
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil
		}
		out = append(out, n)
	}
	return out
}
