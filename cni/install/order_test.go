// SPDX-License-Identifier: Apache-2.0

package install

import (
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs"
)

func named(name string) string { return strings.Replace(bridge, `"net"`, `"`+name+`"`, 1) }

// edited returns the one file that installing changes.
func edited(t *testing.T, c *CNI, files map[string]string) string {
	t.Helper()
	h := hostWith(t, files)
	p, err := c.Install(h)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Changes) != 1 {
		t.Fatalf("%d changes:\n%s", len(p.Changes), p.Diff())
	}
	return strings.TrimPrefix(p.Changes[0].Path, DefaultDir+"/")
}

func TestWhichNetwork(t *testing.T) {
	tests := []struct {
		name  string
		cni   CNI
		files map[string]string
		want  string
	}{
		{"bytes of the names, not numbers", CNI{}, map[string]string{"9-a.conflist": named("a"), "10-b.conflist": named("b")}, "10-b.conflist"},
		{"upper case first", CNI{}, map[string]string{"a.conflist": named("a"), "B.conflist": named("b")}, "B.conflist"},
		{"others are not read", CNI{}, map[string]string{"00-a.conflist.bak": "x", "01.txt": "x", "02.conflist.cilium_bak": "x", "10-b.conflist": named("b")}, "10-b.conflist"},
		{"directories are passed over", CNI{}, map[string]string{"00-a.conflist/x": "x", "10-b.conflist": named("b")}, "10-b.conflist"},
		{"by name", CNI{Network: "z"}, map[string]string{"10-b.conflist": named("b"), "20-z.conflist": named("z")}, "20-z.conflist"},
		{"by name, a broken file elsewhere", CNI{Network: "z"}, map[string]string{"10-b.conflist": "{", "20-z.conflist": named("z")}, "20-z.conflist"},
		{"by name, the first of two", CNI{Network: "z"}, map[string]string{"20-z.conflist": named("z"), "30-z.conflist": named("z")}, "20-z.conflist"},
		{"podman goes by its default network", CNI{Caller: specs.CallerPodman}, map[string]string{"10-b.conflist": named("b"), "87-podman-bridge.conflist": named("podman")}, "87-podman-bridge.conflist"},
		{"podman reads no single plugins", CNI{Caller: specs.CallerPodman}, map[string]string{"10-b.conf": `{"cniVersion": "0.4.0", "name": "podman", "type": "ptp"}`, "87-podman-bridge.conflist": named("podman")}, "87-podman-bridge.conflist"},
		{"podman by being the only runtime", CNI{}, map[string]string{"10-b.conflist": named("b"), "87-podman-bridge.conflist": named("podman"), "/usr/bin/podman": ""}, "87-podman-bridge.conflist"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := edited(t, &test.cni, test.files); got != test.want {
				t.Errorf("edits %s, want %s", got, test.want)
			}
		})
	}
}

func TestDirElsewhere(t *testing.T) {
	const dir = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
	h := hostWith(t, map[string]string{dir + "/10-flannel.conflist": bridge})
	p := install(t, &CNI{Dir: dir + "/"}, h)
	if p.Changes[0].Path != dir+"/10-flannel.conflist" {
		t.Errorf("edits %s", p.Changes[0].Path)
	}
}

func TestNoNetwork(t *testing.T) {
	tests := []struct {
		name  string
		cni   CNI
		files map[string]string
		want  []string
	}{
		{"none at all", CNI{}, nil, []string{"/etc/cni/net.d: has no network configuration; install the network of the cluster first"}},
		{"only what nobody reads", CNI{}, map[string]string{"x.bak": "x"}, []string{"has no network configuration"}},
		{"no such name", CNI{Network: "x"}, map[string]string{"10-b.conflist": named("b")}, []string{`has no network "x"`, `name one of ["b"]`}},
		{"no such name, but a broken file", CNI{Network: "x"}, map[string]string{"10-b.conflist": "{\n"}, []string{`network "x" is in no other file`, "10-b.conflist:1", "correct the file"}},
		{"multus", CNI{}, map[string]string{"00-multus.conf": `{"cniVersion": "0.3.1", "name": "multus", "type": "multus-shim"}`, "10-b.conflist": named("b")}, []string{"00-multus.conf: is multus", "--network"}},
		{"unknown caller", CNI{Caller: "docker"}, map[string]string{"10-b.conflist": named("b")}, []string{"docker", "podman"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := hostWith(t, test.files)
			put(t, h, "keep", "")
			before := configs(t, h)
			_, err := test.cni.Install(h)
			refused(t, h, before, err, test.want...)
			p, err := test.cni.Uninstall(h)
			if err != nil || !p.Empty() {
				t.Errorf("uninstall: %v, %v", p, err)
			}
		})
	}
}

func TestBinary(t *testing.T) {
	bin := func(dir string, names ...string) map[string]string {
		out := map[string]string{"10-b.conflist": bridge}
		for _, n := range names {
			out[dir+"/"+n] = "#!"
		}
		return out
	}
	tests := []struct {
		name  string
		cni   CNI
		files map[string]string
		want  string
	}{
		{"nothing there", CNI{}, nil, "/opt/cni/bin"},
		{"usual", CNI{}, bin("/opt/cni/bin", "bridge", "portmap"), "/opt/cni/bin"},
		{"Debian's", CNI{}, bin("/usr/lib/cni", "bridge", "portmap"), "/usr/lib/cni"},
		{"Fedora's", CNI{}, bin("/usr/libexec/cni", "bridge", "portmap"), "/usr/libexec/cni"},
		{"all of the chain", CNI{}, with(bin("/usr/lib/cni", "bridge", "portmap"), map[string]string{"/opt/cni/bin/portmap": "#!"}), "/usr/lib/cni"},
		{"at least the first of the chain", CNI{}, with(bin("/usr/lib/cni", "bridge"), map[string]string{"/opt/cni/bin/portmap": "#!"}), "/usr/lib/cni"},
		{"not executable", CNI{}, with(bin("/usr/lib/cni", "bridge", "portmap"), map[string]string{"/opt/cni/plain": "x"}), "/usr/lib/cni"},
		{"said", CNI{BinDirs: []string{"/srv/cni-bin"}}, bin("/opt/cni/bin", "bridge", "portmap"), "/srv/cni-bin"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.cni.Host = hostWith(t, test.files)
			b := test.cni.Binaries()[0]
			name, p := b.Name, b.Path
			if name != "linkpin-cni" || p != test.want+"/linkpin-cni" {
				t.Errorf("Binary() = %s, %s", name, p)
			}
		})
	}
}
