// SPDX-License-Identifier: Apache-2.0

//go:build extended

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// Where a machine has docker's things. None of these outlives it.
const (
	dockerConfig  = "/etc/docker/daemon.json"
	dockerSocket  = "/run/docker.sock"
	dockerLog     = "/run/dockerd.log"
	dockerRuntime = "/run/docker-runtime"
)

// TestDocker runs the scripts of testdata/docker with dockerd: policies as CDI
// devices, which is all that docker has for hooks. Built by `make test-extended`.
func TestDocker(t *testing.T) {
	tools, err := filepath.Abs(extendedTools)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dockerd", "containerd", "containerd-shim-runc-v2"} {
		if _, err := os.Stat(filepath.Join(tools, name)); err != nil {
			t.Fatalf("%v; run: make test-extended", err)
		}
	}
	needTools(t, "runc", "crun", "busybox", "ip", "bpftool", "jq", "tar", "clang")
	commands := maps.Clone(scriptCommands)
	commands["docker"] = cmdDocker
	commands["dockerd"] = cmdDockerd
	for _, host := range []struct {
		name    string
		mode    cgroupMode
		runtime string
	}{
		{"runc-unified", unified, "runc"},
		{"runc-hybrid", hybrid, "runc"},
		{"crun-unified", unified, "crun"},
	} {
		t.Run(host.name, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir:                 "testdata/docker",
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
				Setup: func(env *testscript.Env) error {
					if err := setUpScript(env, host.mode, host.runtime); err != nil {
						return err
					}
					return setUpDocker(env, tools, host.runtime)
				},
				Condition: func(cond string) (bool, error) {
					return cond == string(host.mode) || cond == host.runtime, nil
				},
				Cmds: commands,
			})
		})
	}
}

// dockerDaemon is the dockerd of a machine.
type dockerDaemon struct {
	path     string // PATH of dockerd, which finds containerd there
	process  *exec.Cmd
	imported bool // the image is there
}

type dockerKey struct{}

// setUpDocker configures docker for the machine of the calling thread. Nothing of
// it is about CDI: linkpin promises to need nothing of docker's configuration.
func setUpDocker(env *testscript.Env, tools, runtime string) error {
	program, err := exec.LookPath(runtime)
	if err != nil {
		return err
	}
	config, err := json.MarshalIndent(map[string]any{
		"storage-driver": "vfs", // the machine's memory is below it
		"cgroup-parent":  env.Getenv("CGPARENT"),
		"exec-opts":      []string{"native.cgroupdriver=cgroupfs"},
		// The machine's interfaces are its own, but tools to filter packets are not needed.
		"iptables": false, "ip6tables": false, "userland-proxy": false,
		"live-restore":    true,
		"default-runtime": "test",
		"runtimes":        map[string]any{"test": map[string]string{"path": dockerRuntime}},
	}, "", "  ")
	if err != nil {
		return err
	}
	// What else Debian's runtimes do not know: docker's time namespace, and crun the
	// version of its specification.
	wrapper := strings.Replace(fmt.Sprintf(podmanRuntime, program), "jq 'del(",
		`jq 'if .ociVersion then .ociVersion = "1.0.2" else . end | del((.linux.namespaces[]? | select(.type == "time")), `, 1)
	if err := os.MkdirAll(filepath.Dir(dockerConfig), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(dockerConfig, config, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(dockerRuntime, []byte(wrapper), 0o755); err != nil {
		return err
	}
	d := &dockerDaemon{path: tools + ":" + env.Getenv("PATH")}
	env.Values[dockerKey{}] = d
	t, _ := env.T().(testing.TB)
	env.Defer(func() {
		if t != nil && t.Failed() {
			log, _ := os.ReadFile(dockerLog) // no log, nothing to show
			t.Logf("dockerd said:\n%s", log)
		}
		_ = d.signal(unix.SIGKILL) // the machine's end kills it as well
	})
	return nil
}

// cmdDockerd starts, stops and kills the machine's dockerd: dockerd start | stop |
// kill | log. kill is SIGKILL; stop is what an administrator does, and waits.
func cmdDockerd(ts *testscript.TestScript, neg bool, args []string) {
	d, ok := ts.Value(dockerKey{}).(*dockerDaemon)
	if !ok || neg || len(args) != 1 {
		ts.Fatalf("usage: dockerd start | stop | kill | log")
	}
	switch args[0] {
	case "start":
		ts.Check(d.start())
	case "stop":
		ts.Check(d.signal(unix.SIGTERM))
	case "kill":
		ts.Check(d.signal(unix.SIGKILL))
	case "log":
		log, err := os.ReadFile(dockerLog)
		ts.Check(err)
		_, _ = ts.Stdout().Write(log) // into memory
	default:
		ts.Fatalf("dockerd: unknown verb %q", args[0])
	}
}

// start starts the daemon, waits until it serves, and gives it the image.
func (d *dockerDaemon) start() error {
	if d.process != nil {
		return errors.New("dockerd runs already")
	}
	log, err := os.OpenFile(dockerLog, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	program, _, _ := strings.Cut(d.path, ":")
	cmd := exec.Command(filepath.Join(program, "dockerd"))
	cmd.Env, cmd.Dir = append(os.Environ(), "PATH="+d.path), "/"
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	d.process = cmd
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := dockerCall("GET", "/_ping", nil)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("dockerd: %w", err)
		}
	}
	if d.imported {
		return nil
	}
	image, err := exec.Command("tar", "-C", built.rootfs, "--owner=0", "--group=0", "-c", ".").Output()
	if err != nil {
		return fmt.Errorf("tar: %w", err)
	}
	if _, err := dockerCall("POST", "/images/create?fromSrc=-&repo=box&tag=latest&changes=ENV+PATH=/bin", rawBody(image)); err != nil {
		return fmt.Errorf("docker import: %w", err)
	}
	d.imported = true
	return nil
}

// signal ends the daemon. Containers live on: it is configured so.
func (d *dockerDaemon) signal(s unix.Signal) error {
	if d.process == nil {
		return nil
	}
	err := d.process.Process.Signal(s)
	_ = d.process.Wait() // it says that the process was killed
	d.process = nil
	return err
}
