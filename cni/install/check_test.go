// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/base64"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkpin/linkpin/specs"
)

func TestCheck(t *testing.T) {
	bins := map[string]string{"/opt/cni/bin/bridge": "#!", "/opt/cni/bin/portmap": "#!", "/opt/cni/bin/linkpin-cni": "#!"}
	entry := func(s string) string { return chain(`{"type": "bridge"}`, s) }
	const goes = `10.conflist: network "net" goes without linkpin-cni: no interface or namespace programs`
	tests := []struct {
		name  string
		cni   CNI
		files map[string]string
		want  []string
	}{
		{"in order", CNI{}, map[string]string{"10.conflist": withOurs}, []string{`ok 10.conflist: network "net" has linkpin-cni`}},
		{"only unread files", CNI{}, map[string]string{"x.bak": withOurs}, nil},
		{"without the entry", CNI{}, map[string]string{"10.conflist": bridge}, []string{"warn " + goes}},
		{"the provider wrote it anew", CNI{}, map[string]string{"10.conflist": strings.Replace(bridge, "bridge", "calico", 1)},
			[]string{"warn " + goes + " (calico writes the list anew when its node pod starts: add the entry to cni_network_config of its ConfigMap too, or install again then)"}},
		{"another network without it", CNI{}, map[string]string{"10.conflist": withOurs, "20.conflist": named("other")}, []string{`ok 10.conflist: network "net" has linkpin-cni`}},
		{"one that wins lacks it", CNI{}, map[string]string{"05.conflist": named("other"), "10.conflist": withOurs},
			[]string{"fail 05.conflist: sorts before /etc/cni/net.d/10.conflist, which has linkpin-cni, and is what pods get", `ok 10.conflist: network "net" has linkpin-cni`}},
		{"the named network has it", CNI{Network: "net"}, map[string]string{"05.conflist": named("other"), "10.conflist": withOurs}, []string{`ok 10.conflist: network "net" has linkpin-cni`}},
		{"the named network lacks it", CNI{Network: "net"}, map[string]string{"05.conflist": named("other"), "10.conflist": bridge}, []string{"warn " + goes}},
		{"podman goes by names", CNI{Caller: specs.CallerPodman}, map[string]string{"05.conflist": named("other"), "10.conflist": strings.Replace(withOurs, `"net"`, `"podman"`, 1)},
			[]string{`ok 10.conflist: network "podman" has linkpin-cni`}},
		{"multus in front", CNI{}, map[string]string{"00.conf": `{"cniVersion": "0.3.1", "name": "m", "type": "multus"}`, "10.conflist": withOurs},
			[]string{`ok 00.conf: multus calls other networks; linkpin-cni is in "net"`, `ok 10.conflist: network "net" has linkpin-cni`}},
		{"multus alone", CNI{}, map[string]string{"00.conf": `{"cniVersion": "0.3.1", "name": "m", "type": "multus"}`}, []string{"warn 00.conf: linkpin-cni is in no network that multus may call"}},
		{"first of the chain", CNI{}, map[string]string{"10.conflist": chain(ours, `{"type": "portmap"}`)}, []string{"fail 10.conflist: linkpin-cni has the wrong place: it is the first of its chain: there is no interface yet"}},
		{"before tuning", CNI{}, map[string]string{"10.conflist": chain(`{"type": "bridge"}`, ours, `{"type": "tuning"}`)}, []string{"fail 10.conflist: linkpin-cni has the wrong place: tuning comes after it and changes the interface"}},
		{"before vrf", CNI{}, map[string]string{"10.conflist": chain(`{"type": "bridge"}`, ours, `{"type": "vrf"}`)}, []string{"fail 10.conflist: linkpin-cni has the wrong place: vrf comes after it and changes the interface"}},
		{"twice", CNI{}, map[string]string{"10.conflist": chain(`{"type": "bridge"}`, ours, ours)}, []string{"fail 10.conflist: linkpin-cni is in the chain more than once"}},
		{"alone", CNI{}, map[string]string{"10.conf": `{"cniVersion": "0.4.0", "name": "n", "type": "linkpin-cni"}`}, []string{"fail 10.conf: linkpin-cni is its only plugin: no pod starts"}},
		{"no capabilities", CNI{}, map[string]string{"10.conflist": entry(`{"type": "linkpin-cni"}`)},
			[]string{"warn 10.conflist: linkpin-cni does not declare io.kubernetes.cri.pod-annotations, cgroupPath: runtimes do not pass it"}},
		{"a capability in other letters", CNI{}, map[string]string{"10.conflist": entry(strings.Replace(ours, "cgroupPath", "cgrouppath", 1))},
			[]string{"warn 10.conflist: linkpin-cni does not declare cgroupPath: runtimes do not pass it"}},
		{"a capability turned off", CNI{}, map[string]string{"10.conflist": entry(strings.Replace(ours, `"cgroupPath": true`, `"cgroupPath": false`, 1))},
			[]string{"warn 10.conflist: the entry of linkpin-cni turns cgroupPath off"}},
		{"unknown caller", CNI{}, map[string]string{"10.conflist": entry(strings.Replace(ours, `"type"`, `"caller": "docker", "type"`, 1))},
			[]string{`fail 10.conflist:6: linkpin-cni does not know the caller "docker" and refuses every call`}},
		{"unknown key", CNI{}, map[string]string{"10.conflist": entry(strings.Replace(ours, `"type"`, `"policy": "x", "type"`, 1))}, []string{`warn 10.conflist:6: linkpin-cni does not know the key "policy"`}},
		{"version", CNI{}, map[string]string{"10.conflist": strings.Replace(withOurs, "1.0.0", "0.2.0", 1)}, []string{`fail 10.conflist:2: cniVersion is "0.2.0": linkpin-cni speaks 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0`}},
		{"malformed, first", CNI{}, map[string]string{"05.conflist": "{", "10.conflist": withOurs}, []string{"fail 05.conflist:1: unexpected end of JSON input", `ok 10.conflist: network "net" has linkpin-cni`}},
		{"malformed, last", CNI{}, map[string]string{"10.conflist": withOurs, "20.conf": bridge}, []string{`ok 10.conflist: network "net" has linkpin-cni`, "warn 20.conf:4: is a list of plugins, which runtimes read only from files that end in .conflist"}},
		{"two of one name", CNI{}, map[string]string{"10.conf": strings.Replace(single, "0.4.0", "1.0.0", 1), "10.conflist": withOurs}, []string{
			"fail 10.conf: sorts before /etc/cni/net.d/10.conflist, which has linkpin-cni, and is what pods get",
			`warn 10.conflist: /etc/cni/net.d/10.conf has a network "net" too: podman reads only lists, others take the first file`,
			`ok 10.conflist: network "net" has linkpin-cni`}},
		{"drop-in that changes the interface", CNI{}, map[string]string{"10.conflist": withOurs, "net/t.conf": `{"type": "tuning"}`}, []string{"warn 10.conflist: tuning of /etc/cni/net.d/net comes after linkpin-cni and changes the interface"}},
		{"drop-ins that are not read", CNI{}, map[string]string{"10.conflist": strings.Replace(withOurs, `"name"`, `"loadOnlyInlinedPlugins": true, "name"`, 1), "net/t.conf": `{"type": "tuning"}`}, []string{`ok 10.conflist: network "net" has linkpin-cni`}},
		{"drop-in of ours", CNI{}, map[string]string{"10.conflist": bridge, "net/t.conf": `{"type": "linkpin-cni"}`}, []string{`ok 10.conflist: network "net" has linkpin-cni by /etc/cni/net.d/net/t.conf`}},
		{"drop-in of ours besides", CNI{}, map[string]string{"10.conflist": withOurs, "net/t.conf": `{"type": "linkpin-cni"}`}, []string{"fail 10.conflist: linkpin-cni is in the chain more than once"}},
		{"left from a conversion", CNI{}, map[string]string{"10.conflist": withOurs, "20.conf" + savedSuffix: single}, []string{`ok 10.conflist: network "net" has linkpin-cni`, "warn 20.conf.linkpin-saved: is what a list was made of that is gone"}},
		{"converted, and written again", CNI{}, map[string]string{"10.conf": single, "10.conflist": listOf, "10.conf" + savedSuffix: single}, []string{
			"fail 10.conf: sorts before /etc/cni/net.d/10.conflist, which has linkpin-cni, and is what pods get",
			`warn 10.conflist: /etc/cni/net.d/10.conf has a network "net" too: podman reads only lists, others take the first file`,
			`ok 10.conflist: network "net" has linkpin-cni`,
			"warn 10.conf: is back, and sorts before the list that was made of it"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := hostWith(t, with(bins, test.files))
			if diff := cmp.Diff(test.want, lines(&test.cni, h)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := (&CNI{}).Check(hostWith(t, bins)); got != nil {
		t.Errorf("no directory: %v", got)
	}
}

func TestCheckBinary(t *testing.T) {
	const fails = ": containerd starts no pod, CRI-O and podman drop the network"
	h := hostWith(t, map[string]string{"10.conflist": withOurs, "/usr/lib/cni/bridge": "#!", "/usr/lib/cni/portmap": "#!"})
	check := func(want string) {
		t.Helper()
		got := lines(&CNI{}, h)
		if want == "" && len(got) == 1 {
			return
		}
		if len(got) != 2 || got[1] != "fail linkpin-cni: "+want+fails {
			t.Errorf("%q, want %q", got, want)
		}
	}
	check("is not there")
	put(t, h, "/opt/cni/bin/linkpin-cni", "#!")
	check("is not there, only /opt/cni/bin/linkpin-cni, and the other plugins of the chain are here")
	put(t, h, "/usr/lib/cni/linkpin-cni", "#!")
	check("")
	os.Remove(at(h, "/opt/cni/bin/linkpin-cni"))
	if err := os.Chmod(at(h, "/usr/lib/cni/linkpin-cni"), 0o644); err != nil {
		t.Fatal(err)
	}
	check("is not executable")
}

func TestDanglingLink(t *testing.T) {
	h := hostWith(t, map[string]string{"10.conflist": bridge})
	if err := os.Symlink("gone", at(h, "05.conflist")); err != nil {
		t.Fatal(err)
	}
	if _, err := (&CNI{}).Install(h); err == nil || !strings.Contains(err.Error(), "05.conflist: is a symbolic link to nothing") {
		t.Errorf("install: %v", err)
	}
	if got := lines(&CNI{}, h); len(got) != 1 || !strings.HasPrefix(got[0], "fail 05.conflist") {
		t.Errorf("check: %q", got)
	}
}

func TestUses(t *testing.T) {
	const bin = "/opt/cni/bin/linkpin-cni"
	config := base64.StdEncoding.EncodeToString([]byte(withOurs))
	tests := []struct {
		name  string
		files map[string]string
		path  string
		want  bool
	}{
		{"entry", map[string]string{"10.conflist": withOurs}, bin, true},
		{"entry of any network", map[string]string{"10.conflist": named("a"), "20.conflist": withOurs}, bin, true},
		{"no entry", map[string]string{"10.conflist": bridge}, bin, false},
		{"no directory", nil, bin, false},
		{"where runtimes do not look", map[string]string{"10.conflist": withOurs}, "/usr/local/bin/linkpin-cni", false},
		{"another program", map[string]string{"10.conflist": withOurs}, "/opt/cni/bin/bridge", false},
		{"unreadable", map[string]string{"10.conflist": "{"}, bin, true},
		{"drop-in", map[string]string{"10.conflist": bridge, "net/l.conf": `{"type": "linkpin-cni"}`}, bin, true},
		{"a sandbox was made with it", map[string]string{"10.conflist": bridge, "/var/lib/cni/results/net-pod1-eth0": `{"kind": "cniCacheV1", "config": "` + config + `"}`}, bin, true},
		{"sandboxes without it", map[string]string{"10.conflist": bridge, "/var/lib/cni/results/net-pod1-eth0": `{"kind": "cniCacheV1", "config": "e30="}`, "/var/lib/cni/results/x": "{"}, bin, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := (&CNI{}).Uses(hostWith(t, test.files), test.path); got != test.want {
				t.Errorf("Uses() = %v", got)
			}
		})
	}
}
