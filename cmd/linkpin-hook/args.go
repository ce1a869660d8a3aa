// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/hook"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

const usage = "linkpin-hook createRuntime|prestart|poststop [--caller none|podman|crio|containerd|cdi]"

// parseArgs reads the stage and the caller, in any order. Package flag would stop
// at the stage, and costs start-up time.
func parseArgs(args []string) (hook.Stage, specs.Caller, error) {
	var stage hook.Stage
	caller := specs.CallerNone
	for i := 0; i < len(args); i++ {
		name, value, given := strings.Cut(args[i], "=")
		switch {
		case name == "--caller":
			if !given {
				i++
				if i == len(args) {
					return "", "", usageError("--caller needs a name")
				}
				value = args[i]
			}
			caller = specs.Caller(value)
		case strings.HasPrefix(name, "-") || stage != "":
			return "", "", usageError(fmt.Sprintf("unexpected argument %q", args[i]))
		default:
			stage = hook.Stage(args[i])
		}
	}
	if !slices.Contains([]hook.Stage{hook.CreateRuntime, hook.Prestart, hook.Poststop}, stage) {
		return "", "", usageError(fmt.Sprintf("unknown stage %q", string(stage)))
	}
	if !slices.Contains(specs.Callers, caller) {
		return "", "", usageError(fmt.Sprintf("unknown caller %q", string(caller)))
	}
	return stage, caller, nil
}

func usageError(cause string) error {
	return fault.Newf("arguments", cause, "usage: "+usage).WithExit(fault.ExitUsage)
}
