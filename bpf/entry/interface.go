// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
)

// Deletion is what CNI DEL names.
type Deletion struct {
	ContainerID string // CNI_CONTAINERID
	Network     string
	Interface   string // CNI_IFNAME
	// Netns is CNI_NETNS. If it leads to another namespace than the one that is
	// recorded, nothing is deleted: somebody else's ADD for the same id was refused,
	// and the runtime now clears up after it. It may be empty, or gone.
	Netns string
}

// DelInterface retires what CNI attached to an interface of a network, and what it
// attached to the namespace or the pod's cgroup on that interface's behalf, unless
// others of the sandbox still need it. It is not an error if nothing is there.
func (s *Session) DelInterface(ctx context.Context, d Deletion) error {
	ctx, cancel := context.WithTimeout(ctx, LoadTimeout)
	defer cancel()
	cookie := s.cookie(d.Netns)
	keys, err := s.sandboxesOf(d.ContainerID, cookie)
	if err != nil {
		return err
	}
	ends := func(rec *pin.Record) bool {
		return rec.Identity.ContainerID == d.ContainerID &&
			rec.Interface.Network == d.Network && rec.Interface.Name == d.Interface &&
			(cookie == 0 || rec.Netns == nil || rec.Netns.Cookie == cookie)
	}
	var errs []error
	for _, key := range keys {
		errs = append(errs, s.delFrom(ctx, key, ends))
	}
	return errors.Join(errs...)
}

func (s *Session) delFrom(ctx context.Context, key pin.Key, ends func(*pin.Record) bool) error {
	lock, err := s.lockExisting(ctx, pin.Sandbox(key))
	if lock == nil || err != nil {
		return err
	}
	defer s.release(lock)
	return s.delInterfaces(ctx, key, reasonDeleted, ends)
}

// sandboxesOf lists where CNI may have put the entries of an id: in its own sandbox,
// or in the one that the namespace had already (LockSandbox). Where the namespace is
// gone, that can only have been one that a hook made; of the others, whose ids are
// not this one, the end of the namespace shows that they are over.
func (s *Session) sandboxesOf(id string, cookie uint64) ([]pin.Key, error) {
	keys := []pin.Key{pin.SandboxKey(id)}
	if cookie != 0 {
		key, known, err := s.Root.SandboxByCookie(cookie)
		if known && key != keys[0] {
			keys = append(keys, key)
		}
		return keys, err
	}
	all, err := s.Root.Sandboxes()
	for _, key := range all {
		if key.OfNetns() {
			keys = append(keys, key)
		}
	}
	return keys, err
}

// cookie returns the cookie of the namespace at path, 0 if there is none.
func (s *Session) cookie(path string) uint64 {
	if path == "" {
		return 0
	}
	ns, err := target.OpenNetns(path)
	if err != nil {
		return 0
	}
	defer func() { s.warn(ns.Close()) }()
	return ns.Cookie
}

// delInterfaces retires the CNI entries of a locked sandbox whose interface is one
// that ends. Those of the namespace and of the pod's cgroup stay as long as another
// interface has entries; then the end of their targets shows that they are over.
func (s *Session) delInterfaces(ctx context.Context, key pin.Key, reason string, ends func(*pin.Record) bool) error {
	places, err := s.Root.Entries(pin.Sandbox(key))
	if err != nil {
		return err
	}
	var errs []error
	var shared []pin.Place
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
		case rec.By != pin.ByCNI || rec.Interface == nil:
		case p.Kind() == pin.NetnsPlace, p.Kind() == pin.PodCgroupPlace:
			if ends(rec) {
				shared = append(shared, p)
			}
		case !ends(rec):
			left++
		default:
			errs = append(errs, s.retire(p, reason))
		}
	}
	if left == 0 {
		for _, p := range shared {
			if p.Kind() == pin.PodCgroupPlace {
				errs = append(errs, s.retire(p, reasonPod))
				continue
			}
			errs = append(errs, s.retire(p, reason))
		}
	}
	return errors.Join(append(errs, s.tidySandbox(ctx, key, cookies))...)
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
	defer s.release(lock)
	return s.delInterfaces(ctx, key, reasonInvalid, func(rec *pin.Record) bool {
		return rec.Interface.Network == network && !valid(rec.Identity.ContainerID, rec.Interface.Name)
	})
}
