// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"errors"
	"io/fs"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
)

// isNote reports whether an entry says only that a policy looks at the annotations of
// a pod and selects it; see Want.Kind.
func isNote(p pin.Place, rec *pin.Record) bool {
	return p.Kind() == pin.InterfacePlace && len(rec.Programs) == 0
}

// Noted reports whether there is a note at a place.
func (s *Session) Noted(p pin.Place) (bool, error) {
	rec, err := s.readRecord(p)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && isNote(p, rec), err
}

// PodAnnotations returns the annotations of a pod that linkpin-cni has recorded for
// its network namespace: those that the policies of then looked at. They are the
// runtime's own words, which is more than an id is that a container's state claims.
// There are none if CNI had nothing to record. It takes no locks: what CNI records is
// there before the first container of the pod.
func (s *Session) PodAnnotations(ns *target.Netns) (map[string]string, error) {
	key, known, err := s.Root.SandboxByCookie(ns.Cookie)
	if err != nil || !known {
		return nil, err
	}
	places, err := s.Root.Entries(pin.Sandbox(key))
	if err != nil {
		return nil, err
	}
	var out map[string]string
	for _, p := range places {
		rec, err := s.readRecord(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if rec.By == pin.ByCNI && rec.Netns != nil && rec.Netns.Cookie == ns.Cookie {
			out = specs.WithPod(out, rec.Identity.Annotations)
		}
	}
	return out, nil
}
