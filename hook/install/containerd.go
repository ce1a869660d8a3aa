// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// Where containerd's configuration is, and what linkpin adds to it.
const (
	containerdMain    = "/etc/containerd/config.toml"
	containerdHandler = "linkpin"
	containerdSpecs   = "/etc/linkpin/containerd" // base specs, HANDLER.json
	// containerdDropIn is the name of our file in a directory of imports: late in the
	// order, since later files win.
	containerdDropIn = "99-linkpin.toml"
	// containerdOurs is the pattern of linkpin's own annotations. containerd matches
	// with path.Match: an asterisk does not reach over a slash.
	containerdOurs = "linkpin.io/*"
)

// Containerd makes containerd's CRI plugin call linkpin. It has no directory of
// hooks, but a runtime handler may name the spec that its containers begin with
// (base_runtime_spec), and hooks may stand in that. So a handler is added that is a
// copy of the default one but for such a spec; it is the default spec of the same
// containerd with linkpin's hooks. Pods choose it by a RuntimeClass.
//
// Only application containers begin with the handler's spec, never the sandbox.
type Containerd struct {
	// Hook is where the host has linkpin-hook: an absolute path. Mandatory.
	Hook string
	// Handler is the runtime handler that calls linkpin; empty stands for the one that
	// does already, else for "linkpin". One that exists gets the hooks itself; with the
	// default one ("runc") all pods that name no RuntimeClass are covered.
	Handler string
	// Config is containerd's main configuration file; empty stands for the one that
	// linkpin is installed in, else for /etc/containerd/config.toml.
	Config string
	// Annotations are annotation keys, or patterns of path.Match, that containerd
	// shall hand to the hook beside linkpin's own and those of earlier installs: those
	// that policies select by.
	Annotations []string
	// SelfSelecting says that policies in effect select containers by themselves, so
	// that pods without a RuntimeClass should be covered too.
	SelfSelecting bool
	// Version is the release of containerd: "1.7", "2.1.4". If empty, this machine's
	// containerd is asked. Install needs it for another host: no program of an image
	// is run.
	Version string
	// Daemon is where the host has containerd, and beside it ctr. If empty, it is
	// looked for in the usual directories.
	Daemon string
	// Spec is the default spec of the host's containerd: what `ctr oci spec` prints
	// there. If empty, this machine's ctr is run; for another host it has to be given.
	// Not used if the copied handler has a spec of its own.
	Spec []byte
	// Run runs a program, with the path on this machine, and returns its output. If
	// nil, it is run as usual.
	Run containerdRun
	// Proc is where proc is mounted; empty stands for /proc.
	Proc string
}

var _ change.Target = Containerd{}

var (
	errContainerdHandler = errors.New("is not a name for a runtime handler")
	containerdName       = regexp.MustCompile(`^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$`)
)

// Name implements change.Target.
func (Containerd) Name() string { return "containerd" }

// Binaries implements change.Target.
func (c Containerd) Binaries() []change.Binary {
	return []change.Binary{{Name: hookName, Path: c.Hook}}
}

// defaults fills in what may be empty.
func (c Containerd) defaults() (Containerd, error) {
	if c.Handler == "" {
		c.Handler = containerdHandler
	}
	if c.Config == "" {
		c.Config = containerdMain
	}
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	c.Config = path.Clean(c.Config)
	if !containerdName.MatchString(c.Handler) {
		return c, fault.New(c.Handler, errContainerdHandler, "use letters, digits and dashes").WithExit(fault.ExitUsage)
	}
	for _, a := range c.Annotations {
		if _, err := path.Match(a, ""); err != nil || a == "" {
			return c, fault.Newf("annotation "+a, "is not a pattern", "give keys, or patterns as of path.Match").WithExit(fault.ExitUsage)
		}
	}
	return c, nil
}

// specPath is where the handler's base spec goes.
func (c Containerd) specPath() string {
	return path.Join(containerdSpecs, c.Handler+containerdSpecKey(c.Config)+".json")
}

// containerdWant is what a host's configuration is to say.
type containerdWant struct {
	conf    *containerdConfig // without linkpin
	source  string            // the handler that is copied
	sets    []containerdSet   // below the table "containerd" of the CRI plugin
	table   containerdTree    // the handler as a whole
	existed bool              // the handler is not ours
}

// want works out what to add to a configuration without us. in is what is there.
func (c Containerd) want(conf *containerdConfig, in containerdInstalled) (*containerdWant, error) {
	w := &containerdWant{conf: conf}
	merges := conf.daemon.atLeast(2, 0)
	if t := containerdTable(conf.cri, []string{"default_runtime"}); !merges && t["runtime_type"] != nil && t["runtime_type"] != "" {
		return nil, fault.Newf(c.Config, "has the deprecated table default_runtime, which overrides default_runtime_name", "move it to runtimes.NAME, and let default_runtime_name be NAME").WithExit(fault.ExitInput)
	}
	have := conf.runtimes()
	tuned, defined := have[c.Handler].(containerdTree)
	table, _ := conf.runtime(c.Handler)
	kind, _ := table["runtime_type"].(string)
	// Without a type there is no handler, but what the user has added to ours.
	if w.existed = defined && kind != ""; !w.existed {
		w.conf = conf.without(c.Handler)
	}
	builtin := containerdTree{"runtime_type": "io.containerd.runc.v2"}
	keep := !merges && c.Handler != "runc" && have["runc"] == nil && (w.conf.runtimes() == nil || in.runc)
	if keep && w.conf.runtimes() != nil {
		w.conf = w.conf.without("runc") // a copy
		w.conf.runtimes()["runc"] = builtin
	}
	w.source = c.Handler
	if !w.existed {
		if w.source = w.conf.defaultRuntime(); w.source == c.Handler {
			w.source = "runc" // the default is to be ours: copy the built-in one
		}
	}
	if w.table, defined = w.conf.runtime(w.source); w.table == nil && !defined {
		return nil, fault.Newf(c.Config, fmt.Sprintf("has no runtime handler %q, which default_runtime_name names", w.source), "mend default_runtime_name").WithExit(fault.ExitInput)
	}
	if !w.existed {
		containerdMerge(w.table, tuned)
	}
	own := containerdTree{"base_runtime_spec": c.specPath()}
	for _, key := range containerdLists {
		list, err := containerdAllow(w.table[key], append(in.added(c.Handler, key), c.Annotations...))
		if err != nil {
			return nil, fault.New(c.Config, fmt.Errorf("%s of runtime handler %q %w", key, w.source, err), "mend the list").WithExit(fault.ExitInput)
		}
		own[key] = list
	}
	containerdMerge(w.table, own)
	switch {
	case w.existed:
		w.sets = containerdMissing([]string{"runtimes", c.Handler}, own, tuned)
	case keep && have == nil:
		w.sets = []containerdSet{{[]string{"runtimes"}, containerdTree{c.Handler: w.table, "runc": builtin}}}
		return w, nil
	default:
		w.sets = containerdMissing([]string{"runtimes", c.Handler}, w.table, tuned)
	}
	if keep { // the built-in one would go
		w.sets = append(w.sets, containerdSet{[]string{"runtimes", "runc"}, builtin})
	}
	return w, nil
}

// containerdAllow returns an allow-list with linkpin's annotations and keys.
func containerdAllow(have any, keys []string) ([]any, error) {
	list, ok := have.([]any)
	if have != nil && !ok {
		return nil, errors.New("is not a list")
	}
	list = slices.Clone(list)
	for _, key := range append([]string{containerdOurs}, keys...) {
		if !containerdAllows(list, key) {
			list = append(list, key)
		}
	}
	return list, nil
}

// containerdAllows reports whether a list has a pattern, or one that takes it in.
func containerdAllows(list []any, key string) bool {
	return slices.ContainsFunc(list, func(e any) bool {
		pattern, _ := e.(string)
		ok, err := path.Match(pattern, key)
		return pattern == key || ok && err == nil
	})
}

// Install implements change.Target.
func (c Containerd) Install(h change.Host) (*change.Plan, error) {
	c, in, err := c.on(h)
	if err != nil {
		return nil, err
	}
	if err := hookPath(c.Hook); err != nil {
		return nil, err
	}
	if err := c.moves(in); err != nil {
		return nil, err
	}
	daemon, err := c.release(h)
	if err != nil {
		return nil, err
	}
	conf, err := containerdLoad(containerdFS{Host: h}, c.Config, daemon, containerdForeign)
	if err != nil {
		return nil, err
	}
	want, err := c.want(conf, in)
	if err != nil {
		return nil, err
	}
	spec, err := c.baseSpec(h, want.sourceSpec())
	if err != nil {
		return nil, err
	}
	files, err := c.place(h, want)
	if err != nil {
		return nil, err
	}
	plan := &change.Plan{}
	old, err := h.Read(c.specPath())
	if err != nil {
		return nil, err
	}
	if !containerdSameSpec(old.Data, spec) {
		plan.Write(old, spec, 0o644)
	}
	for _, f := range files {
		if f.gone {
			plan.Remove(f.File)
		} else {
			plan.Write(f.File, f.text, 0o644)
		}
	}
	orphans, err := c.ownSpecs(h, conf, c.specPath())
	if err != nil {
		return nil, err
	}
	for _, f := range orphans {
		plan.Remove(f)
	}
	if !plan.Empty() {
		plan.Note("restart containerd (systemctl restart containerd): it reads its configuration and the base spec at its start; running containers keep running")
		if c.Handler != conf.defaultRuntime() {
			plan.Note(fmt.Sprintf("in Kubernetes pods choose it by a RuntimeClass with handler: %s", c.Handler))
		}
		if why := containerdVM(want.table); why != "" {
			plan.Note(why)
		}
		noteGone(plan, c.gone(h, conf, daemon), c.Handler)
	}
	return plan, nil
}

// gone returns the runtime handlers that are there by our doing alone. foreign is the
// configuration without us.
func (c Containerd) gone(h change.Host, foreign *containerdConfig, daemon containerdVersion) []string {
	raw, err := containerdLoad(containerdFS{Host: h}, c.Config, daemon, containerdRaw)
	if err != nil {
		return nil
	}
	var names []string
	for name := range raw.runtimes() {
		if _, stays := foreign.runtimes()[name]; !stays && name != foreign.defaultRuntime() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// noteGone says which handlers go with a change, but for the one that it makes.
func noteGone(plan *change.Plan, names []string, but string) {
	for _, name := range names {
		if name != but {
			plan.Note(fmt.Sprintf("the runtime handler %q goes: pods whose RuntimeClass names it no longer start", name))
		}
	}
}

// containerdPlanned is a file as it is to be.
type containerdPlanned struct {
	*change.File
	text []byte
	gone bool
}

// Uninstall implements change.Target.
func (c Containerd) Uninstall(h change.Host) (*change.Plan, error) {
	c, _, err := c.on(h)
	if err != nil {
		return nil, err
	}
	daemon := c.likely(h)
	conf, err := containerdLoad(containerdFS{Host: h}, c.Config, daemon, containerdForeign)
	if err != nil {
		return nil, err
	}
	files, err := c.stripped(h, conf)
	if err != nil {
		return nil, err
	}
	if raw, err := containerdLoad(containerdFS{Host: h}, c.Config, daemon, containerdRaw); err == nil {
		if err := c.stays(raw, conf); err != nil {
			return nil, err
		}
	}
	plan := &change.Plan{}
	for _, f := range files {
		if f.gone {
			plan.Remove(f.File)
		} else {
			plan.Write(f.File, f.text, 0o644)
		}
	}
	for _, dir := range containerdMadeDirs(files) {
		plan.Remove(&change.File{Path: dir, Mode: fs.ModeDir | 0o755})
	}
	specs, err := c.ownSpecs(h, conf, "")
	if err != nil {
		return nil, err
	}
	for _, f := range specs {
		plan.Remove(f)
	}
	if len(specs) > 0 {
		plan.Remove(&change.File{Path: containerdSpecs, Mode: fs.ModeDir | 0o755})
	}
	if !plan.Empty() {
		plan.Note("restart containerd (systemctl restart containerd)")
		noteGone(plan, c.gone(h, conf, daemon), "")
	}
	return plan, nil
}

// Uses implements change.Target. Of what can't be understood the text counts.
func (c Containerd) Uses(h change.Host, hook string) bool {
	c, _, err := c.on(h)
	if err != nil {
		return true
	}
	for name, err := range c.hooks(h) {
		if err != nil {
			return c.mentions(h, hook)
		}
		if name == hook {
			return true
		}
	}
	return false
}

// containerdVM says why linkpin can't work under a handler, or nothing.
func containerdVM(table containerdTree) string {
	kind, _ := table["runtime_type"].(string)
	file, _ := table["runtime_path"].(string)
	options, _ := table["options"].(containerdTree)
	binary, _ := options["BinaryName"].(string)
	return vmOf(vmName{"runtime_type", kind}, vmName{"runtime_path", file}, vmName{"BinaryName", binary})
}
