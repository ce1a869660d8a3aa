// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var (
	all     = flag.Bool("faults.all", false, "try every call, not a sample of them")
	points  = flag.Int("faults.points", 10, "size of the sample of one stage, about")
	seed    = flag.Uint64("faults.seed", 0, "of the sample; 0: another one in each run")
	onlyAt  = flag.Int("faults.call", 0, "try only this call, with every kind of fault; 0: all, or a sample")
	workers = flag.Int("faults.workers", 4, "how many hosts work at once; most of their time is waiting for the kernel")
	only    = flag.String("faults.stage", "", "regular expression: try only the stages whose names match")
)

// built is what TestMain made, all below one temporary directory.
var built struct {
	dir     string
	bin     string            // directory of the binaries
	objects map[string][]byte // testdata/faults.bpf.c, compiled, by its variants' names
	agent   string            // testdata/agent.c, compiled
	rootfs  string            // of containers that runc runs
}

// TestMain is two programs in one: the tests, and the hook that runc calls.
func TestMain(m *testing.M) {
	if os.Getenv(wrapperEnv) != "" {
		os.Exit(wrapperMain())
	}
	flag.Parse()
	os.Exit(withBinaries(m))
}

func withBinaries(m *testing.M) int {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "faults: eBPF programs, namespaces and containers need root; run: sudo make test-faults")
		return 1
	}
	dir, err := os.MkdirTemp("", "linkpin-faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := prepare(dir); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		return 1
	}
	return m.Run()
}

func prepare(dir string) error {
	built.dir = dir
	built.bin = filepath.Join(dir, "bin")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", built.bin+"/",
		"../../cmd/linkpin", "../../cmd/linkpin-hook", "../../cmd/linkpin-cni")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	if err := compile(dir); err != nil {
		return err
	}
	built.agent = filepath.Join(dir, "agent")
	if out, err := exec.Command("gcc", "-Wall", "-Werror", "-Os", "-static", "-o", built.agent, "testdata/agent.c").CombinedOutput(); err != nil {
		return fmt.Errorf("compiling testdata/agent.c: %w; is gcc installed? run: make deps\n%s", err, out)
	}
	built.rootfs = filepath.Join(dir, "rootfs")
	return buildRootfs(built.rootfs)
}

// variants of testdata/faults.bpf.c, and what each defines.
var variants = map[string]string{"faults": "FIRST", "second": "SECOND", "tracing": "WITH_TRACING"}

func compile(dir string) error {
	source, err := os.ReadFile("testdata/faults.bpf.c")
	if err != nil {
		return err
	}
	built.objects = map[string][]byte{}
	for name, macro := range variants {
		file := filepath.Join(dir, name+".bpf.c")
		if err := os.WriteFile(file, append([]byte("#define "+macro+"\n"), source...), 0o600); err != nil {
			return err
		}
		if out, err := exec.Command("../../hack/bpfobject", file).CombinedOutput(); err != nil {
			return fmt.Errorf("compiling testdata/faults.bpf.c: %w; are clang and libbpf-dev installed? run: make deps\n%s", err, out)
		}
		if built.objects[name], err = os.ReadFile(filepath.Join(dir, name+".bpf.o")); err != nil {
			return err
		}
	}
	return nil
}

// buildRootfs makes a root file system of nothing but busybox.
func buildRootfs(dir string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("busybox is not installed; run: make deps (%w)", err)
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range []string{"bin", "dev", "proc", "sys"} {
		errs = append(errs, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	errs = append(errs, os.WriteFile(filepath.Join(dir, "bin/sleep"), data, 0o755))
	return errors.Join(errs...)
}
