// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"

	"github.com/linkpin/linkpin/specs/fault"
)

// logger writes warnings and errors of the NRI library, a line each. Runtimes drop
// what plugins write; systemd keeps it.
type logger struct{ w io.Writer }

func (l logger) Debugf(context.Context, string, ...any) {}
func (l logger) Infof(context.Context, string, ...any)  {}

func (l logger) Warnf(_ context.Context, format string, args ...any) {
	fmt.Fprintln(l.w, "linkpin-nri: warning:", fault.OneLine(fmt.Sprintf(format, args...)))
}

func (l logger) Errorf(_ context.Context, format string, args ...any) {
	fmt.Fprintln(l.w, "linkpin-nri:", fault.OneLine(fmt.Sprintf(format, args...)))
}
