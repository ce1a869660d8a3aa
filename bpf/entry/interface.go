// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/specs"
)

// DelInterface retires what CNI attached to an interface of a network, and, with
// the sandbox's last interface, to its namespace. An interface that lives on
// after its namespace is detached at once. It is not an error if nothing is there.
func (s *Session) DelInterface(ctx context.Context, id, network, ifname string) error {
	key := pin.SandboxKey(id)
	lock, err := s.lockExisting(ctx, pin.Sandbox(key))
	if lock == nil || err != nil {
		return err
	}
	defer lock.Release()
	return s.delInterfaces(ctx, key, reasonDeleted, func(rec *pin.Record) bool {
		return rec.Interface.Network == network && rec.Interface.Name == ifname
	})
}

// delInterfaces retires the CNI entries of a locked sandbox whose interface is one
// that ends; when none is left, those of the namespace as well.
func (s *Session) delInterfaces(ctx context.Context, key pin.Key, reason string, ends func(*pin.Record) bool) error {
	places, err := s.Root.Entries(pin.Sandbox(key))
	if err != nil {
		return err
	}
	var errs []error
	var netns []pin.Place
	left := 0
	cookies := map[uint64]bool{}
	for _, p := range places {
		rec, err := s.readRecord(p)
		if err == nil && rec.Netns != nil {
			cookies[rec.Netns.Cookie] = true
		}
		switch {
		case err != nil:
			errs = append(errs, err)
		case rec.By != pin.ByCNI:
		case rec.Interface == nil:
			netns = append(netns, p)
		case !ends(rec):
			left++
		default:
			errs = append(errs, s.retireInterface(p, rec, reason))
		}
	}
	if left == 0 {
		for _, p := range netns {
			errs = append(errs, s.retire(p, reason))
		}
	}
	return errors.Join(append(errs, s.tidySandbox(ctx, key, cookies))...)
}

func (s *Session) retireInterface(p pin.Place, rec *pin.Record, reason string) error {
	if rec.Interface.DiesWithNetns && rec.Teardown != specs.Detach {
		return s.retire(p, reason)
	}
	return s.retireDetached(p, reason)
}

// GCNetwork retires what CNI attached for a network to interfaces that are not
// valid any more (CNI spec 1.1, "GC: Clean up any stale resources"). valid is
// asked with the container id and the interface's name. Busy sandboxes are
// skipped: somebody is at work on them.
func (s *Session) GCNetwork(ctx context.Context, network string, valid func(id, ifname string) bool) error {
	keys, err := s.Root.Sandboxes()
	if err != nil {
		return err
	}
	var errs []error
	for _, key := range keys {
		if err := s.gcSandbox(ctx, key, network, valid); err != nil && !skippable(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Session) gcSandbox(ctx context.Context, key pin.Key, network string, valid func(id, ifname string) bool) error {
	lock, err := s.Root.TryLock(pin.Sandbox(key))
	if err != nil {
		return err
	}
	defer lock.Release()
	return s.delInterfaces(ctx, key, reasonInvalid, func(rec *pin.Record) bool {
		return rec.Interface.Network == network && !valid(rec.Identity.ContainerID, rec.Interface.Name)
	})
}
