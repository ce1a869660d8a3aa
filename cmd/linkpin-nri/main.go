// SPDX-License-Identifier: Apache-2.0

// Command linkpin-nri is linkpin's NRI plugin. containerd and CRI-O start it from
// their plugin directory, or it connects to a runtime by itself:
//
//	linkpin-nri --connect /var/run/nri/nri.sock
//
// It runs until the runtime ends the connection.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/containerd/nri/pkg/stub"

	"github.com/linkpin/linkpin/hook/nri"
	"github.com/linkpin/linkpin/specs/fault"
)

// version is set by the linker.
var version = "devel"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	p := &nri.Plugin{}
	options := []stub.Option{stub.WithLogger(logger{stderr}), stub.WithFailurePolicy(nri.FailurePolicy())}
	switch {
	case len(args) == 1 && (args[0] == "--version" || args[0] == "version"):
		fmt.Fprintln(stdout, "linkpin-nri", version)
		return fault.ExitOK
	case len(args) == 2 && args[0] == "--connect":
		options = append(options, stub.WithPluginName(nri.Name), stub.WithPluginIdx(nri.Index), stub.WithSocketPath(args[1]))
	case len(args) > 0:
		return fail(stderr, fault.Newf("arguments", "are not understood", "usage: linkpin-nri [--connect SOCKET]").WithExit(fault.ExitUsage))
	}
	s, err := stub.New(p, options...)
	if err != nil {
		return fail(stderr, fault.New("NRI", err, "start it with --connect SOCKET, or let the runtime start it from its plugin directory"))
	}
	p.NRIVersion = s.RuntimeNRIVersion
	if err := s.Run(context.Background()); err != nil {
		return fail(stderr, fault.New("NRI", err, "start it again when the runtime is up"))
	}
	return fault.ExitOK
}

func fail(stderr io.Writer, err error) int {
	fmt.Fprintln(stderr, "linkpin-nri:", err)
	return fault.ExitCode(err)
}
