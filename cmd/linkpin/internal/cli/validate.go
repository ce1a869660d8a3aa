// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/linkpin/linkpin/bpf/load"
	"github.com/linkpin/linkpin/specs/applied/trusted"
	"github.com/linkpin/linkpin/specs/fault"
	"github.com/linkpin/linkpin/specs/policy"
)

// validateOutput is `linkpin policy validate -o json`.
type validateOutput struct {
	Files []validatedFile `json:"files"`
}

type validatedFile struct {
	File     string            `json:"file"`
	SHA256   string            `json:"sha256,omitempty"`
	Policies []validatedPolicy `json:"policies"` // empty if the file has errors of its own
	Errors   []string          `json:"errors"`   // "file:line: field: message; remedy"
	Warnings []string          `json:"warnings"`
}

type validatedPolicy struct {
	Name     string `json:"name"`
	Digest   string `json:"digest"`
	Programs int    `json:"programs"`
	Maps     int    `json:"maps"`
	Verified bool   `json:"verified"` // every program was loaded into this kernel
}

// logLines is how many of the verifier's last lines are shown.
const logLines = 20

// checkOptions say how policies are checked.
type checkOptions struct {
	noLoad bool // leave out the kernel's verifier
}

func (o *checkOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.noLoad, "no-load", false, "do not load the programs into this kernel to have its verifier check them")
}

func (a *app) validateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Check policy files: the format, the objects, and what the kernel's verifier says",
		Long: `Check policy files as "linkpin policy apply" does, without changing anything: the
format, the objects (programs, maps and constants exist, values fit their types) and,
if the caller may load programs, the kernel's verifier.`,
		Args: cobra.MinimumNArgs(1),
	}
	var o checkOptions
	o.addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var out validateOutput
		var problems []error
		for _, path := range args {
			file, err := validate(cmd.Context(), path, o)
			out.Files = append(out.Files, file)
			if err != nil {
				problems = append(problems, err)
			}
		}
		err := errors.Join(problems...)
		if a.json {
			err = errors.Join(err, a.printJSON(out))
		} else {
			a.printValidated(out)
			a.printErrors(problems)
		}
		if err != nil {
			return exitError(fault.ExitCode(err))
		}
		return nil
	}
	return cmd
}

func (a *app) printValidated(out validateOutput) {
	for _, file := range out.Files {
		for _, p := range file.Policies {
			if len(file.Errors) > 0 {
				break // they say more
			}
			checked := "checked by the verifier"
			if !p.Verified {
				checked = "not checked by the verifier"
			}
			a.printf("%s: policy %s: %s, %s, %s\n", fault.OneLine(file.File), p.Name,
				count(p.Programs, "program", "programs"), count(p.Maps, "map", "maps"), checked)
		}
		a.warnings(file.Warnings)
	}
}

// printErrors prints errors, and after those of the verifier the end of its log.
func (a *app) printErrors(errs []error) {
	for _, err := range flatten(errs) {
		fmt.Fprintln(a.Stderr, "linkpin:", fault.OneLine(err.Error()))
		if refused, ok := errors.AsType[*load.RefusedError](err); ok {
			for _, line := range refused.Log[max(0, len(refused.Log)-logLines):] {
				fmt.Fprintln(a.Stderr, "  |", fault.OneLine(line))
			}
		}
	}
}

// validate checks one file.
func validate(ctx context.Context, path string, o checkOptions) (validatedFile, error) {
	out := validatedFile{File: path, Policies: []validatedPolicy{}, Errors: []string{}, Warnings: []string{}}
	fail := func(err error) (validatedFile, error) {
		out.Errors = errorLines(err)
		return out, err
	}
	data, err := readUntrusted(path)
	if err != nil {
		return fail(err)
	}
	file, err := parseFile(path, data)
	if err != nil {
		return fail(err)
	}
	out.SHA256 = file.sha256
	if err := checkTrusted(path); err != nil {
		out.Warnings = append(out.Warnings, fault.OneLine(fmt.Sprintf("%v; `linkpin policy apply` will refuse it", err)))
	}
	ready, err := prepareAll([]policyFile{file})
	if err != nil {
		return fail(err)
	}
	var problems []error
	for _, p := range ready {
		v := validatedPolicy{Name: p.Plan.Name, Digest: p.digest, Programs: len(p.Plan.Programs), Maps: len(p.Plan.Maps)}
		out.Warnings = append(out.Warnings, p.Warnings...)
		if !o.noLoad {
			unchecked, err := p.check(ctx)
			out.Warnings = append(out.Warnings, unchecked...)
			if err != nil {
				problems = append(problems, err)
			}
			v.Verified = err == nil && len(unchecked) == 0
		}
		out.Policies = append(out.Policies, v)
	}
	if err := errors.Join(problems...); err != nil {
		return fail(err)
	}
	return out, nil
}

// readUntrusted reads a file that anybody may have written.
func readUntrusted(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, untrusted(path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, policy.MaxSize+1))
	if err != nil {
		return nil, untrusted(path, err)
	}
	return data, nil // the parser refuses what is too big
}

// checkTrusted says why apply would refuse a file.
func checkTrusted(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	dir, err := trusted.OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := trusted.OpenFileAt(dir, filepath.Base(path))
	if err != nil {
		return err
	}
	return f.Close()
}
