// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/testscript"
)

// bundleOptions are what scripts change in an OCI bundle.
type bundleOptions struct {
	args         []string
	annotations  map[string]string
	stages       []string // stages that call the hook; createRuntime and poststop when nothing is said
	timeout      int      // seconds that the runtime gives the hook
	hook         []string // program and arguments before the stage; nil: no hooks at all
	hookArgs     []string // arguments after the stage
	before       []string // somebody else's hooks, ahead of ours at their stages: "STAGE PROGRAM ARGUMENT…"
	after        []string // the same, behind ours
	netns        string   // path of a network namespace, "host", or empty for a new one
	cgroupsPath  string   // empty: NAME below the machine's parent
	capabilities []string // beyond those that every container gets
}

// capabilities that docker, podman and containerd give by default.
var defaultCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// cmdBundle makes an OCI bundle: bundle NAME [OPTION…] [-- PROGRAM [ARGUMENT…]].
// README.md lists the options.
func cmdBundle(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: bundle NAME [OPTION…] [-- PROGRAM [ARGUMENT…]]")
	}
	m := scriptMachine(ts)
	name := args[0]
	o, err := parseBundle(args[1:])
	ts.Check(err)
	if o.cgroupsPath == "" {
		o.cgroupsPath = filepath.Join(m.parent, name)
	}
	dir := ts.MkAbs(name)
	// crun drops what hooks print unless this tells it where to.
	const stderr = "run.oci.hooks.stderr"
	if path, given := o.annotations[stderr]; !given {
		o.annotations[stderr] = filepath.Join(dir, "hook.err")
	} else if path == "" {
		delete(o.annotations, stderr)
	}
	config, err := json.MarshalIndent(bundleSpec(o, filepath.Join(dir, "shared")), "", "  ")
	ts.Check(err)
	ts.Check(os.MkdirAll(filepath.Join(dir, "shared"), 0o755))
	ts.Check(os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644))
}

func parseBundle(args []string) (bundleOptions, error) {
	o := bundleOptions{
		args:        []string{"sleep", "600"},
		annotations: map[string]string{},
		stages:      []string{"createRuntime", "poststop"},
		hook:        []string{filepath.Join(built.bin, "linkpin-hook")},
		hookArgs:    []string{"--caller", "none"},
		timeout:     60, // above the sum of the hook's own deadlines
	}
	for len(args) > 0 {
		if args[0] == "--" {
			o.args = args[1:]
			break
		}
		name, value, ok := strings.Cut(args[0], "=")
		if !ok {
			return o, fmt.Errorf("bundle option %q: want NAME=VALUE", args[0])
		}
		switch name {
		case "annotation":
			key, text, ok := strings.Cut(value, "=")
			if !ok {
				return o, fmt.Errorf("bundle option %q: want annotation=KEY=VALUE", args[0])
			}
			o.annotations[key] = text
		case "stages":
			o.stages = strings.Split(value, ",")
		case "timeout":
			var err error
			if o.timeout, err = strconv.Atoi(value); err != nil {
				return o, fmt.Errorf("bundle option %q: %w", args[0], err)
			}
		case "before":
			o.before = append(o.before, value)
		case "after":
			o.after = append(o.after, value)
		case "hook":
			o.hook, o.hookArgs = strings.Fields(value), nil
		case "caller":
			o.hookArgs = []string{"--caller", value}
		case "netns":
			o.netns = value
		case "cgroup":
			o.cgroupsPath = value
		case "cap":
			o.capabilities = strings.Split(value, ",")
		default:
			return o, fmt.Errorf("unknown bundle option %q", name)
		}
		args = args[1:]
	}
	if len(o.args) == 0 {
		return o, errors.New("bundle: no program after --")
	}
	return o, nil
}

// bundleSpec writes what `runtime spec` would, less what this project's test
// hosts refuse: no resources (no controllers on pure v2), no rlimits (no
// CAP_SYS_RESOURCE). The directory shared is /shared inside.
func bundleSpec(o bundleOptions, shared string) *specs.Spec {
	caps := append(append([]string{}, defaultCapabilities...), o.capabilities...)
	namespaces := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
	}
	if o.netns != "host" {
		namespaces = append(namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: o.netns})
	}
	return &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args:            o.args,
			Cwd:             "/",
			Env:             []string{"PATH=/bin"},
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			NoNewPrivileges: true,
		},
		Root:     &specs.Root{Path: built.rootfs, Readonly: true},
		Hostname: "container",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev"}},
			{Destination: "/shared", Type: "bind", Source: shared, Options: []string{"rbind", "rw"}},
		},
		Annotations: o.annotations,
		Hooks:       bundleHooks(o),
		Linux: &specs.Linux{
			CgroupsPath: o.cgroupsPath,
			Namespaces:  namespaces,
		},
	}
}

// bundleHooks lists the hooks of a bundle: linkpin's, with those of others around it.
func bundleHooks(o bundleOptions) *specs.Hooks {
	hooks := &specs.Hooks{}
	addOthers(hooks, o.before)
	if len(o.hook) > 0 {
		for _, stage := range o.stages {
			addHook(hooks, stage, specs.Hook{
				Path:    o.hook[0],
				Args:    append(append(append([]string{}, o.hook...), stage), o.hookArgs...),
				Timeout: &o.timeout,
			})
		}
	}
	addOthers(hooks, o.after)
	return hooks
}

// addOthers adds hooks that are "STAGE PROGRAM ARGUMENT…", without a timeout.
func addOthers(hooks *specs.Hooks, others []string) {
	for _, other := range others {
		fields := strings.Fields(other)
		addHook(hooks, fields[0], specs.Hook{Path: fields[1], Args: fields[1:]})
	}
}

func addHook(hooks *specs.Hooks, stage string, h specs.Hook) {
	switch stage {
	case "prestart":
		hooks.Prestart = append(hooks.Prestart, h) //nolint:staticcheck // deprecated, but runtimes still call it and installers may choose it
	case "createRuntime":
		hooks.CreateRuntime = append(hooks.CreateRuntime, h)
	case "createContainer":
		hooks.CreateContainer = append(hooks.CreateContainer, h)
	case "startContainer":
		hooks.StartContainer = append(hooks.StartContainer, h)
	case "poststart":
		hooks.Poststart = append(hooks.Poststart, h)
	case "poststop":
		hooks.Poststop = append(hooks.Poststop, h)
	}
}
