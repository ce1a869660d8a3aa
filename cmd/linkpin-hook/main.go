// SPDX-License-Identifier: Apache-2.0

// Command linkpin-hook is linkpin's OCI runtime hook:
//
//	linkpin-hook createRuntime|prestart|poststop [--caller NAME]
//
// It reads the container's state from standard input. Its exit codes are those of
// package fault; the last line on standard error says what went wrong.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

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
	stage, caller, err := parseArgs(args)
	if err == nil {
		h := hook.Hook{Stage: stage, Caller: caller, State: stdin, Warn: log.warn}
		err = h.Run(context.Background())
	}
	if err != nil {
		log.fail(err)
	}
	return fault.ExitCode(err)
}
