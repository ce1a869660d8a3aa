// SPDX-License-Identifier: Apache-2.0

package applied

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied/trusted"
	"github.com/linkpin/linkpin/specs/fault"
)

// DefaultExempt is the file of the node's own exceptions.
const DefaultExempt = "/etc/linkpin/exempt"

const maxExemptBytes = 1 << 20

// Exempt names the containers that may start although there is no intact applied
// set: the node's own control plane. The zero value exempts nobody.
type Exempt struct {
	rules []exemptRule
}

// exemptRule is one line; all of its conditions must match.
type exemptRule []exemptCondition

type exemptCondition struct {
	field string
	glob  string
}

// exemptFields are the fields that a condition may name.
var exemptFields = []string{"namespace", "pod", "container", "id", "caller"}

func exemptField(field string, id specs.Identity) string {
	switch field {
	case "namespace":
		return id.Namespace
	case "pod":
		return id.Pod
	case "container":
		return id.Container
	case "id":
		return id.ContainerID
	case "caller":
		return string(id.Caller)
	}
	return ""
}

// ReadExempt reads an exempt file: one rule a line, `field=glob field=glob …`
// with the fields namespace, pod, container, id and caller; `#` starts a comment.
// A missing file exempts nobody, and so does one with an error in any line or
// that somebody other than root could have written. Errors are *fault.Error.
func ReadExempt(file string) (Exempt, error) {
	data, err := readTrusted(file, maxExemptBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return Exempt{}, nil
	}
	if err != nil {
		return Exempt{}, exemptProblem(file, err)
	}
	var e Exempt
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxExemptBytes+1)
	for number := 1; lines.Scan(); number++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		conditions := strings.Fields(text)
		if len(conditions) == 0 {
			continue
		}
		rule, err := parseRule(conditions)
		if err != nil {
			return Exempt{}, exemptProblem(fmt.Sprintf("%s:%d", file, number), err)
		}
		e.rules = append(e.rules, rule)
	}
	return e, lines.Err()
}

func exemptProblem(object string, cause error) error {
	if pathError, ok := errors.AsType[*fs.PathError](cause); ok {
		object, cause = pathError.Path, pathError.Err
	}
	return fault.New(object, cause, "until this is mended, the file exempts nobody").WithExit(fault.ExitConfig)
}

func readTrusted(path string, limit int64) ([]byte, error) {
	dir, err := trusted.OpenDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return trusted.ReadFileAt(dir, filepath.Base(path), limit)
}

func parseRule(conditions []string) (exemptRule, error) {
	var rule exemptRule
	for _, condition := range conditions {
		field, glob, found := strings.Cut(condition, "=")
		if !found || glob == "" {
			return nil, fmt.Errorf("%q is not field=glob", condition)
		}
		if !slices.Contains(exemptFields, field) {
			return nil, fmt.Errorf("unknown field %q; there are %s", field, strings.Join(exemptFields, ", "))
		}
		if slices.ContainsFunc(rule, func(c exemptCondition) bool { return c.field == field }) {
			return nil, fmt.Errorf("field %q stands twice", field)
		}
		if err := specs.CheckGlob(glob); err != nil {
			return nil, fmt.Errorf("glob %q: %w", glob, err)
		}
		if field == "caller" && !slices.ContainsFunc(specs.Callers, func(c specs.Caller) bool { return specs.Glob(glob, string(c)) }) {
			return nil, fmt.Errorf("caller %q is none of %v", glob, specs.Callers)
		}
		rule = append(rule, exemptCondition{field: field, glob: glob})
	}
	return rule, nil
}

// Match reports whether a container is exempt. What the caller can't vouch for
// is empty and matches nothing, "*" included.
func (e Exempt) Match(id specs.Identity) bool {
	return slices.ContainsFunc(e.rules, func(rule exemptRule) bool {
		for _, c := range rule {
			if value := exemptField(c.field, id); value == "" || !specs.Glob(c.glob, value) {
				return false
			}
		}
		return true
	})
}

// Len returns the number of rules.
func (e Exempt) Len() int { return len(e.rules) }
