// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/integration/faults/tracer"
)

func createRuntime(w *world) command {
	return command{program: "linkpin-hook", args: []string{"createRuntime", "--caller", "none"}, stdin: w.state(oci.StateCreating)}
}

func poststop(w *world) command {
	return command{program: "linkpin-hook", args: []string{"poststop", "--caller", "none"}, stdin: w.state(oci.StateStopped)}
}

func linkpin(args ...string) command { return command{program: "linkpin", args: args} }

// cni returns the call of a verb for the interface of a world. The namespace is
// given as long as it is there.
func cni(verb string) func(*world) command {
	return func(w *world) command {
		netns := ""
		if w.process != nil {
			netns = w.netns()
		}
		runtime := map[string]any{}
		if w.pods {
			runtime["cgroupPath"] = "/" + filepath.Base(w.cgroup) + "/" + w.id
		}
		conf, err := json.Marshal(map[string]any{
			"runtimeConfig": runtime,
			"cniVersion":    "1.1.0", "name": "net", "type": "linkpin-cni",
			"cni.dev/valid-attachments": []any{},
			"prevResult": map[string]any{"cniVersion": "1.1.0", "interfaces": []any{
				map[string]any{"name": w.veth}, map[string]any{"name": "eth0", "sandbox": netns},
			}},
		})
		if err != nil {
			panic(err) // it is made of strings
		}
		return command{program: "linkpin-cni", stdin: conf, args: nil, env: []string{
			"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + w.id, "CNI_NETNS=" + netns, "CNI_IFNAME=eth0", "CNI_PATH=" + built.bin,
		}}
	}
}

func del(w *world, _ *outcome) error { return w.must(cni("DEL")(w)) }

// startedOrNothing is what is asked of programs that attach: a container that may
// start is covered, and what fails by itself takes everything back by itself.
func startedOrNothing(want traffic) func(*world, *outcome) error {
	return func(w *world, o *outcome) error {
		switch {
		case o.ok():
			return w.covered(want)
		case o.killed():
			return nil // later
		}
		return unpinned()
	}
}

// poststopAfter calls poststop for containers that had started, and for those whose
// hook has met an action.
func poststopAfter(a tracer.Action) func(*world, *outcome) error {
	return func(w *world, o *outcome) error {
		if !o.ok() && o.fault.Action != a {
			return nil
		}
		return w.must(poststop(w))
	}
}

// steal unpins links.
func steal(dir string) error {
	found, err := filepath.Glob(filepath.Join(stateDir, "v1", dir, "*", "*", "link_*"))
	if err != nil {
		return err
	}
	more, err := filepath.Glob(filepath.Join(stateDir, "v1", dir, "*", "*", "*", "*", "link_*"))
	if err == nil && len(found)+len(more) == 0 {
		err = errors.New("nothing to steal")
	}
	if err != nil {
		return err
	}
	for _, path := range append(found, more...) {
		if filepath.Base(filepath.Dir(path)) == "namespace" {
			continue // its absence can be told, but nobody can take it off alone
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// abandon leaves what a process that was killed may leave: staging, an index link
// that leads nowhere, a lock of it, and an owner without entries.
func abandon() error {
	v1 := filepath.Join(stateDir, "v1")
	return errors.Join(
		os.Mkdir(filepath.Join(v1, "staging/0123456789abcdef"), 0o700),
		os.Symlink("../sandboxes/gone", filepath.Join(v1, "netns/18446744073709551615")),
		os.Mkdir(filepath.Join(v1, "netns/lock_18446744073709551614"), 0o700),
	)
}

// oldOrNewPolicies: one of the two sets is in effect, whole, and the next one who
// applies policies finishes.
func oldOrNewPolicies(w *world, o *outcome) error {
	now, err := w.linkpin("policy", "list")
	if err != nil {
		return err
	}
	if now != w.newPolicies && (o.ok() || now != w.oldPolicies) {
		return fmt.Errorf("in effect: %s", now)
	}
	if err := w.must(o.command); err != nil {
		return err
	}
	if now, err = w.linkpin("policy", "list"); err != nil || now != w.newPolicies {
		return fmt.Errorf("applied again, in effect: %s %w", now, err)
	}
	// A set that is in effect already is not written again, and nothing is tidied up.
	if left, err := filepath.Glob(filepath.Join(appliedDir, "sets", ".*")); err != nil || len(left) == 0 {
		return err
	}
	if err := w.must(linkpin("policy", "apply")); err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(appliedDir, "sets", ".*"))
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("unfinished sets: %s", left)
	}
	return err
}
