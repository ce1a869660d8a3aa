// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// vmPrograms are what hosts have of runtimes that give containers a kernel of their
// own, and vmDirs where their packages put them beside the usual directories.
var (
	vmPrograms = []string{"kata-runtime", "containerd-shim-kata-v2", "runsc", "containerd-shim-runsc-v1"}
	vmDirs     = append(slices.Clone(programDirs), "/opt/kata/bin")
)

// vmWords are in the names of such runtimes: of programs and of shims
// ("io.containerd.kata-qemu.v2", "aws.firecracker").
var vmWords = []string{"kata", "runsc", "gvisor", "firecracker"}

const (
	vmBlind  = "runs containers under a kernel of its own (a virtual machine, gVisor): cgroup programs see nothing there"
	vmRemedy = "policies with programs for cgroups refuse such containers: exclude them by namespace, attach to interfaces on the host's side, or use a handler of runc or crun"
	// crioVM is the runtime_type that CRI-O has for shims of virtual machines.
	crioVM = "vm"
	// dockerConf is dockerd's configuration.
	dockerConf = "/etc/docker/daemon.json"
)

// vmName is what a configuration says of a runtime.
type vmName struct{ key, value string }

// vmOf says why cgroup programs see nothing under a runtime, or nothing.
func vmOf(names ...vmName) string {
	for _, n := range names {
		base := strings.ToLower(path.Base(n.value))
		if n.value == crioVM || slices.ContainsFunc(vmWords, func(w string) bool { return strings.Contains(base, w) }) {
			return fmt.Sprintf("%s %s %s", n.key, n.value, vmBlind)
		}
	}
	return ""
}

// CheckVMs looks for runtimes that give containers a kernel of their own: programs on
// the host, and handlers of containerd, CRI-O, podman and docker, whether they call
// linkpin or not. There is nothing to say of other runtimes.
func CheckVMs(h change.Host) []change.Finding { return Containerd{}.checkVMs(h) }

// checkVMs is CheckVMs with a containerd that tests choose.
func (c Containerd) checkVMs(h change.Host) []change.Finding {
	var out []change.Finding
	for _, name := range vmPrograms {
		for _, p := range programsIn(h, vmDirs, name) {
			out = append(out, change.Finding{Level: change.Warn, What: p, Detail: "is here; " + vmBlind, Remedy: vmRemedy})
		}
	}
	out = append(out, c.vmHandlers(h)...)
	for _, r := range []hooksdRuntime{crioRuntime(), podmanRuntime()} {
		out = append(out, r.vmHandlers(h)...)
	}
	return append(out, vmDocker(h)...)
}

// vmFinding is about a handler that a file defines.
func vmFinding(file, runtime, handler, why string) change.Finding {
	return change.Finding{Level: change.Warn, What: file, Detail: fmt.Sprintf("%s's runtime handler %q: %s", runtime, handler, why), Remedy: vmRemedy}
}

// vmHandlers judges containerd's handlers. A configuration that can't be read is
// reported by Check.
func (c Containerd) vmHandlers(h change.Host) []change.Finding {
	c, _, err := c.on(h)
	if err != nil {
		return []change.Finding{failing(err)}
	}
	conf, err := containerdLoad(containerdFS{Host: h}, c.Config, c.likely(h), containerdRaw)
	if err != nil {
		return nil
	}
	var out []change.Finding
	for _, name := range slices.Sorted(maps.Keys(conf.runtimes())) {
		table, _ := conf.runtime(name)
		why := containerdVM(table)
		if why == "" {
			continue
		}
		file := c.Config
		for _, f := range conf.files { // the last one wins
			if containerdTable(f.tree, append(containerdPlugin(f.version), "runtimes", name)) != nil {
				file = f.Path
			}
		}
		out = append(out, vmFinding(file, "containerd", name, why))
	}
	return out
}

// vmHandlers judges the handlers of podman and CRI-O: in the table "runtimes" beside
// hooks_dir podman has lists of paths, the first program that is there counts, and
// CRI-O tables. A configuration that can't be read is reported by Check.
func (r hooksdRuntime) vmHandlers(h change.Host) []change.Finding {
	files, err := r.configs(h)
	if err != nil {
		return nil
	}
	found := map[string]change.Finding{} // by handler; a later file replaces it
	byDefault, defaultFile := "", ""
	for _, file := range files {
		if value, err := configValue(h, file, r.table, "runtimes"); err == nil {
			table, _ := value.(map[string]any)
			for handler, value := range table {
				delete(found, handler)
				if why := vmOf(vmHandler(handler, value)...); why != "" {
					found[handler] = vmFinding(file, r.name, handler, why)
				}
			}
		}
		// podman's default may be a path, or a name that it knows by itself.
		if value, err := configValue(h, file, r.table, "runtime"); err == nil && value != nil {
			name, _ := value.(string)
			byDefault, defaultFile = name, file
		}
	}
	if why := vmOf(vmName{"runtime", byDefault}); why != "" && found[byDefault].What == "" {
		found[byDefault] = vmFinding(defaultFile, r.name, byDefault, why)
	}
	var out []change.Finding
	for _, handler := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[handler])
	}
	return out
}

// vmHandler returns what says which runtime a handler of podman or CRI-O is. Without
// a path both look for a program of the handler's name.
func vmHandler(handler string, value any) []vmName {
	var names []vmName
	switch v := value.(type) {
	case []any:
		for _, e := range v {
			p, _ := e.(string)
			names = append(names, vmName{"path", p})
		}
	case map[string]any:
		if p, _ := v["runtime_path"].(string); p != "" {
			names = append(names, vmName{"runtime_path", p})
		}
		if v["runtime_type"] == "vm" {
			return []vmName{{"runtime_type", crioVM}}
		}
	}
	if len(names) == 0 {
		names = []vmName{{"program", handler}}
	}
	return names
}

// vmDocker judges docker's handlers.
func vmDocker(h change.Host) []change.Finding {
	f, err := h.Read(dockerConf)
	if err != nil {
		return []change.Finding{change.FindingOf(change.Warn, dockerConf, err, "make it readable")}
	}
	if f.Missing {
		return nil
	}
	var conf struct {
		Default  string `json:"default-runtime"`
		Runtimes map[string]struct {
			Path string `json:"path"`
			Type string `json:"runtimeType"`
		} `json:"runtimes"`
	}
	if err := json.Unmarshal(f.Data, &conf); err != nil {
		cause := fault.New(dockerConf, fmt.Errorf("can't be understood: %w", err), "mend the JSON; dockerd does not start with it")
		return []change.Finding{change.FindingOf(change.Warn, dockerConf, cause, "")}
	}
	var out []change.Finding
	for _, handler := range slices.Sorted(maps.Keys(conf.Runtimes)) {
		r := conf.Runtimes[handler]
		if why := vmOf(vmName{"path", r.Path}, vmName{"runtimeType", r.Type}); why != "" {
			out = append(out, vmFinding(dockerConf, "docker", handler, why))
		}
	}
	// A default may also be the name of a shim that needs no entry.
	if _, defined := conf.Runtimes[conf.Default]; !defined {
		if why := vmOf(vmName{"default-runtime", conf.Default}); why != "" {
			out = append(out, vmFinding(dockerConf, "docker", conf.Default, why))
		}
	}
	return out
}
