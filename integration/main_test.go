// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/linkpin/linkpin/hack/chain"
)

// built is what TestMain made, all below one temporary directory.
var built struct {
	bin      string // directory of the binaries
	rootfs   string // root file system of every container, read-only for them
	testdata string // absolute path: a script's thread has another working directory
	policies string // what every directory of policies starts with: objects/
}

// TestMain is four programs in one: the tests; "machine", the first process of a
// script's namespaces; and the commands that scripts run.
func TestMain(m *testing.M) {
	if mode := os.Getenv(machineEnv); mode != "" {
		os.Exit(machineMain(cgroupMode(mode)))
	}
	testscript.Main(withBinaries{m}, map[string]func(){
		"cni":   func() { os.Exit(chain.Main()) },
		"embed": embedMain,
		"links": linksMain,
		"melee": meleeMain,
		"soak":  soakMain,
		"storm": stormMain,
		"thief": thiefMain,
		"crowd": crowdMain,
	})
}

// withBinaries builds what the tests run before it runs them.
type withBinaries struct{ m *testing.M }

func (w withBinaries) Run() int {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "integration: eBPF programs, namespaces and containers need root; run: sudo make test")
		return 1
	}
	if dir := os.Getenv(buildEnv); dir != "" {
		if err := prepare(dir); err != nil {
			fmt.Fprintln(os.Stderr, "integration:", err)
			return 1
		}
		return 0
	}
	if dir := os.Getenv(builtEnv); dir != "" {
		if err := locate(dir); err != nil {
			fmt.Fprintln(os.Stderr, "integration:", err)
			return 1
		}
	} else {
		dir, err := os.MkdirTemp("", "linkpin-integration-")
		if err != nil {
			fmt.Fprintln(os.Stderr, "integration:", err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := prepare(dir); err != nil {
			fmt.Fprintln(os.Stderr, "integration:", err)
			return 1
		}
	}
	code := w.m.Run()
	if err := findLeftovers(); err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		return 1
	}
	return code
}

// findLeftovers looks, from outside of all machines, for cgroups that one left.
func findLeftovers() error {
	mounts, err := cgroupMounts("self")
	if err != nil {
		return err
	}
	for _, mount := range mounts {
		left, err := filepath.Glob(filepath.Join(mount, machineCgroup+"*"))
		if err != nil || len(left) == 0 {
			continue
		}
		return fmt.Errorf("a script left cgroups behind: %v", left)
	}
	return nil
}

// `make test-vm` builds on one machine and tests on another, without compilers.
const (
	buildEnv = "LINKPIN_INTEGRATION_BUILD" // a directory: build there, test nothing
	builtEnv = "LINKPIN_INTEGRATION_BUILT" // a directory where everything has been built
)

// locate says where everything is or will be.
func locate(dir string) error {
	testdata, err := filepath.Abs("testdata")
	if err != nil {
		return err
	}
	built.testdata = testdata
	built.bin = filepath.Join(dir, "bin")
	built.rootfs = filepath.Join(dir, "rootfs")
	built.policies = filepath.Join(dir, "policies")
	return nil
}

func prepare(dir string) error {
	// Containers with a user of their own must reach their root file system.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := locate(dir); err != nil {
		return err
	}
	if err := buildBinaries(built.bin); err != nil {
		return err
	}
	if err := buildRootfs(built.rootfs); err != nil {
		return err
	}
	return buildObjects(filepath.Join(built.policies, "objects"))
}

// buildObjects compiles the eBPF programs of the tests. They are not committed:
// everything in their way is installed by `make deps`, and it takes no second.
func buildObjects(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.CopyFS(dir, os.DirFS("testdata/objects")); err != nil {
		return err
	}
	sources, err := filepath.Glob(filepath.Join(dir, "*.bpf.c"))
	if err != nil {
		return err
	}
	if out, err := exec.Command("../hack/bpfobject", sources...).CombinedOutput(); err != nil {
		return fmt.Errorf("compiling testdata/objects: %w; are clang and libbpf-dev installed? run: make deps\n%s", err, out)
	}
	return nil
}

// buildBinaries builds the commands as `make build` does.
func buildBinaries(dir string) error {
	commands, err := filepath.Glob("../cmd/*/main.go")
	if err != nil {
		return err
	}
	if len(commands) == 0 {
		return errors.New("no command below cmd")
	}
	args := []string{"build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w -X main.version=v0.0.0-test", "-o", dir + "/", "./probe"}
	for _, main := range commands {
		args = append(args, "./"+filepath.Dir(main))
	}
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// buildRootfs makes a root file system of busybox, the probe, and a program whose
// first system call is connect.
func buildRootfs(dir string) error {
	for _, d := range []string{"bin", "dev", "etc", "proc", "shared", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("busybox is not installed; run: make deps (%w)", err)
	}
	for from, to := range map[string]string{busybox: "bin/busybox", filepath.Join(built.bin, "probe"): "bin/probe"} {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o755); err != nil {
			return err
		}
	}
	for _, applet := range []string{"sh", "cat", "echo", "ip", "nc", "ping", "sleep", "true", "false", "ls", "id", "kill"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", applet)); err != nil {
			return err
		}
	}
	cmd := exec.Command("gcc", "-Wall", "-Werror", "-Os", "-static", "-nostdlib", "-nostartfiles",
		"-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-o", filepath.Join(dir, "bin/firstconnect"), "testdata/firstconnect.c")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling testdata/firstconnect.c: %w; is gcc installed? run: make deps\n%s", err, out)
	}
	return nil
}

// needTools fails a test on a machine that lacks a program. Not a skip: `make
// test` installs them, and a guarantee that was not tested does not hold.
func needTools(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if name == "clang" && os.Getenv(builtEnv) != "" {
			continue // everything is compiled
		}
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is not installed; run: make deps (%v)", name, err)
		}
	}
}
