// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkpin/linkpin/integration/faults/tracer"
	"github.com/linkpin/linkpin/specs/fault"
)

// command is one call of one of linkpin's programs.
type command struct {
	program string // linkpin, linkpin-hook, linkpin-cni
	args    []string
	env     []string
	stdin   []byte
	// fine tells whether another exit status than 0 says that all is well; may be nil.
	fine func(*outcome) bool
}

// outcome is what became of a call.
type outcome struct {
	command
	*tracer.Result
	fault          tracer.Fault
	stdout, stderr string
}

// killed: by us. A runtime does not know more than that the program has failed.
func (o *outcome) killed() bool { return o.Signal != 0 }

func (o *outcome) ok() bool { return !o.killed() && (o.Exit == 0 || o.fine != nil && o.fine(o)) }

func (o *outcome) String() string {
	end := fmt.Sprint("exit status ", o.Exit)
	if o.killed() {
		end = o.Signal.String()
	}
	return fmt.Sprintf("%s %s: %s\n\tstdout: %s\n\tstderr: %s", o.program, strings.Join(o.args, " "), end, strings.TrimSpace(o.stdout), strings.TrimSpace(o.stderr))
}

// plain runs a program that nothing happens to, without the tracer: that takes half the
// time. What it makes is known by its names.
func (w *world) plain(c command) (*outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(built.bin, c.program), c.args...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Env = "/", append([]string{}, c.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.stdin), &stdout, &stderr
	err := cmd.Run()
	o := &outcome{command: c, Result: &tracer.Result{}, stdout: stdout.String(), stderr: stderr.String()}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		o.Exit, err = exit.ExitCode(), nil
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			o.Signal = ws.Signal()
		}
	}
	if ctx.Err() != nil {
		return o, fmt.Errorf("it hangs: %v", o)
	}
	if err != nil {
		return o, err
	}
	o.Created, err = w.ours(w.base)
	w.created = append(w.created, o.Created...)
	return o, err
}

// run runs a program of linkpin under the tracer: so its calls are counted, and everything
// that it makes is known.
func (w *world) run(c command, f tracer.Fault) (*outcome, error) {
	return w.runStopped(c, f, nil)
}

// runStopped is run for a program that is stopped: meanwhile what is to happen happens.
func (w *world) runStopped(c command, f tracer.Fault, meanwhile func()) (*outcome, error) {
	in, err := memory("stdin", c.stdin)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	stdout, err := memory("stdout", nil)
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	stderr, err := memory("stderr", nil)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	r, err := tracer.Run(tracer.Options{
		Path: filepath.Join(built.bin, c.program), Args: c.args, Env: c.env, Dir: "/",
		Files: [3]*os.File{in, stdout, stderr}, Fault: f, Stopped: meanwhile, Limit: 3 * time.Minute,
	})
	if err != nil {
		return nil, err
	}
	w.created = append(w.created, r.Created...)
	o := &outcome{command: c, Result: r, fault: f, stdout: content(stdout), stderr: content(stderr)}
	if r.TimedOut {
		return o, fmt.Errorf("it hangs: %v", o)
	}
	return o, nil
}

// must runs a program that nothing happens to, and that must succeed.
func (w *world) must(c command) error {
	o, err := w.plain(c)
	if err == nil && !o.ok() {
		err = fmt.Errorf("without a fault: %w", o.failed())
	}
	return err
}

// errOverloaded says that a program, to which nothing had happened, met one of its own
// deadlines: so many others work on this machine that the run tells nothing.
var errOverloaded = errors.New("the machine is overloaded")

// failed is the error of an outcome that should have been another.
func (o *outcome) failed() error {
	err := fmt.Errorf("%v", o)
	if strings.Contains(o.stdout+o.stderr, "the node is overloaded") {
		err = fmt.Errorf("%w: %w", errOverloaded, err)
	}
	return err
}

// memory makes a file that is nowhere, with the given content.
func memory(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func content(f *os.File) string {
	var b bytes.Buffer
	_, _ = io.Copy(&b, io.NewSectionReader(f, 0, 1<<20)) // a file in memory
	return b.String()
}

// documented are the exit codes of package fault.
var documented = []int{
	fault.ExitOK, fault.ExitFailed, fault.ExitUnsure, fault.ExitUsage, fault.ExitInput, fault.ExitUnavailable, fault.ExitConfig,
}

// checkOutput checks what a program that was not killed says: one line with its name
// for a failure and one for each warning, an exit code that is documented, and for
// the CNI plugin an error as JSON.
func (o *outcome) checkOutput() error {
	if o.killed() {
		if o.Signal != unix.SIGKILL || o.fault.Action == tracer.Fail {
			return fmt.Errorf("ended by %v", o.Signal)
		}
		return nil
	}
	if !slices.Contains(documented, o.Exit) {
		return fmt.Errorf("exit status %d is not documented", o.Exit)
	}
	failures := 0
	for line := range strings.Lines(o.stderr) {
		rest, ours := strings.CutPrefix(line, o.program+": ")
		if !ours {
			return fmt.Errorf("stderr: %q is no line of %s's", line, o.program)
		}
		if !strings.HasPrefix(rest, "warning: ") {
			failures++
		}
	}
	said := o.Exit == 0 || o.program == "linkpin" && (o.args[0] == "verify" || o.args[0] == "update") // which say it on stdout
	switch {
	case o.program == "linkpin-cni" && o.Exit != 0:
		var e struct {
			Code uint
			Msg  string
		}
		if err := json.Unmarshal([]byte(o.stdout), &e); err != nil || e.Code == 0 || e.Msg == "" || strings.Contains(e.Msg, "\n") {
			return fmt.Errorf("stdout has no error of CNI (%w): %s", err, o.stdout)
		}
	case failures == 0 && !said:
		return fmt.Errorf("exit status %d without a word", o.Exit)
	case failures > 0 && o.Exit == 0, failures > 1 && o.args[0] != "policy": // which has a line for each policy
		return fmt.Errorf("%d lines of errors, exit status %d", failures, o.Exit)
	}
	return nil
}
