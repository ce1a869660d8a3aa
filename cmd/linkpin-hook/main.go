// SPDX-License-Identifier: Apache-2.0

// Command linkpin-hook is linkpin's OCI runtime hook:
//
//	linkpin-hook createRuntime|prestart|poststop [--caller NAME] [--policy NAME]…
//
// It reads the container's state from standard input. Its exit codes are those of
// package fault; the last line on standard error says what went wrong.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/linkpin/linkpin/hook"
	"github.com/linkpin/linkpin/specs/fault"
)

// version is set by the linker.
var version = "devel"

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 1 && (args[0] == "--version" || args[0] == "version") {
		fmt.Fprintln(stdout, "linkpin-hook", version)
		return fault.ExitOK
	}
	log := logger{stderr: stderr}
	a, err := parseArgs(args)
	if err == nil {
		h := hook.Hook{Stage: a.stage, Caller: a.caller, Requests: a.policies, State: stdin, Warn: log.warn}
		err = h.Run(context.Background())
	} else {
		drain(stdin)
	}
	if err != nil {
		log.fail(err)
	}
	return fault.ExitCode(err)
}

// drainTimeout bounds the wait for a runtime that writes no state, or does not end it.
const drainTimeout = time.Second

// drain reads what a runtime has written: crun 1.8 dies of SIGPIPE if a hook ends
// before it has read its state, and what the hook had to say would be lost. It does
// not wait for a person at a terminal.
func drain(stdin io.Reader) {
	if f, ok := stdin.(*os.File); ok {
		if st, err := f.Stat(); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
			return
		}
	}
	read := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, io.LimitReader(stdin, 1<<20)) // the usage error is what matters
		close(read)
	}()
	select {
	case <-read:
	case <-time.After(drainTimeout):
	}
}
