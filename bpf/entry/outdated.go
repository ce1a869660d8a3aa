// SPDX-License-Identifier: Apache-2.0

package entry

import "github.com/linkpin/linkpin/bpf/pin"

// Standing says how the version of a policy that an entry was made of relates to the
// applied set.
type Standing string

// The standings.
const (
	StandingCurrent   Standing = "current"
	StandingOutdated  Standing = "outdated"  // another version is applied: `linkpin update`
	StandingWithdrawn Standing = "withdrawn" // the policy is not applied any more
	StandingUnknown   Standing = "unknown"   // there is no applied set to compare with
)

// Standing compares an entry's record with the applied set, Session.Plans, which may
// be nil. Notes of what a pod asks for have no version and are always current.
func (s *Session) Standing(rec *pin.Record) Standing {
	switch {
	case rec.Policy == Note:
		return StandingCurrent
	case s.Plans == nil:
		return StandingUnknown
	}
	digest, applied := s.digest(rec.Policy)
	switch {
	case !applied:
		return StandingWithdrawn
	case digest != rec.Digest:
		return StandingOutdated
	}
	return StandingCurrent
}

// Outdated reports whether another version of an entry's policy is applied than the
// one that the entry was made of, so that `linkpin update` would change it.
func (s *Session) Outdated(rec *pin.Record) bool { return s.Standing(rec) == StandingOutdated }

// digest returns the digest of an applied policy; false if there is none of that name.
func (s *Session) digest(policy string) (string, bool) {
	if d, ok := s.read.digests[policy]; ok {
		return d, d != ""
	}
	_, digest, err := s.Plan(policy)
	if err != nil {
		digest = ""
	}
	if s.read.digests == nil {
		s.read.digests = map[string]string{}
	}
	s.read.digests[policy] = digest
	return digest, digest != ""
}
