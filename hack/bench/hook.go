// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// policies that the containers ask for.
var policies = map[string]string{
	"four": `apiVersion: linkpin.io/v1
kind: Policy
metadata: {name: four}
object: {file: four.bpf.o}
select: {optIn: true}
onError: deny
...
`,
	"egress": `apiVersion: linkpin.io/v1
kind: Policy
metadata: {name: egress}
object: {builtin: egress}
select: {optIn: true}
onError: deny
programs: {connect4: , connect6: , sendmsg4: , sendmsg6: }
constants: {default_deny: false}
...
`,
}

// benchHook measures `run /bin/true` with hooks at createRuntime and poststop.
func benchHook(c config) error {
	dir := "/etc/linkpin/policies.d"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range policies {
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	object, err := os.ReadFile(filepath.Join(c.work, "four.bpf.o"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "four.bpf.o"), object, 0o644); err != nil {
		return err
	}
	if err := command(filepath.Join(c.bin, "linkpin"), "policy", "apply"); err != nil {
		return err
	}
	for _, runtime := range []string{"crun", "runc"} {
		if err := benchRuntime(c, runtime); err != nil {
			return fmt.Errorf("%s: %w", runtime, err)
		}
	}
	return nil
}

func benchRuntime(c config, runtime string) error {
	noop, hook := filepath.Join(c.work, "noop"), filepath.Join(c.bin, "linkpin-hook")
	var variants []*variant
	for _, v := range []struct{ name, hook, policy string }{
		{"no hook", "", ""},
		{"no-op hook in Go", noop, ""},
		{"linkpin, no policy", hook, ""},
		{"linkpin, 4 programs", hook, "four"},
		{"linkpin, builtin egress (4 programs, 7 maps)", hook, "egress"},
	} {
		bundle := filepath.Join(c.work, "bundle-"+strings.ReplaceAll(v.name, " ", "-"))
		if err := writeBundle(c, bundle, v.hook, v.policy); err != nil {
			return err
		}
		variants = append(variants, &variant{name: v.name, run: func() error {
			return command(runtime, "--root", filepath.Join(c.work, runtime), "run", "--bundle", bundle, "bench")
		}})
	}
	if err := measure(c.runs, variants); err != nil {
		return err
	}
	base, peer := variants[0], variants[1].added(variants[0])
	fmt.Printf("\n== %s run /bin/true: hooks at createRuntime and poststop, %d runs each, medians\n", runtime, c.runs)
	fmt.Printf("%-46s %s\n", base.name, ms(median(base.took)))
	for _, v := range variants[1:] {
		fmt.Printf("%-46s +%s   %.2f × no-op\n", v.name, ms(v.added(base)), float64(v.added(base))/float64(peer))
	}
	return command(filepath.Join(c.bin, "linkpin"), "gc", "--wait=5s")
}

func writeBundle(c config, dir, hook, policy string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	s := oci.Spec{
		Version: "1.0.2",
		Process: &oci.Process{Args: []string{"/bin/true"}, Cwd: "/", NoNewPrivileges: true},
		Root:    &oci.Root{Path: filepath.Join(c.work, "rootfs"), Readonly: true},
		Mounts:  []oci.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &oci.Linux{
			CgroupsPath: c.cgroup + "/bench",
			Namespaces: []oci.LinuxNamespace{
				{Type: oci.PIDNamespace}, {Type: oci.MountNamespace}, {Type: oci.IPCNamespace}, {Type: oci.NetworkNamespace},
			},
		},
	}
	if policy != "" {
		s.Annotations = map[string]string{"linkpin.io/policies": policy}
	}
	if hook != "" {
		timeout := 60
		at := func(stage string) []oci.Hook {
			return []oci.Hook{{Path: hook, Args: []string{filepath.Base(hook), stage}, Timeout: &timeout}}
		}
		s.Hooks = &oci.Hooks{CreateRuntime: at("createRuntime"), Poststop: at("poststop")}
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644)
}

// command runs a program and returns what it said if it failed.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(string(out)))
	}
	return nil
}
