// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// podmanHost is a kind of host on which podman's scripts run.
type podmanHost struct {
	name    string
	mode    cgroupMode
	runtime string
	network string   // network_backend of containers.conf
	scripts []string // names without suffix; all if there are none
}

// TestPodman runs every script of testdata/podman with real podman, which is set up
// as on a host of its own.
func TestPodman(t *testing.T) {
	needTools(t, "podman", "conmon", "runc", "crun", "busybox", "ip", "iptables", "bpftool", "jq", "tar", "clang")
	needFiles(t, "/usr/lib/podman/netavark", "/usr/lib/podman/aardvark-dns", "/usr/libexec/podman/catatonit", "/usr/lib/cni/bridge", podmanNetworkConfig)
	dir, err := podmanFiles()
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []podmanHost{
		{"crun-netavark", unified, "crun", "netavark", nil},
		{"runc-cni", unified, "runc", "cni", nil},
		// What hybrid cgroups can change.
		{"runc-hybrid", hybrid, "runc", "netavark", []string{"life", "networks", "pods", "userns"}},
		{"crun-cni", unified, "crun", "cni", []string{"chain", "networks"}},
	} {
		t.Run(host.name, func(t *testing.T) {
			t.Parallel() // the last script of one host need not end before the first of another
			params := testscript.Params{
				Dir:                 "testdata/podman",
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
				Setup: func(env *testscript.Env) error {
					if err := setUpScript(env, host.mode, host.runtime); err != nil {
						return err
					}
					return setUpPodman(env, dir, host)
				},
				Condition: func(cond string) (bool, error) {
					return cond == string(host.mode) || cond == host.runtime || cond == host.network, nil
				},
				Cmds: scriptCommands,
			}
			for _, name := range host.scripts {
				params.Dir = ""
				params.Files = append(params.Files, filepath.Join("testdata/podman", name+".txtar"))
			}
			testscript.Run(t, params)
		})
	}
}

// podmanNetworkConfig is the network "podman" of the CNI backend, as the package ships it.
const podmanNetworkConfig = "/etc/cni/net.d/87-podman-bridge.conflist"

// needFiles is needTools for what is not in PATH.
func needFiles(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := os.Stat(name); err != nil {
			t.Fatalf("%v; run: make deps", err)
		}
	}
}

// podmanFiles makes what all machines with podman share: programs in bin, and a
// store with the images. It returns their directory.
var podmanFiles = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(filepath.Dir(built.bin), "podman")
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		return "", err
	}
	podman, err := exec.LookPath("podman")
	if err != nil {
		return "", err
	}
	files := map[string]string{"bin/podman": fmt.Sprintf(podmanProgram, podman)}
	for _, name := range []string{"runc", "crun"} {
		program, err := exec.LookPath(name)
		if err != nil {
			return "", err
		}
		files[name] = fmt.Sprintf(podmanRuntime, program)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			return "", err
		}
	}
	return dir, podmanStore(dir)
})

// podmanProgram is what scripts call as podman. It keeps cgroups below the
// machine's (containers.conf can't say that). And it takes off what podman's
// cgroupfs manager attaches to a pod's cgroup on cgroup2: a device filter that
// allows no device, not even /dev/null. With systemd there is none.
const podmanProgram = `#!/bin/sh
podman=%s
verb=$1
case "$verb $2" in
"pod create") shift; verb="pod create";;
"run "*|"create "*) case " $* " in *" --cgroups="*|*" --pod"*) exec $podman "$@";; esac;;
*) exec $podman "$@";;
esac
shift
$podman $verb --cgroup-parent "$CGPARENT/podman" "$@" || exit
[ "$verb" = "pod create" ] || exit 0
for pod in $CG2$CGPARENT/podman/*/; do
	bpftool -j cgroup show $pod 2>/dev/null | jq -r '.[]? | select(.attach_type | test("device")) | .id' |
	while read -r id; do bpftool cgroup detach $pod device id $id; done
done
`

// podmanRuntime stands for the runtime: it strips what the test hosts refuse
// (bundleSpec says what and why).
const podmanRuntime = `#!/bin/sh
strip() {
	jq 'del(.linux.resources, .process.rlimits, .process.oomScoreAdj, .rlimits, .oomScoreAdj)' "$1" >"$1.stripped" &&
	cat "$1.stripped" >"$1"
	rm "$1.stripped"
}
last=
for arg; do
	case "$last" in
	--bundle|-b) strip "$arg/config.json";;
	--process|-p) strip "$arg";;
	esac
	last=$arg
done
exec %s "$@"
`

// podmanStore makes the images box (the root file system of all containers) and the
// one of pods, in a store that machines have read-only.
func podmanStore(dir string) (err error) {
	done := make(chan error)
	go func() { // the thread that enters the machine ends with it
		done <- func() (err error) {
			m, err := newMachine(unified)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, m.Close()) }()
			if err := m.Enter(); err != nil {
				return err
			}
			if err := setUpPodmanMachine(dir, podmanHost{runtime: "crun", network: "netavark"}, ""); err != nil {
				return err
			}
			const script = `set -e
podman="podman --root $1/store --runroot /run/store"
tar -C $2 -c . | $podman import -c 'ENV PATH=/bin' -c 'CMD ["sleep", "600"]' - localhost/box
$podman pod create --cgroup-parent $3 images
$podman pod rm images
`
			out, err := exec.Command("sh", "-c", script, "sh", dir, built.rootfs, m.parent).CombinedOutput()
			if err != nil {
				return fmt.Errorf("podman import: %w\n%s", err, out)
			}
			return nil
		}()
	}()
	return <-done
}

// setUpPodman makes a script's machine a host with podman.
func setUpPodman(env *testscript.Env, dir string, host podmanHost) error {
	env.Setenv("PATH", filepath.Join(dir, "bin")+":"+env.Getenv("PATH"))
	env.Setenv("NETWORK", host.network)
	env.Setenv("HOOKS", "/usr/share/containers/oci/hooks.d")
	return setUpPodmanMachine(dir, host, filepath.Join(dir, "store"))
}

// setUpPodmanMachine configures podman for the machine of the calling thread. store
// may be empty.
func setUpPodmanMachine(dir string, host podmanHost, store string) error {
	// podman's locks; hosts share theirs with nobody.
	if err := mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777"); err != nil {
		return err
	}
	for _, dir := range []string{"/usr/share/containers/oci", "/etc/cdi"} { // of the host's own podman
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	files := map[string]string{
		// Limits can't be raised here, there is neither systemd nor its journal.
		"containers.conf": strings.NewReplacer("DIR", dir, "RUNTIME", host.runtime, "NETWORK", host.network).Replace(`
[containers]
default_ulimits = []
[network]
network_backend = "NETWORK"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "RUNTIME"
[engine.runtimes]
runc = ["DIR/runc"]
crun = ["DIR/crun"]
`),
		"storage.conf": fmt.Sprintf(`
[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
[storage.options]
additionalimagestores = [%q]
`, store),
	}
	if store == "" {
		files["storage.conf"] = strings.Replace(files["storage.conf"], `[""]`, `[]`, 1)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join("/etc/containers", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
