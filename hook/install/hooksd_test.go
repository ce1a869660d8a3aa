// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/specs/change"
)

const (
	podmanCreateName   = "90-linkpin-podman-createRuntime.json"
	podmanPoststopName = "90-linkpin-podman-poststop.json"
)

// TestHooksdContent compares what is written with files that a person has read.
func TestHooksdContent(t *testing.T) {
	for _, c := range []struct {
		target change.Target
		file   string
		golden string
	}{
		{Podman{Hook: testHook, When: Always}, podmanCreateName, "podman-createRuntime.json"},
		{Podman{Hook: testHook}, podmanPoststopName, "podman-poststop.json"},
		{CRIO{Hook: testHook, When: OptIn}, "90-linkpin-crio-createRuntime.json", "crio-createRuntime-optin.json"},
	} {
		t.Run(c.golden, func(t *testing.T) {
			h := hostFiles(t, nil)
			mustInstall(t, h, c.target)
			got, err := os.ReadFile(filepath.Join(h.Dir, hooksdDefault, c.file))
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join("testdata", c.golden))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestHooksdPlaces goes through configurations: where the files are put, and that
// they can be taken out again.
func TestHooksdPlaces(t *testing.T) {
	podman, crio := Podman{Hook: testHook}, CRIO{Hook: testHook}
	for _, c := range []struct {
		name   string
		target change.Target
		files  map[string]string
		dir    string
		dropIn string // its list, if there is to be one
	}{
		{"fresh podman", podman, nil, hooksdDefault, ""},
		{"fresh CRI-O", crio, nil, hooksdDefault, ""},
		{"directory exists and is empty", podman, map[string]string{hooksdDefault + "/": ""}, hooksdDefault, ""},
		{"commented out", podman, map[string]string{podmanShared: "[engine]\n#hooks_dir = [\"/no\"]\n"}, hooksdDefault, ""},
		{"shared configuration", podman, map[string]string{podmanShared: "[engine]\nhooks_dir = [\"/opt/a\"]\n"}, "/opt/a", ""},
		{"etc replaces shared", podman, map[string]string{
			podmanShared: "[engine]\nhooks_dir = [\"/opt/a\"]\n", podmanConf: "[engine]\nhooks_dir = [\"/opt/b\"]\n",
		}, "/opt/b", ""},
		{"drop-ins in order, others passed over", podman, map[string]string{
			podmanConf: "[engine]\nhooks_dir = [\"/opt/b\"]\n", podmanDropIn + "/20-b.conf": "engine.hooks_dir = [\"/opt/d\"]\n",
			podmanDropIn + "/10-a.conf": "[engine]\nhooks_dir = [\"/opt/c\"]\n", podmanDropIn + "/30.txt": "= not TOML",
			podmanDropIn + "/sub.conf/40.conf": "= not TOML",
		}, "/opt/d", ""},
		{"last of several", podman, map[string]string{podmanConf: "[engine]\nhooks_dir = [\"/opt/a\", \"/opt/b\"]\n", "/opt/a/": "", "/opt/b/x.json": "{}"}, "/opt/b", ""},
		{"not a directory", podman, map[string]string{podmanConf: "[engine]\nhooks_dir = [\"/opt/a\", \"/opt/b\"]\n", "/opt/b": ""}, "/opt/a", ""},
		{"CRLF", podman, map[string]string{podmanConf: "[engine]\r\nhooks_dir = [\r\n\"/opt/a\"]\r\n"}, "/opt/a", ""},
		{"append", podman, map[string]string{podmanConf: "[engine]\nhooks_dir = [\"/opt/a\", {append = true}]\n"}, "/opt/a", ""},
		{"append first", podman, map[string]string{
			podmanConf: "[engine]\nhooks_dir = [{append = true}]\n", podmanDropIn + "/1.conf": "[engine]\nhooks_dir = [\"relative\"]\n",
		}, hooksdDefault, ""},
		{"symbolic link", podman, map[string]string{hooksdDefault: "-> /var/hooks", "/var/hooks/": ""}, "/var/hooks", ""},
		{"one directory under two names", podman, map[string]string{
			podmanConf: "[engine]\nhooks_dir = [\"/opt/link\", \"/opt/real\"]\n", "/opt/real/": "", "/opt/link": "-> real",
		}, "/opt/real", ""},
		{"link that leads out", podman, map[string]string{"/usr/share/containers": "-> ../../../../../../../../../../var/c"}, "/var/c/oci/hooks.d", ""},
		{"no directory", podman, map[string]string{podmanConf: "[engine]\nhooks_dir = []\n"}, "/etc/linkpin/podman-hooks.d", `["/etc/linkpin/podman-hooks.d"]`},
		{"only what can't be used", podman, map[string]string{podmanConf: "[engine]\nhooks_dir = [\"rel\\\"ative\"]\n"},
			"/etc/linkpin/podman-hooks.d", `["rel\"ative" "/etc/linkpin/podman-hooks.d"]`},
		{"CRI-O: main file", crio, map[string]string{crioConf: "[crio.runtime]\nhooks_dir = [\n\t\"/opt/a\",\n]\n"}, "/opt/a", ""},
		{"CRI-O: every file below", crio, map[string]string{
			crioConf: "[crio]\n", crioDropIn + "/10-crio.conf": "[crio.runtime]\nhooks_dir = [\"/opt/a\"]\n",
			crioDropIn + "/20/x": "[crio.runtime]\nhooks_dir = [\"/opt/b\"]\n",
		}, "/opt/b", ""},
		{"CRI-O: no directory", crio, map[string]string{crioConf: "[crio.runtime]\nhooks_dir = []\n", crioDropIn + "/10-crio.conf": "[crio.image]\n"},
			"/etc/linkpin/crio-hooks.d", `["/etc/linkpin/crio-hooks.d"]`},
		{"beside CRI-O", podman, map[string]string{"/usr/bin/crio": "", "/usr/bin/podman": ""}, "/etc/linkpin/podman-hooks.d",
			`["` + hooksdDefault + `" "/etc/linkpin/podman-hooks.d"]`},
		{"beside podman", crio, map[string]string{"/usr/bin/crio": "", "/usr/bin/podman": ""}, "/etc/linkpin/crio-hooks.d",
			`["` + hooksdDefault + `" "/etc/linkpin/crio-hooks.d"]`},
		{"beside podman with its own directory", crio, map[string]string{"/usr/bin/podman": "", podmanConf: "[engine]\nhooks_dir = [\"/opt/p\"]\n"}, hooksdDefault, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hostFiles(t, c.files)
			before := hostTree(t, h)
			mustInstall(t, h, c.target)
			for _, stage := range []string{"createRuntime", "poststop"} {
				p := filepath.Join(h.Dir, c.dir, "90-linkpin-"+c.target.Name()+"-"+stage+".json")
				if _, err := os.Lstat(p); err != nil {
					t.Error(err)
				}
			}
			r := podmanRuntime()
			if c.target.Name() == "crio" {
				r = crioRuntime()
			}
			config, err := r.read(h)
			if err != nil {
				t.Fatal(err)
			}
			if h.Exists(r.dropIn) != (c.dropIn != "") {
				t.Errorf("the drop-in exists: %t", h.Exists(r.dropIn))
			}
			if got := quoted(config.dirs); c.dropIn != "" && got != c.dropIn {
				t.Errorf("the runtime reads %s, want %s", got, c.dropIn)
			}
			checkInstalled(t, h, c.target, before)
		})
	}
}

func quoted(dirs []string) string {
	var q []string
	for _, d := range dirs {
		q = append(q, tomlString(d))
	}
	return "[" + strings.Join(q, " ") + "]"
}

// TestHooksdRefuses lists what is never overwritten or guessed at: nothing changes,
// and the error names the file.
func TestHooksdRefuses(t *testing.T) {
	podman, crio := Podman{Hook: testHook}, CRIO{Hook: testHook}
	for _, c := range []struct {
		name   string
		target change.Target
		files  map[string]string
		want   string
	}{
		{"foreign file of our name", podman, map[string]string{hooksdDefault + "/" + podmanCreateName: `{"version":"1.0.0","hook":{"path":"/bin/x"},"stages":[]}`},
			"/" + podmanCreateName + ": is not linkpin's"},
		{"file of our name that can't be read", podman, map[string]string{hooksdDefault + "/" + podmanCreateName: "{\n\"version\": \"1.0.0\",\n}"},
			podmanCreateName + ":3: invalid character"},
		{"empty file of our name", podman, map[string]string{hooksdDefault + "/" + podmanCreateName: ""}, podmanCreateName + ":1: "},
		{"directory of our name", podman, map[string]string{hooksdDefault + "/" + podmanCreateName + "/": ""}, "is not a regular file"},
		{"malformed containers.conf", podman, map[string]string{podmanConf: "[engine]\n\nhooks_dir = [\"/a\"\nx = 1\n"}, podmanConf + ":4: "},
		{"not UTF-8", podman, map[string]string{podmanDropIn + "/x.conf": "[engine]\n# \xff\xfe\n"}, podmanDropIn + "/x.conf:2: "},
		{"no list", podman, map[string]string{podmanConf: "[engine]\nhooks_dir = \"/a\"\n"}, podmanConf + ": hooks_dir has the value /a"},
		{"list of numbers", podman, map[string]string{podmanConf: "[engine]\nhooks_dir = [1]\n"}, podmanConf + ": hooks_dir has the value 1"},
		{"no table", podman, map[string]string{podmanConf: "engine = 1\n"}, podmanConf + ": engine is not a table"},
		{"malformed crio.conf", crio, map[string]string{crioConf: "[crio.runtime\n"}, crioConf + ":1: "},
		{"malformed drop-in", crio, map[string]string{crioDropIn + "/README": "hello\n"}, crioDropIn + "/README:1: "},
		{"foreign drop-in", crio, map[string]string{crioDropIn + "/99-linkpin.conf": "[crio.runtime]\nhooks_dir=[]\n"}, "99-linkpin.conf: is not linkpin's"},
		{"overridden drop-in", crio, map[string]string{crioDropIn + "/99-z.conf": "[crio.runtime]\nhooks_dir=[]\n"}, "99-z.conf: sets hooks_dir after"},
		{"relative hook", Podman{Hook: "linkpin-hook"}, nil, "is not a clean absolute path"},
		{"hook of another encoding", Podman{Hook: "/a\xff/linkpin-hook"}, nil, "is not UTF-8"},
		{"unknown condition", CRIO{Hook: testHook, When: "never"}, nil, `has no condition "never"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hostFiles(t, c.files)
			before := hostTree(t, h)
			plan, err := c.target.Install(h)
			if err == nil {
				t.Fatalf("planned\n%s", plan.Diff())
			}
			checkRefused(t, err, c.want)
			if d := cmp.Diff(before, hostTree(t, h)); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestHooksdUpdates brings hosts that have an older state of ours up to date.
func TestHooksdUpdates(t *testing.T) {
	t.Run("outdated file", func(t *testing.T) {
		h := hostFiles(t, nil)
		before := hostTree(t, h)
		mustInstall(t, h, Podman{Hook: "/old/linkpin-hook", When: OptIn})
		if got := mustInstall(t, h, Podman{Hook: testHook}); len(got) != 2 {
			t.Errorf("changed %v", got)
		}
		checkInstalled(t, h, Podman{Hook: testHook}, before)
	})
	t.Run("file and mode of others stay", func(t *testing.T) {
		h := hostFiles(t, map[string]string{hooksdDefault + "/00-a.json": "{}"})
		before := hostTree(t, h)
		mustInstall(t, h, Podman{Hook: testHook, When: OptIn})
		p := filepath.Join(h.Dir, hooksdDefault, podmanCreateName)
		if err := os.Chmod(p, 0o640); err != nil {
			t.Fatal(err)
		}
		mustInstall(t, h, Podman{Hook: testHook})
		if st, err := os.Stat(p); err != nil || st.Mode().Perm() != 0o640 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
		checkInstalled(t, h, Podman{Hook: testHook}, before)
	})
	t.Run("hooks_dir was moved", func(t *testing.T) {
		h := hostFiles(t, nil)
		mustInstall(t, h, Podman{Hook: testHook})
		putFile(t, h, podmanConf, "[engine]\nhooks_dir = [\"/opt/a\"]\n")
		mustInstall(t, h, Podman{Hook: testHook})
		if h.Exists("/usr/share/containers") {
			t.Error("the old place is still there")
		}
		if !h.Exists("/opt/a/" + podmanCreateName) {
			t.Error("nothing is in the new place")
		}
	})
	t.Run("a later directory appears", func(t *testing.T) {
		h := hostFiles(t, nil)
		mustInstall(t, h, Podman{Hook: testHook})
		putFile(t, h, podmanConf, "[engine]\nhooks_dir = [\""+hooksdDefault+"\", \"/opt/a\"]\n")
		if got := mustInstall(t, h, Podman{Hook: testHook}); got != nil {
			t.Errorf("changed %v", got)
		}
	})
	t.Run("a later directory masks ours", func(t *testing.T) {
		h := hostFiles(t, map[string]string{podmanConf: "[engine]\nhooks_dir = [\"/opt/a\"]\n"})
		mustInstall(t, h, Podman{Hook: testHook})
		putFile(t, h, podmanConf, "[engine]\nhooks_dir = [\"/opt/a\", \"/opt/b\"]\n")
		putFile(t, h, "/opt/b/"+podmanCreateName, `{"version":"1.0.0","hook":{"path":"/bin/x"},"stages":[]}`)
		_, err := Podman{Hook: testHook}.Install(h)
		checkRefused(t, err, "/opt/b/"+podmanCreateName+": is not linkpin's")
	})
	t.Run("the drop-in follows the others and goes with its reason", func(t *testing.T) {
		h := hostFiles(t, map[string]string{crioConf: "[crio.runtime]\nhooks_dir = []\n"})
		target := CRIO{Hook: testHook}
		plan, err := target.Install(h)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(plan.Notes, func(n string) bool { return strings.Contains(n, "restart") }) ||
			!slices.ContainsFunc(plan.Notes, func(n string) bool { return strings.Contains(n, "infra container") }) {
			t.Errorf("notes %q", plan.Notes)
		}
		mustApply(t, h, plan)
		putFile(t, h, crioConf, "[crio.runtime]\nhooks_dir = [\"rel\"]\n")
		checkFindings(t, target.Check(h), "warn "+crioDropIn+"/99-linkpin.conf: does not repeat")
		if got := mustInstall(t, h, target); !slices.Equal(got, []string{crioDropIn + "/99-linkpin.conf"}) {
			t.Errorf("changed %v", got)
		}
		putFile(t, h, crioConf, "[crio.runtime]\nhooks_dir = [\"/opt/a\"]\n")
		mustInstall(t, h, target)
		if h.Exists(crioDropIn) || h.Exists("/etc/linkpin") {
			t.Error("the drop-in and its directories are still there")
		}
		checkFindings(t, target.Check(h), "ok CRI-O: calls "+testHook+" (/opt/a)")
	})
	t.Run("the other runtime came later", func(t *testing.T) {
		h := hostFiles(t, map[string]string{"/usr/bin/podman": ""})
		before := hostTree(t, h)
		target := Podman{Hook: testHook}
		mustInstall(t, h, target)
		checkFindings(t, target.Check(h), "ok podman: calls")
		putFile(t, h, "/usr/bin/crio", "")
		checkFindings(t, target.Check(h), "fail …poststop.json: CRI-O reads "+hooksdDefault+", too", "fail …createRuntime.json: CRI-O reads")
		mustInstall(t, h, target)
		checkFindings(t, target.Check(h), "ok podman: calls "+testHook+" (/etc/linkpin/podman-hooks.d)")
		mustInstall(t, h, CRIO{Hook: testHook})
		plan, err := CRIO{Hook: testHook}.Uninstall(h)
		if err != nil {
			t.Fatal(err)
		}
		mustApply(t, h, plan)
		before["/usr/bin/crio"] = hostTree(t, h)["/usr/bin/crio"]
		checkInstalled(t, h, target, before)
	})
}

// TestHooksdFileSystems applies plans where the file system refuses.
func TestHooksdFileSystems(t *testing.T) {
	t.Run("read-only directory", func(t *testing.T) {
		h := hostFiles(t, map[string]string{"/usr/share/containers/": ""})
		before := hostTree(t, h)
		readOnly(t, filepath.Join(h.Dir, "usr/share/containers"))
		target := Podman{Hook: testHook}
		mustInstall(t, h, target)
		if !h.Exists("/etc/linkpin/podman-hooks.d/" + podmanCreateName) {
			t.Error("nothing is in linkpin's own directory")
		}
		checkInstalled(t, h, target, before)
	})
	t.Run("read-only host", func(t *testing.T) {
		h := hostFiles(t, nil)
		readOnly(t, h.Dir)
		_, err := Podman{Hook: testHook}.Install(h)
		checkRefused(t, err, "read-only file system")
	})
	t.Run("full disk", func(t *testing.T) {
		h := hostFiles(t, map[string]string{hooksdDefault + "/": ""})
		dir := filepath.Join(h.Dir, hooksdDefault)
		// Room for the directory and one file: the second fails.
		if err := unix.Mount("full", dir, "tmpfs", 0, "nr_inodes=2"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		before := hostTree(t, h)
		plan, err := Podman{Hook: testHook}.Install(h)
		if err != nil {
			t.Fatal(err)
		}
		checkRefused(t, plan.Apply(h), "no space left on device")
		if d := cmp.Diff(before, hostTree(t, h)); d != "" {
			t.Error(d)
		}
	})
}

// readOnly makes a directory read-only for the rest of a test.
func readOnly(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}
