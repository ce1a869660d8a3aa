// SPDX-License-Identifier: Apache-2.0

package thieves

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the table of docs/SECURITY.md")

// built is what TestMain made or found.
var built struct {
	dir      string // of this run's bundles
	bin      string // directory of the binaries
	rootfs   string // root file system of the containers: the thief and nothing else
	policies string // policies and their objects
	cgroups  string // a cgroup2 mount of the test process
}

// TestMain is two programs in one: the tests, and the first process of a machine.
func TestMain(m *testing.M) {
	if os.Getenv(machineEnv) != "" {
		os.Exit(machineMain())
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "thieves: eBPF programs, namespaces and containers need root; run: sudo make test")
		return 1
	}
	if dir := os.Getenv(buildEnv); dir != "" {
		if err := prepare(dir); err != nil {
			fmt.Fprintln(os.Stderr, "thieves:", err)
			return 1
		}
		return 0
	}
	dir, err := os.MkdirTemp("", "linkpin-thieves-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755) // containers with a user of their own must reach their files
	}
	if built := os.Getenv(builtEnv); err == nil && built != "" {
		err = locate(built)
	} else if err == nil {
		err = prepare(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "thieves:", err)
		return 1
	}
	built.dir = dir
	code := m.Run()
	if left, _ := filepath.Glob(filepath.Join(built.cgroups, machineCgroup+"*")); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "thieves: cgroups were left behind:", left)
		return 1
	}
	return code
}

// `make test-vm` builds on one machine and tests on another, without compilers.
const (
	buildEnv = "LINKPIN_THIEVES_BUILD" // a directory: build there, test nothing
	builtEnv = "LINKPIN_THIEVES_BUILT" // a directory where everything has been built
)

// locate says where everything is or will be.
func locate(dir string) (err error) {
	built.bin = filepath.Join(dir, "bin")
	built.rootfs = filepath.Join(dir, "rootfs")
	built.policies = filepath.Join(dir, "policies")
	built.cgroups, err = findCgroup2()
	return err
}

func prepare(dir string) error {
	if err := locate(dir); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w -X main.version=v0.0.0-test", "-o", built.bin+"/",
		"./thief", "../../cmd/linkpin", "../../cmd/linkpin-hook", "../../cmd/linkpin-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	for _, d := range []string{"bin", "dev", "proc", "shared", "tmp"} {
		if err := os.MkdirAll(filepath.Join(built.rootfs, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Link(filepath.Join(built.bin, "thief"), filepath.Join(built.rootfs, "bin/thief")); err != nil {
		return err
	}
	objects := filepath.Join(built.policies, "objects")
	if err := os.MkdirAll(objects, 0o755); err != nil {
		return err
	}
	sources, err := filepath.Glob("testdata/*.bpf.c")
	if err != nil || len(sources) == 0 {
		return fmt.Errorf("no programs in testdata: %w", err)
	}
	var copies []string
	for _, source := range sources {
		copies = append(copies, filepath.Join(objects, filepath.Base(source)))
		if err := copyFile(copies[len(copies)-1], source); err != nil {
			return err
		}
	}
	if out, err := exec.Command("../../hack/bpfobject", copies...).CombinedOutput(); err != nil {
		return fmt.Errorf("compiling testdata: %w; are clang and libbpf-dev installed? run: make deps\n%s", err, out)
	}
	return nil
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

// findCgroup2 returns where this process has cgroup2.
func findCgroup2() (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", errors.New("cgroup2 is not mounted")
}

// needTools fails a test on a machine that lacks a program. Not a skip: `make
// test` installs them, and a guarantee that was not tested does not hold.
func needTools(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is not installed; run: make deps (%v)", name, err)
		}
	}
}
