// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/hook/install"
	"github.com/linkpin/linkpin/specs/change"
)

// The bounds of a program's answer to --version.
const (
	versionTimeout = 5 * time.Second
	versionLimit   = 64 << 10 // bytes
)

// versionedPrograms are those whose version doctor asks for.
var versionedPrograms = []string{"runc", "crun", "podman", "containerd", "crio", "dockerd", "criu"}

// checkRuntimes looks for the programs that start containers, and what is known of
// their versions, and for those with which cgroup programs are of no use.
func (d *doctor) checkRuntimes() {
	kernel := kernelRelease()
	has := func(program string) bool { return len(install.Programs(d.host, program)) > 0 }
	for _, name := range versionedPrograms {
		for _, path := range install.Programs(d.host, name) {
			d.checkProgram(name, path, kernel, has)
		}
	}
	d.add(install.CheckVMs(d.host))
}

// checkProgram asks a program for its version, and says what is known of it.
func (d *doctor) checkProgram(name, path string, kernel release, has func(string) bool) {
	if !d.host.Local() {
		d.ok(name, "%s; its version can only be asked for on its host", path)
		return
	}
	line, err := programVersion(path)
	if err != nil {
		d.bad(change.Warn, name, err, "reinstall "+name+", or remove it")
		return
	}
	v, known := parseRelease(line)
	if known {
		d.ok(name, "%s, %s", v, path)
	} else {
		d.bad(change.Warn, name, fmt.Errorf("%s --version says %q, which names no version: known faults of single versions can't be told", path, line),
			"use a release of "+name)
	}
	for _, f := range faultsOf(name, v, kernel, has) {
		if f.level == change.OK {
			d.ok(name, "%s", f.detail(v))
		} else {
			d.bad(f.level, name, fmt.Errorf("%s: %s", path, f.detail(v)), f.remedy)
		}
	}
}

// add notes findings of others, each once: several targets read the same files.
func (d *doctor) add(findings []change.Finding) {
	for _, f := range findings {
		if !slices.Contains(d.findings, f) {
			d.findings = append(d.findings, f)
		}
	}
}

// kernelRelease returns the running kernel's, or zero.
func kernelRelease() release {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return release{} // checkKernel says so
	}
	r, _ := parseRelease(unix.ByteSliceToString(u.Release[:]))
	return r
}

// programVersion returns the first line that a program answers to --version.
func programVersion(path string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Dir = "/"
	out := &boundedBuffer{max: versionLimit}
	cmd.Stdout = out
	cmd.WaitDelay = time.Second // a child of its may hold the pipe open
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s --version does not answer within %s", path, versionTimeout)
	case err != nil:
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
	return strings.TrimSpace(line), nil
}

// boundedBuffer keeps the beginning of what is written to it.
type boundedBuffer struct {
	bytes.Buffer

	max int
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if room := b.max - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
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
		d.add(findings)
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
	if len(install.Programs(d.host, "dockerd")) == 0 {
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
