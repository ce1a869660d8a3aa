// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"errors"
	"fmt"
	"slices"

	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/applied"
	"github.com/linkpin/linkpin/specs/fault"
)

// Selection finds the policies that a container or sandbox gets. The zero value of
// Applied and Exempt means the real places.
type Selection struct {
	Applied applied.Options
	Exempt  string // default applied.DefaultExempt
	Object  string // for messages: "container web"
	// Warn takes what went wrong without refusing anybody; nil drops it.
	Warn func(error)
}

// Choose opens the applied set and returns it with the policies that id gets, by
// name. The set is nil if there are none. Without an intact set everybody is
// refused but those whom the node's owner has exempted. The caller must Close the
// set.
func (s Selection) Choose(id specs.Identity) (*applied.Set, []applied.Summary, error) {
	set, err := applied.Open(s.Applied)
	if err != nil {
		return nil, nil, s.withoutSet(id, err)
	}
	all := set.Policies()
	picked, err := specs.Choose(id, applied.Candidates(all))
	if err != nil {
		err = fault.New(s.Object, err, "")
	}
	if err != nil || len(picked) == 0 {
		return nil, nil, errors.Join(err, set.Close())
	}
	chosen := slices.DeleteFunc(slices.Clone(all), func(p applied.Summary) bool {
		return !slices.ContainsFunc(picked, func(c specs.Candidate) bool { return c.Name == p.Name })
	})
	return set, chosen, nil
}

func (s Selection) withoutSet(id specs.Identity, cause error) error {
	path := s.Exempt
	if path == "" {
		path = applied.DefaultExempt
	}
	exempt, err := applied.ReadExempt(path)
	s.warn(err)
	if exempt.Match(id) {
		s.warn(fmt.Errorf("%s goes without policies, as %s allows: %w", s.Object, path, cause))
		return nil
	}
	return fault.New(s.Object, cause, "")
}

func (s Selection) warn(err error) {
	if s.Warn != nil && err != nil {
		s.Warn(err)
	}
}
