// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/specs/change"
)

// versionTimeout bounds a runtime's answer to --version.
const versionTimeout = 5 * time.Second

// ociRuntime is what is known of a program that starts containers.
type ociRuntime struct {
	name  string
	level change.Level
	fault string
	// remedy may be empty: there is nothing to do but to know it.
	remedy string
}

// ociRuntimes are faults that matter to hooks.
var ociRuntimes = []ociRuntime{
	{name: "runc"},
	{
		name: "crun", level: change.OK,
		fault: "what a hook says is dropped, so the reason of a refused container is in the system log only, unless the container has the annotation run.oci.hooks.stderr; no poststop after a refused container: the next invocation cleans up; a container that is restored from a checkpoint has no programs, since no hook is called",
	},
	{
		name: "kata-runtime", level: change.Warn,
		fault:  "its containers run under a kernel of their own, where programs on the host see nothing of them",
		remedy: "policies with programs for cgroups refuse such containers; exclude them by namespace, or attach to interfaces on the host's side",
	},
	{
		name: "runsc", level: change.Warn,
		fault:  "gVisor has a network stack of its own, where programs of cgroups see nothing",
		remedy: "policies with programs for cgroups refuse such containers; exclude them by namespace, or attach to interfaces on the host's side",
	},
}

var versionNumber = regexp.MustCompile(`\d+\.\d+(\.\d+)?`)

// checkRuntimes looks for the programs that start containers, and what is known of
// their versions.
func (d *doctor) checkRuntimes() {
	for _, r := range ociRuntimes {
		path, err := exec.LookPath(r.name)
		if err != nil {
			continue
		}
		version, err := programVersion(path)
		switch {
		case err != nil:
			d.bad(change.Warn, r.name, err, "runtimes that can't be run start no containers")
		case r.fault == "":
			d.ok(r.name, "%s, %s", version, path)
		case r.level == change.OK:
			d.ok(r.name, "%s, %s; %s", version, path, r.fault)
		default:
			d.bad(r.level, r.name, fmt.Errorf("%s, %s; %s", version, path, r.fault), r.remedy)
		}
	}
}

// programVersion asks a program for its version.
func programVersion(path string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), versionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	if v := versionNumber.FindString(line); v != "" {
		return v, nil
	}
	return "", fmt.Errorf("%s --version says %q", path, line)
}

// checkTargets has every installer look at what it would write.
func (d *doctor) checkTargets() {
	targets, err := d.targets(d.host)
	if err != nil {
		d.bad(change.Warn, "runtimes", err, "")
		return
	}
	found := d.checkDocker(targets)
	for _, t := range targets {
		findings := t.Check(d.host)
		d.findings = append(d.findings, findings...)
		found += len(findings)
	}
	if found == 0 {
		d.bad(change.Warn, "runtimes", fmt.Errorf("neither podman, CRI-O, containerd nor a CNI network is here, and none is configured to call linkpin"),
			"see `linkpin install --help`")
	}
}

// checkDocker says what docker can do: it has neither hooks of its own nor CNI. It
// returns how many findings there were.
func (d *doctor) checkDocker(targets []change.Target) int {
	const what = "docker"
	if !slices.ContainsFunc([]string{"/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd"}, d.host.Executable) {
		return 0
	}
	i := slices.IndexFunc(targets, func(t change.Target) bool { return t.Name() == "cdi" })
	if plan, err := targets[i].Uninstall(d.host); err == nil && plan.Empty() {
		d.bad(change.Warn, what, errors.New("can't call linkpin: it gives policies only as devices, and none are offered"),
			"make policies optIn and run linkpin install cdi (docker's own containerd is not what linkpin install containerd is for)")
		return 1
	}
	d.ok(what, "gives policies to containers that are run with --device linkpin.io/policy=NAME, and to no others")
	return 1
}

// checkExclusive looks for programs under which no link can be made.
func (d *doctor) checkExclusive(cgroup2 string) {
	const what = "cgroup programs of others"
	if cgroup2 == "" {
		return
	}
	found, complete, err := attach.FindExclusive(cgroup2)
	if err != nil {
		d.bad(change.Warn, what, err, "")
		return
	}
	for _, e := range found {
		d.bad(change.Warn, what, fmt.Errorf("%s was attached to %s so that no program of hook %s may be attached below", e.Program, e.Cgroup, e.Hook),
			"policies with that hook fail there: attach it with the flag multi, or by a link")
	}
	switch {
	case len(found) > 0:
	case complete:
		d.ok(what, "none that would be in the way")
	default:
		d.ok(what, "none that would be in the way, as far as was looked: there are very many or very deep cgroups")
	}
}
