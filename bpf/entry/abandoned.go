// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"

	"github.com/linkpin/linkpin/bpf/attach"
)

// dropAbandoned takes down what killed processes have left in staging, before anything
// new is attached. What is pinned there is attached still: a container that is started
// again would find its own XDP or netfilter program in the way of the new one, and
// would run the others twice. What cannot be removed is reported to Warn: if it is in
// the way, attaching says so.
func (s *Session) dropAbandoned(ctx context.Context) {
	names, err := s.Root.StagingNames()
	s.warn(err)
	for _, name := range names {
		paths, err := s.Root.AbandonedLinks(name)
		if err != nil {
			if !skippable(err) {
				s.warn(err)
			}
			continue
		}
		// Held across the removal: when they are closed, the links are off.
		var held []*attach.Link
		for _, path := range paths {
			if l, err := attach.OpenPinned(path); err == nil {
				held = append(held, l)
			}
		}
		if err := s.sweepStaging(ctx, name); err != nil && !skippable(err) {
			s.warn(err)
		}
		for _, l := range held {
			s.warn(l.Close())
		}
	}
}
