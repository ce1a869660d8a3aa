// SPDX-License-Identifier: Apache-2.0

package change

import (
	"errors"
	"strings"

	"github.com/linkpin/linkpin/specs/fault"
)

// FindingOf says an error as a finding. what is the object that was looked at; an
// error that knows it more precisely (the line of a file, a file of a directory), or
// any if what is empty, puts its own object there. An error that has a remedy keeps
// it; remedy is for those without.
func FindingOf(level Level, what string, err error, remedy string) Finding {
	f := Finding{Level: level, What: what, Detail: fault.OneLine(err.Error()), Remedy: fault.OneLine(remedy)}
	if e, ok := errors.AsType[*fault.Error](err); ok {
		if e.Remedy != "" {
			f.Remedy = fault.OneLine(e.Remedy)
			// Whoever wrapped the error wrote in front of it.
			f.Detail = strings.TrimSuffix(f.Detail, "; "+f.Remedy)
		}
		if object := fault.OneLine(e.Object); what == "" || within(object, what) {
			f.What = object
		}
	}
	if f.What == "" {
		f.What = "configuration"
	}
	f.Detail = strings.TrimPrefix(f.Detail, f.What+": ")
	return f
}

// within reports whether object is a line of the file what, or lies in that directory.
func within(object, what string) bool {
	rest, ok := strings.CutPrefix(object, what)
	return ok && (strings.HasPrefix(rest, ":") || strings.HasPrefix(rest, "/"))
}
