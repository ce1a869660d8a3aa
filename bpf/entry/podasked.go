// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// Note is what stands in place of a policy's name in an entry that only records the
// annotations of a pod. No policy has such a name.
const Note = "_pod"

// MaxNoted bounds the value of an annotation that is recorded, in bytes: that of
// specs.OptInAnnotation, too.
const MaxNoted = specs.MaxOptIn

// NotePlace is where the annotations of a pod are recorded that an interface was made
// with.
func NotePlace(sandbox pin.Key, network, ifname string) pin.Place {
	return pin.InterfaceEntry(sandbox, network, ifname, Note)
}

// isNote reports whether an entry records only the annotations of a pod.
func isNote(p pin.Place) bool { return p.Kind() == pin.InterfacePlace && p.Policy() == Note }

// Noted returns those of a pod's annotations that policies look at: what NotePod
// records.
func Noted(annotations map[string]string, keys []string) map[string]string {
	return keep(annotations, keys)
}

// NotePod records annotations of a pod (Noted) for the hooks of its containers. It is
// done before anything is attached to the interface, and stays until the interface is
// deleted, whatever becomes of the device. made is false if there was a note before:
// then it is up to date now. The sandbox's lock must be held.
func (s *Session) NotePod(sub *Subject, iface *target.Interface, annotations map[string]string) (made bool, err error) {
	for key, value := range annotations {
		if len(value) > MaxNoted {
			return false, fault.Newf("annotation "+key, fmt.Sprintf("is longer than %d bytes", MaxNoted), "policies look at it: shorten it")
		}
	}
	place := NotePlace(sub.Sandbox, sub.Identity.Network, iface.Name)
	rec, err := s.readRecord(place)
	made = errors.Is(err, fs.ErrNotExist)
	switch {
	case made:
	case err != nil:
		return false, err
	case maps.Equal(rec.Identity.Annotations, annotations) && rec.Netns != nil && rec.Netns.Cookie == sub.Netns.Cookie:
		return false, nil
	default:
		if err := s.Withdraw([]pin.Place{place}); err != nil {
			return false, err
		}
	}
	noted := *sub
	noted.Identity.Annotations, noted.Keep = annotations, slices.Collect(maps.Keys(annotations))
	return made, s.publish(&noted, &built{
		want: Want{Policy: Note, Place: place, Interface: iface},
		plan: &specs.Plan{OnError: specs.Allow, Teardown: specs.Detach, Scope: specs.ScopeContainer},
	})
}

// PodAnnotations returns the annotations of a pod that linkpin-cni has recorded for
// its network namespace. They are the runtime's own words, which is more than an id is
// that a container's state claims. There are none if CNI had nothing to record. It
// takes no locks: what CNI records is there before the first container of the pod.
func (s *Session) PodAnnotations(ctx context.Context, ns *target.Netns) (map[string]string, error) {
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
		if !isNote(p) {
			continue
		}
		if err := expired(ctx); err != nil {
			return nil, err
		}
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
