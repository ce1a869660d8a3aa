// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	builtin "github.com/linkpin/linkpin/bpf/programs"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// warnBuiltins says which policies were applied by a linkpin with other built-in
// objects: an update brings containers to what is applied, and after an upgrade of the
// package that is still the old one.
func (a *app) warnBuiltins(set *applied.Set, names []string) {
	for _, name := range names {
		plan, _, err := set.Plan(name)
		if err != nil {
			a.warn(err)
			continue
		}
		for _, object := range otherBuiltins(plan) {
			a.warn(fault.New("policy "+name, fmt.Errorf("it was applied with the built-in object %s of another version of linkpin, and stays with that", object),
				"run `linkpin policy apply`, then update again"))
		}
	}
}

// otherBuiltins returns the built-in objects of a plan that are not this program's.
func otherBuiltins(plan *specs.Plan) []string {
	var names []string
	for _, o := range plan.Objects {
		name, ok := strings.CutPrefix(o.Origin, "builtin:")
		if !ok {
			continue
		}
		ours, err := builtin.Object(name)
		sum := sha256.Sum256(ours)
		if err != nil || hex.EncodeToString(sum[:]) != o.SHA256 {
			names = append(names, name)
		}
	}
	return names
}
