// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	cniinstall "github.com/linkpin/linkpin/cni/install"
	"github.com/linkpin/linkpin/hook/install"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/change"
	"github.com/linkpin/linkpin/specs/fault"
)

// targetOptions are the flags of single targets.
type targetOptions struct {
	handler     string   // containerd
	config      string   // containerd
	release     string   // containerd
	spec        specFile // containerd
	annotations []string // containerd
	network     string   // cni
	confDir     string   // cni, nri
	binDirs     []string // cni
	caller      string   // cni
	pluginDir   string   // nri
	index       string   // nri
}

// targetKind is what can be installed to.
type targetKind struct {
	name  string
	what  string // of the runtime, for the list of commands
	long  string
	flags func(*pflag.FlagSet, *installOptions)
	// stale reports whether what is installed may be too little for policies, so that
	// it must be compared; nil means that it does not depend on them.
	stale func([]applied.Summary) bool
	// make returns the target. hook is the path of linkpin-hook on the host.
	make func(h change.Host, hook string, policies []applied.Summary, o installOptions) change.Target
}

func (k targetKind) short(verb action) string {
	if verb == installing {
		return "Make " + k.what + " call linkpin"
	}
	return "Undo it for " + k.what
}

var targetKinds = []targetKind{
	{
		name: "podman", what: "podman",
		long: `Put two files (createRuntime, poststop) into the directory of hooks that podman reads.

With --when auto, podman calls the hook for every container if a policy in effect selects
containers by itself, or if there is no policy yet; else only for containers with the
annotation linkpin.io/policies. What is installed stays if it is enough.`,
		flags: hooksdFlags, stale: needsAlways,
		make: func(_ change.Host, hook string, policies []applied.Summary, o installOptions) change.Target {
			return install.Podman{Hook: hook, When: when(o.when), Need: need(policies)}
		},
	},
	{
		name: "crio", what: "CRI-O",
		long: `Put two files (createRuntime, poststop) into the directory of hooks that CRI-O reads; see
linkpin install podman for --when.`,
		flags: hooksdFlags, stale: needsAlways,
		make: func(_ change.Host, hook string, policies []applied.Summary, o installOptions) change.Target {
			return install.CRIO{Hook: hook, When: when(o.when), Need: need(policies)}
		},
	},
	{
		name: "containerd", what: "containerd's CRI plugin",
		long: `Add a runtime handler to containerd's configuration that begins containers with linkpin's
hooks (base_runtime_spec), and is otherwise a copy of the default one. Pods choose it by a
RuntimeClass with that handler. With --handler and the name of one that exists ("runc"), that
one gets the hooks, and all pods that use it are covered. Later runs keep to the handler, the
annotations and the configuration that are installed.

The annotation linkpin.io/policies, and those that policies in effect select by, are put on
the handler's allow-lists. An alternative that needs no handler is linkpin install nri.`,
		flags: func(flags *pflag.FlagSet, o *installOptions) {
			hookFlag(flags, o)
			flags.StringVar(&o.target.handler, "handler", "", "runtime handler that calls linkpin (default: the one that does, else linkpin)")
			flags.StringVar(&o.target.config, "config", "", "containerd's configuration (default: the one linkpin is in, else /etc/containerd/config.toml)")
			flags.StringSliceVar(&o.target.annotations, "annotation", nil, "further annotation keys that the hook shall see")
			flags.StringVar(&o.target.release, "containerd-version", "", "release of containerd (default: ask the host's; with --root it must be given)")
			flags.Var(&o.target.spec, "spec", "file with the output of ctr oci spec (default: run the host's ctr; with --root it must be given)")
		},
		stale: func(policies []applied.Summary) bool { return len(annotationKeys(policies)) > 0 },
		make: func(_ change.Host, hook string, policies []applied.Summary, o installOptions) change.Target {
			return install.Containerd{
				Hook: hook, Handler: o.target.handler, Config: o.target.config, Version: o.target.release, Spec: o.target.spec.data,
				Annotations:   append(annotationKeys(policies), o.target.annotations...),
				SelfSelecting: slices.ContainsFunc(policies, selectsItself),
			}
		},
	},
	{
		name: "nri", what: "containerd's or CRI-O's NRI",
		long: `Put linkpin-nri into the directory from which containerd (2.0 and later; 1.7 if NRI is enabled)
and CRI-O start their NRI plugins. It puts linkpin's hooks into every container, holds no
state, and refuses the container if linkpin-hook is missing. The runtime must be restarted
once. linkpin doctor says how to have containers refused while the plugin is absent.`,
		flags: func(flags *pflag.FlagSet, o *installOptions) {
			hookFlag(flags, o)
			flags.StringVar(&o.target.pluginDir, "plugin-dir", "/opt/nri/plugins", "directory of NRI plugins")
			flags.StringVar(&o.target.confDir, "conf-dir", "/etc/nri/conf.d", "directory of their configuration")
			flags.StringVar(&o.target.index, "index", "", "place among the plugins, two digits (default: where it is, else 10)")
		},
		make: func(h change.Host, hook string, _ []applied.Summary, o installOptions) change.Target {
			return install.NRI{Host: h, Hook: hook, PluginDir: o.target.pluginDir, ConfDir: o.target.confDir, Index: o.target.index}
		},
	},
	{
		name: "cdi", what: "docker, podman, CRI-O and containerd (devices)",
		long: `Offer every policy in effect that is optIn as a device: a container that is given
linkpin.io/policy=NAME gets the policy NAME, with docker, podman, CRI-O and containerd.
Run it again when policies are added or removed; linkpin policy apply says when.`,
		flags: hookFlag, stale: func([]applied.Summary) bool { return true },
		make: func(h change.Host, hook string, policies []applied.Summary, _ installOptions) change.Target {
			t := install.CDI{Host: h, Hook: hook}
			for _, p := range policies {
				if p.Select.OptIn {
					t.Policies = append(t.Policies, install.CDIPolicy{Name: p.Name})
				}
			}
			return t
		},
	},
	{
		name: "cni", what: "CNI networks",
		long: `Add linkpin-cni to the chain of a network: the one that is named, or the one that pods get.
A configuration of a single plugin becomes a list.`,
		flags: func(flags *pflag.FlagSet, o *installOptions) {
			flags.StringVar(&o.target.network, "network", "", "name of the network (default: the one that pods get; uninstall: all)")
			flags.StringVar(&o.target.confDir, "conf-dir", "", "directory of the networks (default: as containerd or CRI-O is configured, else "+cniinstall.DefaultDir+")")
			flags.StringSliceVar(&o.target.binDirs, "bin-dir", nil, "directories of the plugins, in the runtime's order (default: as configured, else "+strings.Join(cniinstall.DefaultBinDirs, ", ")+")")
			flags.StringVar(&o.target.caller, "caller", "", "runtime that uses the network: podman, crio, containerd (default: the only one that the host has)")
		},
		make: func(h change.Host, _ string, _ []applied.Summary, o installOptions) change.Target {
			c := &cniinstall.CNI{Host: h, Dir: o.target.confDir, Network: o.target.network, BinDirs: o.target.binDirs, Caller: specs.Caller(o.target.caller)}
			dirs := install.ConfiguredCNI(h)
			if c.Dir == "" {
				c.Dir = dirs.Conf
			}
			if len(c.BinDirs) == 0 {
				c.BinDirs = dirs.Bin
			}
			return c
		},
	},
}

func hooksdFlags(flags *pflag.FlagSet, o *installOptions) {
	hookFlag(flags, o)
	flags.StringVar(&o.when, "when", "auto", "containers for which the hook is called: auto, always, optIn (those with the annotation)")
}

func hookFlag(flags *pflag.FlagSet, o *installOptions) {
	flags.StringVar(&o.hook, "hook", "", "linkpin-hook, as the host sees it (default: where a package has it, else a copy in "+libexec+")")
}

// specFile is a flag whose value is read when it is given.
type specFile struct {
	path string
	data []byte
}

func (f *specFile) String() string { return f.path }

func (f *specFile) Type() string { return "file" }

func (f *specFile) Set(path string) (err error) {
	f.path = path
	f.data, err = os.ReadFile(path)
	return err
}

// annotationKeys returns the keys of annotations that policies select by.
func annotationKeys(policies []applied.Summary) []string {
	keys := map[string]bool{}
	for _, p := range policies {
		for key := range p.Select.Annotations {
			keys[key] = true
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

// when is the flag's choice; empty keeps what is installed, if it is enough.
func when(flag string) install.When {
	if flag == "auto" {
		return ""
	}
	return install.When(flag)
}

// need says for which containers the policies need the hook: empty without any.
func need(policies []applied.Summary) install.When {
	switch {
	case len(policies) == 0:
		return ""
	case slices.ContainsFunc(policies, selectsItself):
		return install.Always
	}
	return install.OptIn
}

// needsAlways: a hook that is called for more containers than it must be is not stale.
func needsAlways(policies []applied.Summary) bool {
	return slices.ContainsFunc(policies, selectsItself)
}

func selectsItself(p applied.Summary) bool { return !p.Select.OptIn }

// target makes one target as the flags of its command say. A damaged set is as good as
// none: doctor reports it.
func (a *app) target(h change.Host, kind targetKind, o installOptions) (change.Target, error) {
	policies, err := a.policiesOf(h)
	if err != nil && !errors.Is(err, applied.ErrDamaged) {
		return nil, err
	}
	return a.targetFor(h, kind, o, policies)
}

// targetFor is target for these policies.
func (a *app) targetFor(h change.Host, kind targetKind, o installOptions, policies []applied.Summary) (change.Target, error) {
	if o.when != "" && !slices.Contains([]string{"auto", "always", "optIn"}, o.when) {
		return nil, fault.Newf("--when "+o.when, "is none of auto, always, optIn", "leave it out for auto").WithExit(fault.ExitUsage)
	}
	if o.target.caller != "" && !slices.Contains(specs.Callers, specs.Caller(o.target.caller)) {
		return nil, fault.Newf("--caller "+o.target.caller, "is not a runtime that linkpin knows", "use podman, crio or containerd").WithExit(fault.ExitUsage)
	}
	hook, err := a.hookPath(h, o.hook)
	if err != nil {
		return nil, err
	}
	t := kind.make(h, hook, policies, o)
	if c, ok := t.(interface{ Calls(h change.Host) string }); ok && o.hook == "" {
		// What is installed with another hook stays with it, as long as that is there.
		if there := c.Calls(h); there != "" && there != hook && h.Executable(there) {
			t = kind.make(h, there, policies, o)
		}
	}
	return t, nil
}

// outdated returns a line for each target that is installed for other policies than
// those in effect, so that some containers would go without.
func (a *app) outdated(h change.Host) []string {
	policies, err := a.policiesOf(h)
	if err != nil {
		return nil // doctor says why
	}
	var lines []string
	for _, kind := range targetKinds {
		if kind.stale == nil || !kind.stale(policies) {
			continue
		}
		t, err := a.target(h, kind, installOptions{})
		if err != nil {
			continue
		}
		installed, err := t.Uninstall(h)
		if err != nil || installed.Empty() {
			continue
		}
		if plan, err := t.Install(h); err == nil && !plan.Empty() {
			lines = append(lines, fmt.Sprintf("what is installed for %s does not fit these policies; run `linkpin install %s`", kind.what, kind.name))
		}
	}
	return lines
}

// targets makes all targets, as the commands do without flags.
func (a *app) targets(h change.Host) ([]change.Target, error) {
	var all []change.Target
	for _, kind := range targetKinds {
		t, err := a.target(h, kind, installOptions{})
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// policiesOf returns the policies that are in effect on a host, none if there has never
// been a set. The error of a set that can't be read wraps applied.ErrDamaged.
func (a *app) policiesOf(h change.Host) ([]applied.Summary, error) {
	o, err := a.appliedOf(h)
	if err != nil {
		return nil, err
	}
	set, err := applied.Open(o)
	if errors.Is(err, applied.ErrMissing) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer set.Close()
	return set.Policies(), nil
}

// appliedOf returns where a host has its applied set.
func (a *app) appliedOf(h change.Host) (applied.Options, error) {
	o := a.roots.applied()
	if h.Local() {
		return o, nil
	}
	dir, err := h.Resolve(applied.DefaultDir)
	if err != nil {
		return o, fmt.Errorf("directory of the applied policies: %w", err)
	}
	o.Dir = dir
	return o, nil
}
