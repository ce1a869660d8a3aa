// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line tool. Nothing in it writes to the process's own
// stdio, reads its environment or ends it: all of that comes in through Env, so
// that every command can be run inside a test.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/specs/fault"
)

// Env is what a command needs of the process it runs in.
type Env struct {
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Now     func() time.Time // default time.Now
	Version string           // of linkpin, as the linker was told
	// Programs is the directory of this program, where its companions are. Empty
	// means that there are none.
	Programs string
}

// app is one invocation.
type app struct {
	Env
	roots roots
	json  bool // -o json
}

// Run executes one command line, without the program's name, and returns its exit
// code (see `linkpin help exit-codes`).
func Run(ctx context.Context, env Env, args []string) int {
	if env.Now == nil {
		env.Now = time.Now
	}
	a := &app{Env: env}
	cmd := a.rootCommand()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if code, ok := errors.AsType[exitError](err); ok {
		return int(code)
	}
	for _, line := range errorLines(err) {
		fmt.Fprintln(env.Stderr, "linkpin:", line)
	}
	return fault.ExitCode(err)
}

// exitError is the error of a command that has said all there is to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// errorLines returns what to print of an error: one line for each error in it.
func errorLines(err error) []string {
	var lines []string
	for _, e := range flatten([]error{err}) {
		lines = append(lines, fault.OneLine(e.Error()))
	}
	return lines
}

// flatten takes lists of errors apart. errors.Join and policy.Errors put each error
// on a line; an error that wraps several for errors.Is alone does not.
func flatten(errs []error) []error {
	var out []error
	for _, err := range errs {
		several, ok := err.(interface{ Unwrap() []error })
		switch {
		case err == nil:
		case ok && (strings.Contains(err.Error(), "\n") || len(several.Unwrap()) == 1):
			out = append(out, flatten(several.Unwrap())...)
		default:
			out = append(out, err)
		}
	}
	return out
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "linkpin",
		Short: "eBPF programs tied to containers",
		Long: `linkpin attaches eBPF programs to containers before their first instruction.
This tool puts policies into effect (linkpin policy apply), shows what is attached
(ls, inspect, map), checks it (verify, doctor) and cleans up (gc).`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.roots.absolute() }
	a.roots.addFlags(root.PersistentFlags())
	a.addOutputFlag(root)
	root.AddCommand(
		a.policyCommand(),
		a.lsCommand(),
		a.inspectCommand(),
		a.verifyCommand(),
		a.watchCommand(),
		a.updateCommand(),
		a.gcCommand(),
		a.mapCommand(),
		a.installCommand(installing),
		a.installCommand(uninstalling),
		a.doctorCommand(),
		a.versionCommand(),
		exitCodesTopic(),
		outputTopic(),
	)
	finish(root)
	return root
}

// usage is an error about the command line itself.
func usage(cmd *cobra.Command, err error) error {
	return fault.New(cmd.CommandPath(), err, fmt.Sprintf("see `%s --help`", cmd.CommandPath())).WithExit(fault.ExitUsage)
}

// finish makes all commands treat wrong arguments alike: an error with ExitUsage.
// cobra itself would print the help of a command group and succeed.
func finish(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil {
		check = cobra.NoArgs
	}
	if cmd.HasSubCommands() {
		check = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(cmd, fmt.Errorf("unknown command %q", args[0]))
			}
			cmd.SetOut(cmd.ErrOrStderr())
			if err := cmd.Help(); err != nil {
				return err
			}
			return exitError(fault.ExitUsage)
		}
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usage(cmd, err)
		}
		return nil
	}
	for _, sub := range cmd.Commands() {
		finish(sub)
	}
}
