// SPDX-License-Identifier: Apache-2.0

package specs

import (
	"errors"
	"slices"
	"strconv"
)

// Fields are the conditions of a selector. All that are given must match; a list
// matches if one of its globs (Glob) does, or one of its callers. A condition on
// something that the Identity leaves empty does not match.
type Fields struct {
	All        bool     `json:"all,omitempty"`
	Namespaces []string `json:"namespaces,omitempty"`
	Pods       []string `json:"pods,omitempty"`
	Containers []string `json:"containers,omitempty"`
	Networks   []string `json:"networks,omitempty"`
	Callers    []Caller `json:"callers,omitempty"`
}

// Select says which containers get a policy.
type Select struct {
	Fields
	OptIn       bool              `json:"optIn,omitempty"`       // only on request, by OptInAnnotation
	Annotations map[string]string `json:"annotations,omitempty"` // exact key, glob for the value; all must match
	Exclude     *Fields           `json:"exclude,omitempty"`     // never looks at annotations
}

// empty reports whether no condition is given.
func (f Fields) empty() bool {
	return !f.All && len(f.Namespaces) == 0 && len(f.Pods) == 0 && len(f.Containers) == 0 &&
		len(f.Networks) == 0 && len(f.Callers) == 0
}

// Match reports whether all conditions that are given hold for id. Without any
// condition it is false.
func (f Fields) Match(id Identity) bool {
	if f.empty() {
		return false
	}
	return matchAny(f.Namespaces, id.Namespace) &&
		matchAny(f.Pods, id.Pod) &&
		matchAny(f.Containers, id.Container) &&
		matchAny(f.Networks, id.Network) &&
		(len(f.Callers) == 0 || slices.Contains(f.Callers, id.Caller))
}

// matchAny reports whether s matches one of globs, or there are none. What is
// unknown matches nothing, not even "*".
func matchAny(globs []string, s string) bool {
	if len(globs) == 0 {
		return true
	}
	if s == "" {
		return false
	}
	return slices.ContainsFunc(globs, func(glob string) bool { return Glob(glob, s) })
}

// Match reports whether id meets every condition and Exclude does not hold. It
// leaves out whether the container has asked: for a policy with OptIn the answer
// is who may ask, and without any condition everybody may.
func (s Select) Match(id Identity) bool {
	if s.Exclude != nil && s.Exclude.Match(id) {
		return false
	}
	if s.Fields.empty() && len(s.Annotations) == 0 {
		return s.OptIn
	}
	for key, glob := range s.Annotations {
		value, ok := id.Annotations[key]
		if !ok || !Glob(glob, value) {
			return false
		}
	}
	return s.Fields.empty() || s.Fields.Match(id)
}

// check returns an error if a glob is malformed. The parser lets none through;
// one that is here all the same must not silently match nothing.
func (s Select) check() error {
	fields := []Fields{s.Fields}
	if s.Exclude != nil {
		fields = append(fields, *s.Exclude)
	}
	for _, f := range fields {
		for _, globs := range [][]string{f.Namespaces, f.Pods, f.Containers, f.Networks} {
			for _, glob := range globs {
				if err := CheckGlob(glob); err != nil {
					return badGlob(glob, err)
				}
			}
		}
	}
	for _, glob := range s.Annotations {
		if err := CheckGlob(glob); err != nil {
			return badGlob(glob, err)
		}
	}
	return nil
}

func badGlob(glob string, err error) error {
	return errors.New("its selector has the malformed glob " + strconv.Quote(glob) + ": " + err.Error())
}

// ValidName reports whether s can be the name of a policy:
// [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?, as DNS labels are.
func ValidName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
