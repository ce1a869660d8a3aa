// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"log/syslog"

	"github.com/linkpin/linkpin/specs/fault"
)

// logger writes to standard error, which runc shows when a hook fails, and to the
// system log where there is one: crun drops what hooks write, and no runtime shows
// the warnings of a hook that succeeds. The system log is opened only when there
// is something to say.
type logger struct {
	stderr io.Writer
}

func (l logger) warn(err error) {
	l.write(syslog.LOG_WARNING, "warning: "+fault.OneLine(err.Error()))
}

func (l logger) fail(err error) {
	l.write(syslog.LOG_ERR, fault.OneLine(err.Error()))
}

func (l logger) write(level syslog.Priority, line string) {
	fmt.Fprintln(l.stderr, "linkpin-hook:", line)
	w, err := syslog.New(level|syslog.LOG_DAEMON, "linkpin-hook")
	if err != nil {
		return // no system log here: standard error has to do
	}
	defer w.Close()
	_, _ = io.WriteString(w, line) // nowhere is left to report it to
}
