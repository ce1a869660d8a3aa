// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"io/fs"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/linkpin/linkpin/specs"
)

// What the first two keys of a document must say.
const (
	apiVersion = "linkpin.io/v1"
	kind       = "Policy"
)

// maxDescription is in bytes; maxPath and maxSymbol are the kernel's and ELF's
// habits rather than hard limits.
const (
	maxDescription = 1024
	maxPath        = 1024
	maxSymbol      = 255
	maxObjects     = 64
)

// policy reads one document. It returns what it could read, for the sake of
// further errors; Parse drops it if there are any.
func (d *decoder) policy(root *yaml.Node) *Policy {
	p := &Policy{Pos: Pos{File: d.file, Line: root.Line}, Scope: specs.ScopeContainer, Cgroup: specs.CgroupContainer, Teardown: specs.Drain}
	top := field{root, p.Pos}
	d.check(top, 1)
	if root.Kind != yaml.MappingNode && !d.refused[root] {
		d.fail(p.Pos, "begin it with apiVersion: "+apiVersion, "a policy must be a mapping, not %s", describe(root))
		return p
	}
	o, ok := d.object(top, policyKeys)
	if !ok {
		return p
	}
	d.header(o, p)
	d.objects(o, p)
	if f, ok := d.required(o, "select", "say who gets the policy, for example select: {all: true}"); ok {
		p.Select = d.selector(f)
	}
	if f, ok := d.required(o, "onError", "write onError: deny (then the container does not start) or onError: allow"); ok {
		p.OnError, _ = choice(d, f, []specs.OnError{specs.Deny, specs.Allow})
	}
	p.Scope = optional(d, o, "scope", specs.ScopeContainer,
		[]specs.Scope{specs.ScopeContainer}, specs.ScopePod, specs.ScopeNode)
	p.Cgroup = optional(d, o, "cgroup", specs.CgroupContainer, []specs.CgroupOf{specs.CgroupContainer, specs.CgroupPod})
	if f, ok := o.get("select"); ok && p.Cgroup == specs.CgroupPod {
		d.checkPodSelect(f, p.Select)
	}
	p.Teardown = optional(d, o, "teardown", specs.Drain, []specs.Teardown{specs.Drain, specs.Detach})
	if f, ok := o.get("tc"); ok {
		p.TC = d.tc(f)
	}
	if f, ok := o.get("programs"); ok {
		p.Programs = d.programs(f, p)
		if f, ok := o.get("select"); ok {
			d.checkReach(f, p)
		}
	}
	if f, ok := o.get("constants"); ok {
		p.Constants = d.constants(f, p)
	}
	if f, ok := o.get("maps"); ok {
		p.Maps = d.maps(f, p)
	}
	return p
}

// tc reads what is allowed in the place of TCX links.
func (d *decoder) tc(f field) *TC {
	out := &TC{Pos: f.pos}
	if f.node.Kind == yaml.ScalarNode {
		d.wrongKind(f, "a mapping", "write tc: {fallback: clsact}")
		return out
	}
	o, ok := d.object(f, tcKeys)
	if !ok {
		return out
	}
	const remedy = "write fallback: clsact, or remove tc: without it a kernel that has no TCX links is refused"
	if f, ok := d.required(o, "fallback", remedy); ok {
		out.Fallback, _ = choice(d, f, []specs.TCFallback{specs.FallbackClsact})
	}
	return out
}

// header reads apiVersion, kind and metadata.
func (d *decoder) header(o *object, p *Policy) {
	if f, ok := d.required(o, "apiVersion", "write apiVersion: "+apiVersion); ok {
		if s, ok := d.text(f); ok && s != apiVersion {
			d.fail(f.pos, "write "+apiVersion, "%q is not a version that this linkpin knows", shorten(s))
		}
	}
	if f, ok := d.required(o, "kind", "write kind: "+kind); ok {
		if s, ok := d.text(f); ok && s != kind {
			d.fail(f.pos, "write "+kind, "%q is unknown", shorten(s))
		}
	}
	f, ok := d.required(o, "metadata", "write metadata: {name: …}")
	if !ok {
		return
	}
	m, ok := d.object(f, metadataKeys)
	if !ok {
		return
	}
	if f, ok := d.required(m, "name", "give the policy a name"); ok {
		if s, ok := d.text(f); ok {
			p.Name = s
			if !specs.ValidName(s) {
				d.fail(f.pos, "use 1 to 63 of a-z, 0-9 and -, not - at either end", "%q can't be a name", shorten(s))
			}
		}
	}
	if f, ok := m.get("description"); ok {
		if s, ok := d.text(f); ok {
			p.Description = strings.TrimSpace(s)
			if len(s) > maxDescription {
				d.fail(f.pos, "shorten it", "is longer than %d bytes", maxDescription)
			}
		}
	}
}

// objects reads `object:` or `objects:`.
func (d *decoder) objects(o *object, p *Policy) {
	single, one := o.get("object")
	several, many := o.get("objects")
	switch {
	case one && many:
		d.fail(several.pos, "keep one of them", "object stands at line %d already", single.pos.Line)
	case !one && !many:
		d.fail(under(o.pos, "object", o.pos.Line), "write object: {builtin: …} or object: {file: …}", "is missing")
	}
	if one {
		p.Objects = append(p.Objects, d.elfObject(single, ""))
	}
	if !many {
		return
	}
	pairs, ok := d.pairs(several)
	switch {
	case ok && len(several.node.Content) == 0:
		d.fail(several.pos, "name at least one object", "is empty")
	case len(pairs) > maxObjects:
		d.fail(several.pos, "split the policy", "has more than %d objects", maxObjects)
	}
	for _, pair := range pairs {
		name := pair.key.Value
		if !validObjectName(name) {
			d.fail(pair.pos, "use 1 to 63 of a-z, A-Z, 0-9, _ and -, beginning with a letter or digit",
				"%q can't be the name of an object", shorten(name))
		}
		p.Objects = append(p.Objects, d.elfObject(pair.field, name))
	}
}

// elfObject reads where one object comes from.
func (d *decoder) elfObject(f field, name string) Object {
	out := Object{Pos: f.pos, Name: name}
	o, ok := d.object(f, objectKeys)
	if !ok {
		return out
	}
	builtin, isBuiltin := o.get("builtin")
	file, isFile := o.get("file")
	hash, hasHash := o.get("sha256")
	switch {
	case isBuiltin && isFile:
		d.fail(file.pos, "keep one of them", "builtin stands at line %d already", builtin.pos.Line)
	case isBuiltin && hasHash:
		d.fail(hash.pos, "remove it: the object is part of linkpin", "does not go with builtin")
	case !isBuiltin && !isFile && o.whole:
		d.fail(f.pos, "write {builtin: …} or {file: …}", "does not say where the object is")
	}
	if isBuiltin {
		if s, ok := d.text(builtin); ok {
			out.Builtin = s
			if !specs.ValidName(s) {
				d.fail(builtin.pos, "`linkpin policy list` shows which there are", "%q can't be the name of a builtin object", shorten(s))
			}
		}
	}
	if isFile {
		if s, ok := d.text(file); ok {
			out.File = s
			d.checkPath(file.pos, s)
		}
	}
	if hasHash {
		if s, ok := d.text(hash); ok {
			out.SHA256 = s
			d.checkHash(hash.pos, s)
		}
	}
	return out
}

// checkPath keeps objects inside the policy's directory.
func (d *decoder) checkPath(pos Pos, s string) {
	const remedy = "write a path below the policy's directory, such as objects/x.bpf.o"
	switch {
	case strings.HasPrefix(s, "/"):
		d.fail(pos, remedy, "%q is an absolute path", shorten(s))
	case slices.Contains(strings.Split(s, "/"), ".."):
		d.fail(pos, remedy, "%q leads out of the policy's directory", shorten(s))
	case len(s) > maxPath:
		d.fail(pos, remedy, "the path is longer than %d bytes", maxPath)
	case !fs.ValidPath(s) || s == "." || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		d.fail(pos, remedy, "%q is not a plain path", shorten(s))
	}
}

func (d *decoder) checkHash(pos Pos, s string) {
	if hash, ok := strings.CutPrefix(s, "sha256:"); ok {
		d.fail(pos, "write "+shorten(hash), "the key says sha256 already")
		return
	}
	if len(s) != 64 || strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') }) {
		d.fail(pos, "write what `sha256sum FILE` prints", "is not 64 hexadecimal digits in lower case")
	}
}

// validObjectName keeps out what has a meaning in names of programs and maps: "/",
// and the "#" and "@" of plans.
func validObjectName(s string) bool {
	return len(s) <= 63 && s != "" && s[0] != '_' && s[0] != '-' && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	})
}

// checkSymbol checks the name of a program, variable or map: "symbol", or
// "object/symbol" with an object of the policy.
func (d *decoder) checkSymbol(pos Pos, name string, p *Policy) {
	object, symbol, qualified := strings.Cut(name, "/")
	if !qualified {
		object, symbol = "", name
	}
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '.' && r != '$'
	}
	if symbol == "" || len(symbol) > maxSymbol || strings.ContainsFunc(symbol, bad) {
		d.fail(pos, "write the name as it stands in the object", "%q can't be a name in an object", shorten(symbol))
		return
	}
	if !qualified || len(p.Objects) == 0 {
		return
	}
	var names []string
	for _, o := range p.Objects {
		names = append(names, o.Name)
	}
	switch {
	case len(names) == 1 && names[0] == "":
		d.fail(pos, "write "+shorten(symbol), "the policy has a single object, which has no name")
	case !slices.Contains(names, object):
		d.fail(pos, "the objects are "+oneOf(names), "there is no object %q", shorten(object))
	}
}
