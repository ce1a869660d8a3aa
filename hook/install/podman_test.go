// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	oci "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/linkpin/linkpin/specs/change"
)

// sharedHook is a hook that is below /usr/share of the test's host, so that podman
// sees it as well.
const sharedHook = "/usr/share/linkpin-test/linkpin-hook"

// podmanRuns lets the installed podman create a container on a host: its /etc and
// /usr/share lie over the real ones. A stand-in for the OCI runtime keeps the
// config.json that it is given and refuses. It returns the hooks in it, and
// podman's log; an error is podman's own.
func podmanRuns(t *testing.T, h change.Host, args ...string) (*oci.Hooks, string, error) {
	t.Helper()
	// Not t.TempDir: podman takes no longer run root than 50 characters.
	dir, err := os.MkdirTemp("", "podman")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for name, content := range map[string]string{
		"rootfs/bin/sh": "",
		"host":          "-> " + h.Dir, // mount options have their own meaning of ","
		"over/":         "",
		"runtime": "#!/bin/sh\nwhile [ $# -gt 1 ]; do [ \"$1\" = --bundle ] && cp \"$2/config.json\" " + dir + "\n shift; done\n" +
			"echo refused >&2\nexit 1\n",
		"script": `set -e
cd ` + dir + `
for d in over /run /dev/shm; do mount -t tmpfs none $d; done
for d in etc usr/share; do
	mkdir -p over/up/$d over/work/$d
	mount -t overlay none -o lowerdir=host/$d:/$d,upperdir=over/up/$d,workdir=over/work/$d /$d
done
podman() {
	command podman --log-level=debug --root $PWD/root --runroot $PWD/run --runtime $PWD/runtime \
		--storage-driver vfs --cgroup-manager cgroupfs --events-backend file "$@"
}
podman create --name c --network none "$@" --rootfs $PWD/rootfs /bin/sh
podman start c
`,
	} {
		putFile(t, change.Host{Dir: dir}, name, content)
	}
	if err := os.Chmod(filepath.Join(dir, "runtime"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"--mount", "--propagation", "private", "sh", filepath.Join(dir, "script")}, args...)...)
	log, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatal("the stand-in did not refuse")
	}
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		if !strings.Contains(string(log), "Error: ") {
			t.Fatalf("podman did not come as far as an error:\n%s", log)
		}
		return nil, string(log), err
	}
	if err != nil {
		t.Fatal(err)
	}
	var spec oci.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		t.Fatal(err)
	}
	return spec.Hooks, string(log), nil
}

func podmanHost(t *testing.T, files map[string]string) change.Host {
	t.Helper()
	h := hostFiles(t, files)
	putFile(t, h, sharedHook, "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(h.Dir, sharedHook), 0o755); err != nil {
		t.Fatal(err)
	}
	return h
}

// TestPodmanReads lets the real podman read what is written.
func TestPodmanReads(t *testing.T) {
	conf := func(s string) map[string]string { return map[string]string{podmanDropIn + "/50-test.conf": s} }
	// podman takes a comma for the end of an annotation, unless it is quoted.
	optIn := []string{"--annotation", `"linkpin.io/policies=a,b"`}
	for _, c := range []struct {
		name  string
		files map[string]string
		when  When
		args  []string
		spoil func(*testing.T, change.Host)
		calls bool
		err   string // in podman's log, if it starts no container
	}{
		{name: "default directory", calls: true},
		{name: "configured directory", files: conf("[engine]\nhooks_dir = [\"/etc/hooks.d\", \"/usr/share/other\"]\n"), calls: true},
		{name: "drop-in", files: conf("[engine]\nhooks_dir = []\n"), calls: true},
		{name: "opt-in without annotation", when: OptIn},
		{name: "opt-in with a similar annotation", when: OptIn, args: []string{"--annotation", "xlinkpin.io/policies=a", "--annotation", "linkpin-io/policies=a", "--annotation", "linkpin.io/policies2=a"}},
		{name: "opt-in", when: OptIn, args: optIn, calls: true},
		{name: "opt-in, empty", when: OptIn, args: []string{"--annotation", "linkpin.io/policies="}, calls: true},
		{name: "opt-in, several lines", when: OptIn, args: []string{"--annotation", "\"linkpin.io/policies=\na\nb\""}, calls: true},
		{name: "opt-in, not UTF-8", when: OptIn, args: []string{"--annotation", "linkpin.io/policies=\xff"}, calls: true},
		{name: "no hook binary", spoil: func(t *testing.T, h change.Host) {
			if err := os.Remove(filepath.Join(h.Dir, sharedHook)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "malformed neighbour", spoil: func(t *testing.T, h change.Host) { putFile(t, h, hooksdDefault+"/a.json", "{") },
			err: "setting up OCI Hooks: parsing hook \"" + hooksdDefault + "/a.json\": version check: unexpected end of JSON input"},
		{name: "empty neighbour", spoil: func(t *testing.T, h change.Host) { putFile(t, h, hooksdDefault+"/a.json", "{}") },
			err: "missing required property: hook"},
		{name: "hooks_dir is a file", files: map[string]string{podmanConf: "[engine]\nhooks_dir = [\"" + hooksdDefault + "\", \"/etc/hostname\"]\n", "/etc/hostname": ""},
			err: "not a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := podmanHost(t, c.files)
			target := Podman{Hook: sharedHook, When: c.when}
			mustInstall(t, h, target)
			if c.spoil != nil {
				c.spoil(t, h)
			}
			hooks, log, err := podmanRuns(t, h, c.args...)
			if c.err != "" {
				if err == nil || !strings.Contains(log, c.err) {
					t.Errorf("podman says\n%s", log)
				}
			} else if err != nil {
				t.Fatalf("podman says\n%s", log)
			}
			create := hooks != nil && len(hooks.CreateRuntime) == 1 && hooks.CreateRuntime[0].Path == sharedHook &&
				strings.Join(hooks.CreateRuntime[0].Args, " ") == "linkpin-hook createRuntime --caller podman" && *hooks.CreateRuntime[0].Timeout == 60
			// podman calls poststop hooks itself and does not pass them on.
			poststop := strings.Contains(log, "hook "+podmanPoststopName+" matched; adding to stages [poststop]")
			if create != c.calls || poststop != c.calls {
				t.Errorf("createRuntime %t, poststop %t, want %t; hooks %v\n%s", create, poststop, c.calls, hooks, log)
			}
		})
	}
}

// TestPodmanReadsCDI lets podman's CDI library, which is older than ours, read the file.
func TestPodmanReadsCDI(t *testing.T) {
	h := podmanHost(t, nil)
	c := CDI{Hook: sharedHook}
	var args []string
	for _, n := range []string{"meter", "3g", "007", "true", "y", "2020-01-01", "a--b"} {
		c.Policies = append(c.Policies, CDIPolicy{Name: n, Description: "says: {no] \"YAML\""})
		args = append(args, "--device", "linkpin.io/policy="+n)
	}
	mustInstall(t, h, c)
	hooks, log, err := podmanRuns(t, h, args...)
	if err != nil {
		t.Fatal(log)
	}
	if hooks == nil || len(hooks.CreateRuntime) != len(c.Policies) || len(hooks.Poststop) != len(c.Policies) {
		t.Fatalf("hooks %v\n%s", hooks, log)
	}
	for i, p := range c.Policies {
		for stage, got := range map[string]oci.Hook{"createRuntime": hooks.CreateRuntime[i], "poststop": hooks.Poststop[i]} {
			if want := "linkpin-hook " + stage + " --caller cdi --policy " + p.Name; strings.Join(got.Args, " ") != want || *got.Timeout != 60 {
				t.Errorf("got %v, want %s", got, want)
			}
		}
	}
}
