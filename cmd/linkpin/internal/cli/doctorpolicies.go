// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/bpf/attach"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/change"
)

// checkApplied reads the applied set to its last byte, and looks for hooks that
// its policies need and this kernel lacks.
func (d *doctor) checkApplied(missing map[specs.Hook]error) {
	const what = "policies in effect"
	set, err := applied.Open(d.roots.applied())
	if err != nil {
		d.bad(change.Fail, what, err, "")
		return
	}
	defer set.Close()
	for _, p := range set.Policies() {
		plan, _, err := set.Plan(p.Name)
		for i := 0; err == nil && i < len(plan.Objects); i++ {
			_, err = set.Object(plan.Objects[i].SHA256)
		}
		if err != nil {
			d.bad(change.Fail, what, err, "")
			return
		}
		var lacking []specs.Hook
		standIn := false
		for _, prog := range plan.Programs {
			for _, a := range prog.Attachments {
				if plan.TCFallback == specs.FallbackClsact && attach.WithoutTCX(missing[a.Hook]) {
					standIn = true
					continue
				}
				if missing[a.Hook] != nil && !slices.Contains(lacking, a.Hook) {
					lacking = append(lacking, a.Hook)
				}
			}
		}
		if standIn {
			d.bad(change.Warn, "policy "+p.Name, errors.New("its tc programs have no owner on this kernel, as tc: {fallback: clsact} allows: anybody who may configure the device can take them off"),
				"use a kernel with TCX links, 6.6 or newer")
		}
		if len(lacking) > 0 {
			l := change.Fail
			if p.OnError == specs.Allow {
				l = change.Warn
			}
			d.bad(l, "policy "+p.Name, fmt.Errorf("needs %s, which does not work here", hooksText(lacking)), "use a kernel that has it, or change the policy")
		}
	}
	if n := len(set.Policies()); n > 0 {
		d.ok(what, "%s, intact", count(n, "policy", "policies"))
	} else {
		d.ok(what, "none: no container gets a program")
	}
}

// checkDirectory compares the policy files with what is in effect.
func (d *doctor) checkDirectory() {
	const what = "policy files"
	if _, err := os.Lstat(d.policies); errors.Is(err, fs.ErrNotExist) {
		d.bad(change.Warn, what, fmt.Errorf("%s does not exist", d.policies), "make the directory, put policies into it, and run `linkpin policy apply`")
		return
	}
	files, err := readDirectory(d.policies)
	var ready []prepared
	if err == nil {
		ready, err = prepareAll(files)
	}
	if err != nil {
		lines := errorLines(err)
		more := ""
		if len(lines) > 1 {
			more = fmt.Sprintf(" (and %d more errors)", len(lines)-1)
		}
		d.bad(change.Warn, what, errors.New(lines[0]+more), "until this is corrected, changes have no effect")
		return
	}
	before, err := d.inEffect()
	if err != nil {
		return // checkApplied has said so
	}
	var differs []string
	for _, p := range compare(before, ready) {
		if p.Change != unchanged {
			differs = append(differs, p.Name+" "+string(p.Change))
		}
	}
	if len(differs) > 0 {
		d.bad(change.Warn, what, fmt.Errorf("%s differs from what is in effect: %s", d.policies, strings.Join(differs, ", ")), "run `linkpin policy apply`")
		return
	}
	d.ok(what, "%s is what is in effect", d.policies)
}

func (d *doctor) checkExempt() {
	const what = "exempt containers"
	path, err := filepath.Abs(d.exempt)
	if err != nil {
		d.bad(change.Warn, what, err, "")
		return
	}
	e, err := applied.ReadExempt(path)
	switch {
	case err != nil:
		d.bad(change.Warn, what, err, "")
	case e.Len() == 0:
		d.ok(what, "none")
	default:
		d.ok(what, "%s in %s", count(e.Len(), "rule", "rules"), path)
	}
}
