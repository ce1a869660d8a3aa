// SPDX-License-Identifier: Apache-2.0

package entry

import "github.com/linkpin/linkpin/specs"

// Plans is where plans and objects come from: the applied set.
type Plans interface {
	Generation() string
	Plan(name string) (*specs.Plan, string, error)
	PlanByDigest(digest string) (*specs.Plan, error)
	Object(sha256 string) ([]byte, error)
}

// remembered is what was read of the applied set: a policy with programs for the
// cgroup and for each interface would be read, hashed and parsed once for each.
type remembered struct {
	plans   map[string]digested
	objects map[string][]byte
	stored  map[string]*specs.Plan // by digest
	digests map[string]string      // Standing; "" if the policy is not applied
}

type digested struct {
	plan   *specs.Plan
	digest string
}

// Plan is Plans.Plan, and reads each plan once.
func (s *Session) Plan(name string) (*specs.Plan, string, error) {
	if d, ok := s.read.plans[name]; ok {
		return d.plan, d.digest, nil
	}
	plan, digest, err := s.Plans.Plan(name)
	if err != nil {
		return nil, "", err
	}
	if s.read.plans == nil {
		s.read.plans = map[string]digested{}
	}
	s.read.plans[name] = digested{plan, digest}
	return plan, digest, nil
}

// object is Plans.Object, and reads each object once.
func (s *Session) object(sha256 string) ([]byte, error) {
	if data, ok := s.read.objects[sha256]; ok {
		return data, nil
	}
	data, err := s.Plans.Object(sha256)
	if err != nil {
		return nil, err
	}
	if s.read.objects == nil {
		s.read.objects = map[string][]byte{}
	}
	s.read.objects[sha256] = data
	return data, nil
}

// planByDigest is Plans.PlanByDigest, and reads each plan once.
func (s *Session) planByDigest(digest string) (*specs.Plan, error) {
	if plan, ok := s.read.stored[digest]; ok {
		return plan, nil
	}
	plan, err := s.Plans.PlanByDigest(digest)
	if err != nil {
		return nil, err
	}
	if s.read.stored == nil {
		s.read.stored = map[string]*specs.Plan{}
	}
	s.read.stored[digest] = plan
	return plan, nil
}
