// SPDX-License-Identifier: Apache-2.0

// Command linkpin-cni is linkpin's chained CNI plugin. It speaks the CNI protocol
// on its environment and standard streams; see docs/cni.md.
package main

import (
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/linkpin/linkpin/cni"
	"github.com/linkpin/linkpin/specs/fault"
)

// version is set by the linker.
var version = "devel"

func main() {
	p := cni.Plugin{Warn: func(err error) {
		fmt.Fprintln(os.Stderr, "linkpin-cni: warning:", fault.OneLine(err.Error()))
	}}
	if err := skel.PluginMainFuncsWithError(p.Funcs(), cni.Versions, "linkpin-cni "+version); err != nil {
		// A runtime reads the error from standard output (CNI spec, "Error").
		if printErr := err.Print(); printErr != nil {
			fmt.Fprintln(os.Stderr, "linkpin-cni:", printErr)
		}
		os.Exit(1)
	}
}
