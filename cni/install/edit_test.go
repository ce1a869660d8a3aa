// SPDX-License-Identifier: Apache-2.0

package install

import (
	"strings"
	"testing"

	"github.com/linkpin/linkpin/specs"
)

// chain returns a list with these entries, one on each line.
func chain(entries ...string) string {
	return "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"net\",\n  \"plugins\": [\n    " + strings.Join(entries, ",\n    ") + "\n  ]\n}\n"
}

// An entry that is there is brought up to date where it stands, and what others put
// into it stays.
func TestUpdate(t *testing.T) {
	const caps = `"capabilities": {"io.kubernetes.cri.pod-annotations": true, "cgroupPath": true}`
	tests := []struct {
		name, before, after string
		caller              specs.Caller
	}{
		{"in order", chain(`{"type":"bridge"}`, ours), chain(`{"type":"bridge"}`, ours), ""},
		{"none, a single plugin on its line", `{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "ptp"}]}`, `{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "ptp"}, ` + ours + `]}`, ""},
		{"no capabilities", chain(`{"type":"bridge"}`, `{"type": "linkpin-cni"}`), chain(`{"type":"bridge"}`, `{"type": "linkpin-cni", `+caps+`}`), ""},
		{"empty capabilities", chain(`{"type":"bridge"}`, `{"type": "linkpin-cni", "capabilities": {}}`), chain(`{"type":"bridge"}`, ours), ""},
		{"one capability of ours", chain(`{"type":"bridge"}`, `{"type":"linkpin-cni","capabilities":{"io.kubernetes.cri.pod-annotations":true}}`),
			chain(`{"type":"bridge"}`, `{"type":"linkpin-cni","capabilities":{"io.kubernetes.cri.pod-annotations":true,"cgroupPath":true}}`), ""},
		{"the user's keys and capabilities", chain(`{"type":"bridge"}`, `{ "x": [1], "type": "linkpin-cni", "capabilities": { "mine": true } }`),
			chain(`{"type":"bridge"}`, `{ "x": [1], "type": "linkpin-cni", "capabilities": { "mine": true, "io.kubernetes.cri.pod-annotations": true, "cgroupPath": true } }`), ""},
		{"turned off by the user", chain(`{"type":"bridge"}`, strings.Replace(ours, `"cgroupPath": true`, `"cgroupPath": false`, 1)),
			chain(`{"type":"bridge"}`, strings.Replace(ours, `"cgroupPath": true`, `"cgroupPath": false`, 1)), ""},
		{"before tuning", chain(`{"type":"bridge"}`, ours, `{"type":"tuning"}`), chain(`{"type":"bridge"}`, `{"type":"tuning"}`, ours), ""},
		{"before the interface", chain(ours, `{"type":"my-own"}`, `{"type":"portmap"}`), chain(`{"type":"my-own"}`, `{"type":"portmap"}`, ours), ""},
		{"first, and outdated", chain(`{"a": 1, "type": "linkpin-cni"}`, `{"type":"ptp"}`), chain(`{"type":"ptp"}`, `{"a": 1, "type": "linkpin-cni", `+caps+`}`), ""},
		{"before what changes nothing", chain(`{"type":"bridge"}`, ours, `{"type":"portmap"}`, `{"type":"bandwidth"}`, `{"type":"sbr"}`, `{"type":"cilium-cni"}`, `{"type":"istio-cni"}`),
			chain(`{"type":"bridge"}`, ours, `{"type":"portmap"}`, `{"type":"bandwidth"}`, `{"type":"sbr"}`, `{"type":"cilium-cni"}`, `{"type":"istio-cni"}`), ""},
		{"another caller", chain(`{"type":"bridge"}`, `{"type": "linkpin-cni", "caller": "crio", `+caps+`}`), chain(`{"type":"bridge"}`, `{"type": "linkpin-cni", "caller": "containerd", `+caps+`}`), specs.CallerContainerd},
		{"an unknown caller", chain(`{"type":"bridge"}`, `{"type": "linkpin-cni", "caller": "docker", `+caps+`}`), chain(`{"type":"bridge"}`, `{"type": "linkpin-cni", "caller": "containerd", `+caps+`}`), specs.CallerContainerd},
		{"no caller", chain(`{"type":"bridge"}`, ours), chain(`{"type":"bridge"}`, strings.TrimSuffix(ours, "}")+`, "caller": "crio"}`), specs.CallerCRIO},
		{"the caller that is there stays", chain(`{"type":"bridge"}`, `{"type": "linkpin-cni", "caller": "crio", `+caps+`}`), chain(`{"type":"bridge"}`, `{"type": "linkpin-cni", "caller": "crio", `+caps+`}`), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h, c := hostWith(t, map[string]string{"10-net.conflist": test.before}), &CNI{Caller: test.caller}
			install(t, c, h)
			sameFiles(t, h, map[string]string{"10-net.conflist": test.after})
			nothingLeft(t, c.Install, h)
		})
	}
}

// The caller is that of the only runtime of the host.
func TestCaller(t *testing.T) {
	tests := []struct {
		name     string
		cni      CNI
		programs []string
		want     string
	}{
		{"none", CNI{}, nil, `{"type": "linkpin-cni", "cap`},
		{"containerd", CNI{}, []string{"/usr/bin/containerd"}, `{"type": "linkpin-cni", "caller": "containerd", "cap`},
		{"CRI-O", CNI{}, []string{"/usr/local/bin/crio"}, `{"type": "linkpin-cni", "caller": "crio", "cap`},
		{"two", CNI{}, []string{"/usr/bin/containerd", "/usr/bin/podman"}, `{"type": "linkpin-cni", "cap`},
		{"said", CNI{Caller: specs.CallerContainerd}, []string{"/usr/bin/podman"}, `{"type": "linkpin-cni", "caller": "containerd", "cap`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := hostWith(t, map[string]string{"10-net.conflist": bridge})
			for _, p := range test.programs {
				put(t, h, p, "")
			}
			p := install(t, &test.cni, h)
			if got := configs(t, h)["10-net.conflist"]; !strings.Contains(got, test.want) {
				t.Errorf("got %s", got)
			}
			if said := strings.Contains(strings.Join(p.Notes, "\n"), "--caller"); said == strings.Contains(test.want, "caller") {
				t.Errorf("notes: %q", p.Notes)
			}
		})
	}
}

// What can't be understood, or would not work, is never changed.
func TestRefused(t *testing.T) {
	list := func(s string) string { return strings.Replace(bridge, `  "name"`, s+"\n  \"name\"", 1) }
	tests := []struct {
		name, file, text string
		want             []string
	}{
		{"cut off", "1.conflist", bridge[:60], []string{"1.conflist:5", "unexpected end of JSON input"}},
		{"empty", "1.conflist", "", []string{"1.conflist:1", "unexpected end"}},
		{"comment", "1.conflist", list("  // mine"), []string{"1.conflist:3", "comment"}},
		{"other comment", "1.conflist", list("  /* mine */"), []string{"1.conflist:3", "comment"}},
		{"hash", "1.conflist", list("  # mine"), []string{"1.conflist:3", "comment"}},
		{"trailing comma", "1.conflist", strings.Replace(bridge, "}}\n", "}},\n", 1), []string{"1.conflist:7", "invalid character ']'"}},
		{"two values", "1.conflist", bridge + bridge, []string{"1.conflist:9", "after top-level value"}},
		{"byte order mark", "1.conflist", "\ufeff" + bridge, []string{"1.conflist:1", "invalid character"}},
		{"plugins twice", "1.conflist", list(`  "plugins": [],`), []string{"1.conflist:5", `"plugins" twice`}},
		{"plugins twice, escaped", "1.conflist", list(`  "plugin\u0073": [],`), []string{"1.conflist:5", `"plugins" twice`}},
		{"no plugins", "1.conflist", `{"name": "net"}`, []string{`no "plugins"`}},
		{"empty plugins", "1.conflist", `{"name": "net", "plugins": []}`, []string{`"plugins" is empty`}},
		{"plugins no array", "1.conflist", `{"name": "net", "plugins": {}}`, []string{"not an array"}},
		{"no name", "1.conflist", `{"cniVersion": "1.0.0", "plugins": [{"type": "ptp"}]}`, []string{"no network name"}},
		{"a name that is none", "1.conflist", `{"name": 1, "plugins": [{"type": "ptp"}]}`, []string{"name is not a string"}},
		{"a plugin without type", "1.conflist", chain(`{"type": "ptp"}`, `{"x": 1}`), []string{"1.conflist:6", "no type"}},
		{"a plugin that is none", "1.conflist", chain(`{"type": "ptp"}`, `"x"`), []string{"1.conflist:6", "no type"}},
		{"not an object", "1.conflist", `[]`, []string{"not a JSON object"}},
		{"single in a list's file", "1.conflist", `{"name": "net", "type": "ptp"}`, []string{"is a single plugin"}},
		{"list in a single's file", "1.conf", bridge, []string{"1.conf:4", ".conflist"}},
		{"single without type", "1.conf", `{"name": "net"}`, []string{"no plugin type"}},
		{"single without name", "1.conf", `{"cniVersion": "1.0.0", "type": "ptp"}`, []string{"no network name"}},
		{"only ours", "1.conf", `{"cniVersion": "1.0.0", "name": "net", "type": "linkpin-cni"}`, []string{"its only plugin"}},
		{"only ours in a list", "1.conflist", chain(ours), []string{"1.conflist:5", "alone"}},
		{"version too old", "1.conflist", strings.Replace(bridge, "1.0.0", "0.2.0", 1), []string{"1.conflist:2", `cniVersion is "0.2.0": linkpin-cni speaks 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0`}},
		{"version too new", "1.conflist", strings.Replace(bridge, "1.0.0", "2.0.0", 1), []string{`cniVersion is "2.0.0"`}},
		{"no version", "1.conflist", strings.Replace(bridge, `  "cniVersion": "1.0.0",`+"\n", "", 1), []string{"no cniVersion"}},
		{"version of a single", "1.conf", `{"cniVersion": "0.2.0", "name": "net", "type": "ptp"}`, []string{"1.conf:1", `"0.2.0"`}},
		{"old among versions", "1.conflist", strings.Replace(list(`  "cniVersions": ["1.0.0"],`), `"cniVersion": "1.0.0"`, `"cniVersion": "0.2.0"`, 1), []string{`"0.2.0"`}},
		{"several of ours", "1.conflist", chain(`{"type": "ptp"}`, ours, ours), []string{"1.conflist:7", "2 times"}},
		{"unknown caller", "1.conflist", chain(`{"type": "ptp"}`, `{"type": "linkpin-cni", "caller": "docker"}`), []string{"1.conflist:6", `"docker"`, "containerd"}},
		{"key twice in ours", "1.conflist", chain(`{"type": "ptp"}`, `{"type": "linkpin-cni", "caller": "crio", "Caller": "none"}`), []string{"1.conflist:6", `"Caller" twice`}},
		{"capabilities of another kind", "1.conflist", chain(`{"type": "ptp"}`, `{"type": "linkpin-cni", "capabilities": ["cgroupPath"]}`), []string{"1.conflist:6", "not an object of booleans"}},
		{"capability twice", "1.conflist", chain(`{"type": "ptp"}`, `{"type": "linkpin-cni", "capabilities": {"cgroupPath": true, "cgroupPath": false}}`), []string{"1.conflist:6", "twice"}},
		{"too large", "1.conflist", bridge + strings.Repeat(" ", maxConfig), []string{"larger than"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := map[string]string{test.file: test.text}
			h := hostWith(t, before)
			_, err := (&CNI{}).Install(h)
			refused(t, h, before, err, append(test.want, "/etc/cni/net.d/"+test.file)...)
		})
	}
}

// A drop-in of ours would be called besides the entry: each by itself is enough.
func TestDropinOfOurs(t *testing.T) {
	h, c := hostWith(t, map[string]string{"10.conflist": bridge, "net/l.conf": `{"type": "linkpin-cni"}`}), &CNI{}
	before := configs(t, h)
	_, err := c.Install(h)
	refused(t, h, before, err, "/etc/cni/net.d/net/l.conf", "remove it")
	put(t, h, "10.conflist", withOurs)
	if p := uninstall(t, c, h); !strings.Contains(p.Diff(), "net/l.conf names linkpin-cni too") {
		t.Errorf("notes: %q", p.Notes)
	}
	sameFiles(t, h, before)
}

// What Install can't mend it says.
func TestNotes(t *testing.T) {
	h := hostWith(t, map[string]string{"10.conflist": bridge, "20.conflist": bridge, "net/t.conf": `{"type": "tuning"}`})
	p := install(t, &CNI{}, h)
	for _, want := range []string{"pods get it when they are created", `/etc/cni/net.d/20.conflist has a network "net" too`, "/etc/cni/net.d/net adds tuning behind the list"} {
		if !strings.Contains(strings.Join(p.Notes, "\n"), want) {
			t.Errorf("%q does not say %q", p.Notes, want)
		}
	}
}

// cniVersions: libcni takes the newest that it knows.
func TestVersionsOfAList(t *testing.T) {
	for text, good := range map[string]bool{
		`"cniVersion": "1.0.0"`:                                     true,
		`"cniVersion": "0.3.0"`:                                     true,
		`"cniVersion": "0.2.0"`:                                     false,
		`"cniVersions": ["0.4.0", "1.1.0", "2.0.0"]`:                true,
		`"cniVersions": ["2.0.0"]`:                                  false,
		`"cniVersions": ["0.2.0"]`:                                  false,
		`"cniVersions": ["0.2.0"], "cniVersion": "0.4.0"`:           true,
		`"cniVersions": ["1.0.0", "1.0.1"], "cniVersion": "1.0.0"`:  false,
		`"cniVersions": "1.0.0"`:                                    false,
		`"cniVersion": 1`:                                           false,
		`"cniVersion": ""`:                                          false,
		`"cniVersions": ["0.10.0", "0.4.0"], "cniVersion": "0.4.0"`: false,
		`"cniVersions": ["0.4.0", "0.3.1"]`:                         true,
	} {
		l, err := parseList([]byte(`{` + text + `, "name": "n", "plugins": [{"type": "ptp"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.checkVersion(); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// The guard behind every edit: what is said beside our entry is the same.
func TestSameBesideOurs(t *testing.T) {
	for text, same := range map[string]bool{
		withOurs:                            true,
		strings.ReplaceAll(bridge, " ", ""): true,
		strings.Replace(bridge, `"net"`, `"nets"`, 1):          false,
		strings.Replace(bridge, "true", "false", 1):            false,
		chain(`{"type": "bridge"}`):                            false,
		strings.Replace(bridge, `"name"`, `"x": 1, "name"`, 1): false,
		bridge + "1": false,
	} {
		if got := sameBesideOurs([]byte(bridge), []byte(text)); got != same {
			t.Errorf("%v: %s", got, text)
		}
	}
}

// Uninstall takes the entry out of every network, or of the one that is named, and
// leaves edits that others made in between.
func TestUninstall(t *testing.T) {
	files := map[string]string{"10-a.conflist": named("a"), "20-b.conflist": named("b"), "30-c.conflist": named("c")}
	h := hostWith(t, files)
	install(t, &CNI{}, h)
	install(t, &CNI{Network: "c"}, h)
	put(t, h, "10-a.conflist", strings.Replace(configs(t, h)["10-a.conflist"], `"bridge"`, `"ptp", "mtu": 1400`, 1))
	files["10-a.conflist"] = strings.Replace(files["10-a.conflist"], `"bridge"`, `"ptp", "mtu": 1400`, 1)
	uninstall(t, &CNI{Network: "c"}, h)
	if got := configs(t, h); got["30-c.conflist"] != files["30-c.conflist"] || got["10-a.conflist"] == files["10-a.conflist"] {
		t.Errorf("after uninstalling c: %v", got)
	}
	uninstall(t, &CNI{}, h)
	sameFiles(t, h, files)
	nothingLeft(t, (&CNI{}).Uninstall, h)

	put(t, h, "10-a.conflist", chain(`{"type": "ptp"}`, ours, `{"type": "portmap"}`, ours))
	uninstall(t, &CNI{}, h)
	if got := configs(t, h)["10-a.conflist"]; got != chain(`{"type": "ptp"}`, `{"type": "portmap"}`) {
		t.Errorf("several entries: %s", got)
	}

	for text, want := range map[string]string{
		chain(ours):            "remove the file",
		withOurs[:len(ours)+9]: "correct the file",
	} {
		before := map[string]string{"10-a.conflist": text + ` "linkpin-cni"`}
		if want == "remove the file" {
			before["10-a.conflist"] = text
		}
		h := hostWith(t, before)
		_, err := (&CNI{}).Uninstall(h)
		refused(t, h, before, err, "10-a.conflist", want)
	}
	// A broken file that has nothing of ours does not stand in the way.
	h = hostWith(t, map[string]string{"10-a.conflist": "{", "20-b.conflist": withOurs})
	uninstall(t, &CNI{}, h)
	sameFiles(t, h, map[string]string{"10-a.conflist": "{", "20-b.conflist": bridge})
}
