// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/integration/faults/tracer"
)

// The hook that runc calls is this test's own program, which runs linkpin-hook under
// the tracer and ends as it does.

// wrapperEnv holds the fault for linkpin-hook, as JSON.
const wrapperEnv = "LINKPIN_FAULTS_WRAPPER"

// wrapped is what a wrapper is told, and what it reports.
type wrapped struct {
	Program string
	Fault   tracer.Fault
	Report  string // file that it writes
}

type wrapperReport struct {
	Result *tracer.Result
	Stderr string
	Error  string
}

func wrapperMain() int {
	var in wrapped
	if err := json.Unmarshal([]byte(os.Getenv(wrapperEnv)), &in); err != nil {
		fmt.Fprintln(os.Stderr, wrapperEnv, err)
		return 64
	}
	report := wrapperReport{}
	err := in.run(&report)
	if err != nil {
		report.Error = err.Error()
	}
	data, err := json.Marshal(report)
	if err == nil {
		err = os.WriteFile(in.Report, data, 0o600)
	}
	fmt.Fprint(os.Stderr, report.Stderr)
	switch {
	case err != nil || report.Error != "":
		fmt.Fprintln(os.Stderr, report.Error, err)
		return 64
	case report.Result.Signal != 0:
		_ = unix.Kill(os.Getpid(), report.Result.Signal) // as the hook would have ended
	}
	return report.Result.Exit
}

func (in *wrapped) run(report *wrapperReport) error {
	stderr, err := memory("stderr", nil)
	if err != nil {
		return err
	}
	defer stderr.Close()
	report.Result, err = tracer.Run(tracer.Options{
		Path: in.Program, Args: os.Args[1:], Dir: "/", Files: [3]*os.File{os.Stdin, os.Stdout, stderr}, Fault: in.Fault,
	})
	report.Stderr = content(stderr)
	return err
}

// runc runs a container in the world's network namespace, with a fault in its hook.
// The hook's outcome is returned; runc must have started the container if, and only
// if, the hook has succeeded.
func runc(w *world, f tracer.Fault) (*outcome, error) {
	in := wrapped{Program: filepath.Join(built.bin, "linkpin-hook"), Fault: f, Report: filepath.Join(w.bundle, "report")}
	env, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	if err := w.writeBundle(string(env)); err != nil {
		return nil, err
	}
	runcErr := w.runc("run", "--detach", "--bundle", w.bundle, w.id)
	data, err := os.ReadFile(in.Report)
	if err != nil {
		return nil, errors.Join(err, runcErr)
	}
	var report wrapperReport
	if err := json.Unmarshal(data, &report); err != nil {
		return nil, err
	}
	if report.Error != "" {
		return nil, errors.New(report.Error)
	}
	w.created = append(w.created, report.Result.Created...)
	o := &outcome{
		command: command{program: "linkpin-hook", args: []string{"createRuntime"}},
		Result:  report.Result, fault: f, stderr: report.Stderr,
	}
	if o.ok() != (runcErr == nil) {
		return o, fmt.Errorf("the hook's outcome is %v, runc's: %w", o, runcErr)
	}
	if runcErr != nil && !o.killed() && !strings.Contains(runcErr.Error(), strings.TrimSpace(o.stderr)) {
		return o, fmt.Errorf("runc does not say %q: %w", o.stderr, runcErr)
	}
	return o, nil
}

// runc runs runc. What it starts keeps its streams, so they are files.
func (w *world) runc(args ...string) error {
	stderr, err := memory("stderr", nil)
	if err != nil {
		return err
	}
	defer stderr.Close()
	cmd := exec.Command("runc", append([]string{"--root", "/run/runc"}, args...)...)
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("runc %s: %w: %s", args[0], err, content(stderr))
	}
	return nil
}

// runcCgroup is the cgroup of a container that runc runs; the world's own process is
// in another.
func (w *world) runcCgroup() string { return filepath.Join(w.cgroup, w.id+"-runc") }

func (w *world) writeBundle(env string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	mount, err := cgroup2Mount()
	if err != nil {
		return err
	}
	timeout := 60 // s, above the sum of the hook's own deadlines
	poststop := filepath.Join(built.bin, "linkpin-hook")
	data, err := json.Marshal(oci.Spec{
		Version: "1.0.2",
		Process: &oci.Process{Args: []string{"/bin/sleep", "600"}, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true},
		Root:    &oci.Root{Path: built.rootfs, Readonly: true},
		Mounts:  []oci.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Hooks: &oci.Hooks{
			CreateRuntime: []oci.Hook{{
				Path: self, Args: []string{self, "createRuntime", "--caller", "none"},
				Env: []string{wrapperEnv + "=" + env, "GORACE=atexit_sleep_ms=0"}, Timeout: &timeout,
			}},
			Poststop: []oci.Hook{{Path: poststop, Args: []string{poststop, "poststop", "--caller", "none"}, Timeout: &timeout}},
		},
		Linux: &oci.Linux{
			CgroupsPath: strings.TrimPrefix(w.runcCgroup(), mount),
			Namespaces: []oci.LinuxNamespace{
				{Type: oci.PIDNamespace}, {Type: oci.IPCNamespace}, {Type: oci.UTSNamespace}, {Type: oci.MountNamespace},
				{Type: oci.NetworkNamespace, Path: "/proc/" + strconv.Itoa(w.pid()) + "/ns/net"},
			},
		},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.bundle, "config.json"), data, 0o600)
}

// runcCovered judges a container that runc has started, or has not.
func runcCovered(w *world, o *outcome) error {
	if !o.ok() {
		return nil // it has not; later, nothing may be left
	}
	_, err := w.judgedIn(w.runcCgroup(), w.netns(), byAll)
	return errors.Join(err, w.inOrder())
}

// runcDelete also removes what runc has forgotten: the cgroup of a container that it
// could not start.
func runcDelete(w *world, _ *outcome) error {
	return errors.Join(w.runc("delete", "--force", w.id), removeCgroup(w.runcCgroup()))
}
