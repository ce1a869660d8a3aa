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

const usage = "linkpin-hook createRuntime|prestart|poststop [--caller none|podman|crio|containerd|cdi] [--policy NAME]…"

// arguments are what the configuration of a runtime says to the hook.
type arguments struct {
	stage    hook.Stage
	caller   specs.Caller
	policies []string // in order, each once; none means: whatever selects the container
}

// parseArgs reads the arguments, in any order. Package flag would stop at the
// stage, and costs start-up time.
func parseArgs(args []string) (*arguments, error) {
	a := &arguments{caller: specs.CallerNone}
	for i := 0; i < len(args); i++ {
		name, value, given := strings.Cut(args[i], "=")
		option := name == "--caller" || name == "--policy"
		if option && !given {
			i++
			if i == len(args) {
				return nil, usageError(name + " needs a name")
			}
			value = args[i]
		}
		switch {
		case name == "--caller":
			a.caller = specs.Caller(value)
		case name == "--policy" && !specs.ValidName(value):
			return nil, usageError(fmt.Sprintf("%q is not the name of a policy", value))
		case name == "--policy":
			if !slices.Contains(a.policies, value) {
				a.policies = append(a.policies, value)
			}
		case strings.HasPrefix(name, "-") || a.stage != "":
			return nil, usageError(fmt.Sprintf("unexpected argument %q", args[i]))
		default:
			a.stage = hook.Stage(args[i])
		}
	}
	if !slices.Contains([]hook.Stage{hook.CreateRuntime, hook.Prestart, hook.Poststop}, a.stage) {
		return nil, usageError(fmt.Sprintf("unknown stage %q", string(a.stage)))
	}
	if !slices.Contains(specs.Callers, a.caller) {
		return nil, usageError(fmt.Sprintf("unknown caller %q", string(a.caller)))
	}
	return a, nil
}

func usageError(cause string) error {
	return fault.Newf("arguments", cause, "usage: "+usage).WithExit(fault.ExitUsage)
}
