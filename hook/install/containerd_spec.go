// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// containerdRun runs a program and returns what it prints.
type containerdRun func(ctx context.Context, program string, args ...string) ([]byte, error)

// containerdStages are the hooks that linkpin has in a base spec.
var containerdStages = []string{"createRuntime", "poststop"}

// sourceSpec returns the base spec of the handler that is copied; empty if it has none.
func (w *containerdWant) sourceSpec() string {
	t, _ := w.conf.runtime(w.source)
	p, _ := t["base_runtime_spec"].(string)
	return p
}

// baseSpec returns the base spec to be: from, or containerd's default if from is
// empty, with our hooks.
//
// A handler without base_runtime_spec begins with oci.GenerateSpec, which is what
// `ctr oci spec` prints, but then drops AppArmor profile, seccomp filter and rlimits
// of it (customopts.WithoutDefaultSecuritySettings, 1.6 to 2.4); a handler with one
// keeps them. Left in, the file would limit every container to 1024 open files. The
// cgroup path is set anew for both (oci.WithNamespacedCgroup), and all that follows is
// the same.
func (c Containerd) baseSpec(h change.Host, from string) ([]byte, error) {
	object, data := "default spec", c.Spec
	switch {
	case from != "":
		f, err := h.Read(from)
		if err != nil {
			return nil, err
		}
		if f.Missing {
			return nil, fault.Newf(from, "is named as base_runtime_spec and does not exist: containerd's CRI plugin does not start", "make the file, or take base_runtime_spec out")
		}
		object, data = from, f.Data
	case len(data) == 0:
		const remedy = "give --spec FILE with what `ctr oci spec` of this version prints"
		if !h.Local() {
			return nil, fault.Newf("containerd", "its default spec is not known: programs of an image are not run", remedy).WithExit(fault.ExitUsage)
		}
		daemon := c.daemon(h)
		ctr := path.Join(path.Dir(daemon), "ctr")
		if daemon == "" || !h.Executable(ctr) {
			return nil, fault.Newf("containerd", "has no ctr on this host to ask for its default spec", remedy)
		}
		out, err := c.ask(h, ctr, "oci", "spec")
		if err != nil {
			return nil, fault.New(ctr, fmt.Errorf("does not tell the default spec: %w", err), remedy)
		}
		object, data = ctr, out
	}
	spec, err := containerdParseSpec(data)
	if err != nil {
		return nil, fault.New(object, err, "it should be an OCI runtime spec in JSON").WithExit(fault.ExitInput)
	}
	if from == "" {
		if p, ok := spec["process"].(map[string]any); ok {
			delete(p, "rlimits")
			delete(p, "apparmorProfile")
		}
		if l, ok := spec["linux"].(map[string]any); ok {
			delete(l, "seccomp")
		}
	}
	if err := c.addHooks(spec); err != nil {
		return nil, fault.New(object, err, "it should be an OCI runtime spec in JSON").WithExit(fault.ExitInput)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(spec); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// containerdParseSpec decodes a spec; numbers stay as they are written.
func containerdParseSpec(data []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var spec map[string]any
	if err := d.Decode(&spec); err != nil {
		return nil, fmt.Errorf("is not JSON: %w", err)
	}
	if d.More() {
		return nil, errors.New("has something behind the spec")
	}
	if v, _ := spec["ociVersion"].(string); v == "" {
		return nil, errors.New("has no ociVersion")
	}
	return spec, nil
}

// addHooks puts our hooks behind those that are there.
func (c Containerd) addHooks(spec map[string]any) error {
	if err := containerdDropHooks(spec); err != nil {
		return err
	}
	hooks, _ := spec["hooks"].(map[string]any)
	if hooks == nil {
		hooks = map[string]any{}
		spec["hooks"] = hooks
	}
	for _, stage := range containerdStages {
		list, _ := hooks[stage].([]any)
		hooks[stage] = append(slices.Clone(list), map[string]any{
			"path":    c.Hook,
			"args":    []any{path.Base(c.Hook), stage, "--caller", "containerd"},
			"timeout": json.Number(strconv.Itoa(int(change.HookTimeout.Seconds()))),
		})
	}
	return nil
}

// containerdDropHooks takes our hooks out of a spec, whatever path they have.
func containerdDropHooks(spec map[string]any) error {
	hooks, ok := spec["hooks"].(map[string]any)
	if !ok {
		if spec["hooks"] != nil {
			return errors.New("has hooks that are not an object")
		}
		return nil
	}
	for stage, v := range hooks {
		list, ok := v.([]any)
		if !ok && v != nil {
			return fmt.Errorf("has hooks.%s that is not a list", stage)
		}
		left := slices.DeleteFunc(slices.Clone(list), func(e any) bool { _, ours := containerdHookOf(e); return ours })
		if len(left) == 0 && len(list) > 0 {
			delete(hooks, stage)
		} else if len(list) > 0 {
			hooks[stage] = left
		}
	}
	if len(hooks) == 0 {
		delete(spec, "hooks")
	}
	return nil
}

// containerdHook is one of our hooks as a spec has it.
type containerdHook struct {
	path    string
	timeout string // in seconds, as written; empty if there is none
}

// containerdHookOf returns a hook entry if it is ours: linkpin-hook called for
// containerd.
func containerdHookOf(e any) (containerdHook, bool) {
	m, ok := e.(map[string]any)
	if !ok {
		return containerdHook{}, false
	}
	args, _ := m["args"].([]any)
	if len(args) < 4 || args[2] != "--caller" || args[3] != "containerd" {
		return containerdHook{}, false
	}
	h := containerdHook{}
	h.path, _ = m["path"].(string)
	if n, ok := m["timeout"].(json.Number); ok {
		h.timeout = n.String()
	}
	return h, slices.Contains(containerdStages, fmt.Sprint(args[1]))
}

// containerdHooks returns our hook of each stage that a spec has.
func containerdHooks(spec map[string]any) map[string]containerdHook {
	found := map[string]containerdHook{}
	hooks, _ := spec["hooks"].(map[string]any)
	for _, stage := range containerdStages {
		list, _ := hooks[stage].([]any)
		for _, e := range list {
			m, _ := e.(map[string]any)
			args, _ := m["args"].([]any)
			if h, ours := containerdHookOf(e); ours && args[1] == stage {
				found[stage] = h
			}
		}
	}
	return found
}

// containerdSameSpec reports whether two files say the same.
func containerdSameSpec(a, b []byte) bool {
	x, err := containerdParseSpec(a)
	if err != nil {
		return false
	}
	y, err := containerdParseSpec(b)
	return err == nil && reflect.DeepEqual(x, y)
}

// containerdSpecKey is what the names of base specs have for another configuration
// than the default one, so that two daemons don't share a file: its path, or if that
// is too long for a name, a digest of it.
func containerdSpecKey(config string) string {
	if config == containerdMain {
		return ""
	}
	if key := "@" + url.PathEscape(config); len(key) <= containerdMaxKey {
		return key
	}
	return fmt.Sprintf("@%x", sha256.Sum256([]byte(config)))
}

// containerdMaxKey leaves room in a name of 255 bytes for the handler, which is a
// label of DNS in Kubernetes (63), and a suffix.
const containerdMaxKey = 180

// ownSpecs returns the base specs in our directory that are named for this
// configuration, hold our hooks, and that neither keep is nor a handler that is not
// ours names.
func (c Containerd) ownSpecs(h change.Host, conf *containerdConfig, keep string) ([]*change.File, error) {
	names, err := h.ReadDir(containerdSpecs)
	if err != nil {
		return nil, err
	}
	var out []*change.File
	for _, n := range names {
		p := path.Join(containerdSpecs, n)
		handler, ok := strings.CutSuffix(n, containerdSpecKey(c.Config)+".json")
		if !ok || !containerdName.MatchString(handler) || p == keep || conf.namesSpec(p) {
			continue
		}
		f, err := h.Read(p)
		if err != nil {
			return nil, err
		}
		if spec, err := containerdParseSpec(f.Data); err == nil && len(containerdHooks(spec)) > 0 {
			out = append(out, f)
		}
	}
	return out, nil
}

// namesSpec reports whether a handler has the base spec.
func (c *containerdConfig) namesSpec(p string) bool {
	for _, t := range c.runtimes() {
		if t, ok := t.(containerdTree); ok && t["base_runtime_spec"] == p {
			return true
		}
	}
	return false
}
