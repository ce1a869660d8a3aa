// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// spec is the container's configuration: what runtimes give by default, less what
// this project's test hosts refuse (resources, rlimits), and nothing masked.
func (s *scene) spec(shared string) *specs.Spec {
	caps := capabilities
	if s.actor != hostRoot {
		caps = append(append([]string{}, caps...), privileges...)
	}
	if s.opts.ptrace {
		caps = append(caps, "CAP_SYS_PTRACE")
	}
	proc := specs.Mount{Destination: "/proc", Type: "proc", Source: "proc"}
	if s.opts.hostPID { // a new one is refused where the user namespace is another one
		proc = specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind"}}
	}
	namespaces := []specs.LinuxNamespace{
		{Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace}, {Type: specs.NetworkNamespace, Path: netnsPath},
	}
	if !s.opts.hostPID {
		namespaces = append(namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	if s.opts.cgroupns || s.actor == ownUserns {
		namespaces = append(namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	linux := &specs.Linux{CgroupsPath: filepath.Join(s.parent, id)}
	if s.actor == ownUserns {
		namespaces = append(namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: usernsPath})
		linux.UIDMappings = []specs.LinuxIDMapping{{HostID: firstUser, Size: 65536}}
		linux.GIDMappings = linux.UIDMappings
	}
	linux.Namespaces = namespaces
	timeout := 60 // above the sum of the hook's own deadlines
	hook := func(stage string) []specs.Hook {
		path := filepath.Join(built.bin, "linkpin-hook")
		return []specs.Hook{{Path: path, Args: []string{path, stage, "--caller", "none"}, Timeout: &timeout}}
	}
	return &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args: []string{"/bin/thief", "serve", "/shared/agent"}, Cwd: "/", NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Root:     &specs.Root{Path: built.rootfs, Readonly: true},
		Hostname: "container",
		Mounts: []specs.Mount{
			proc,
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/net/tun", Type: "bind", Source: "/run/dev/tun", Options: []string{"bind", "rw"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev"}},
			{Destination: "/shared", Type: "bind", Source: shared, Options: []string{"rbind", "rw"}},
		},
		Hooks: &specs.Hooks{CreateRuntime: hook("createRuntime"), Poststop: hook("poststop")},
		Linux: linux,
	}
}
