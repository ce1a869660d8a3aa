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
	// Pod returns the annotations of the pod, where those of the identity are a
	// container's. It is called only if a policy looks at annotations; nil: there is
	// no pod.
	Pod func() (map[string]string, error)
	// Warn takes what went wrong without refusing anybody; nil drops it.
	Warn func(error)
}

// Choose opens the applied set and returns it with the policies that id gets, by
// name. The set is nil if there are none. Without an intact set everybody is
// refused but those whom the node's owner has exempted. The caller must Close the
// set.
func (s Selection) Choose(id specs.Identity) (*applied.Set, []applied.Summary, error) {
	set, err := s.open(id)
	if set == nil {
		return nil, nil, err
	}
	chosen, err := s.choose(set, id)
	if err != nil || len(chosen) == 0 {
		return nil, nil, errors.Join(err, set.Close())
	}
	return set, chosen, nil
}

// ChooseForPod is Choose for the sandbox of a pod. keys are the annotations that the
// policies look at, selecting the pod or not: if the pod has any of these, the hooks
// of its containers must know (NotePod). The set is nil if there are neither.
func (s Selection) ChooseForPod(id specs.Identity) (set *applied.Set, chosen []applied.Summary, keys []string, err error) {
	set, err = s.open(id)
	if set == nil {
		return nil, nil, nil, err
	}
	if chosen, err = s.choose(set, id); err == nil {
		keys = specs.Keys(applied.Candidates(set.Policies()))
	}
	if err != nil || len(chosen)+len(keys) == 0 {
		return nil, nil, nil, errors.Join(err, set.Close())
	}
	return set, chosen, keys, nil
}

// open opens the applied set; nil without an error means that id goes without.
func (s Selection) open(id specs.Identity) (*applied.Set, error) {
	set, err := applied.Open(s.Applied)
	if err != nil {
		return nil, s.withoutSet(id, err)
	}
	return set, nil
}

func (s Selection) choose(set *applied.Set, id specs.Identity) ([]applied.Summary, error) {
	candidates := applied.Candidates(set.Policies())
	if s.Pod != nil && len(specs.Keys(candidates)) > 0 {
		pod, err := s.Pod()
		if err != nil {
			return nil, fault.New(s.Object, fmt.Errorf("what its pod asks for: %w", err), "")
		}
		id.Annotations = specs.WithPod(id.Annotations, pod)
	}
	picked, err := specs.Choose(id, candidates)
	if err != nil {
		return nil, fault.New(s.Object, err, "")
	}
	return summaries(set, picked), nil
}

// summaries returns what the set says of some of its policies.
func summaries(set *applied.Set, of []specs.Candidate) []applied.Summary {
	return slices.DeleteFunc(slices.Clone(set.Policies()), func(p applied.Summary) bool {
		return !slices.ContainsFunc(of, func(c specs.Candidate) bool { return c.Name == p.Name })
	})
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
