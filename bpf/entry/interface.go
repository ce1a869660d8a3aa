// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"io/fs"
	"slices"

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
// others of the sandbox still need it. It is not an error if nothing is there. It
// waits only for sandboxes that are the id's, LoadTimeout for each.
func (s *Session) DelInterface(ctx context.Context, d Deletion) error {
	cookie := s.cookie(d.Netns)
	ofID := func(rec *pin.Record) bool {
		return rec.Identity.ContainerID == d.ContainerID && (cookie == 0 || rec.Netns == nil || rec.Netns.Cookie == cookie)
	}
	end := ending{
		reason: reasonDeleted,
		ofID:   ofID,
		ends: func(rec *pin.Record) bool {
			return ofID(rec) && rec.Interface.Network == d.Network && rec.Interface.Name == d.Interface
		},
	}
	keys, err := s.sandboxesOf(d.ContainerID, cookie, ofID)
	errs := []error{err}
	for _, key := range keys {
		errs = append(errs, s.delFrom(ctx, key, end))
	}
	return errors.Join(errs...)
}

func (s *Session) delFrom(ctx context.Context, key pin.Key, end ending) error {
	ctx, cancel := context.WithTimeout(ctx, LoadTimeout)
	defer cancel()
	lock, err := s.lockExisting(ctx, pin.Sandbox(key))
	if lock == nil || err != nil {
		return err
	}
	defer s.release(lock)
	return s.delInterfaces(ctx, key, end)
}

// sandboxesOf lists where CNI may have put the entries of an id: in its own sandbox,
// or in the one that the namespace had already (LockSandbox). Where the namespace is
// gone, that can only have been one that a hook made, and has entries of the id; of
// the others, whose ids are not this one, the end of the namespace shows that they
// are over. With an error it returns what it has found.
func (s *Session) sandboxesOf(id string, cookie uint64, ofID func(*pin.Record) bool) ([]pin.Key, error) {
	keys := []pin.Key{pin.SandboxKey(id)}
	if cookie != 0 {
		key, known, err := s.Root.SandboxByCookie(cookie)
		if known && key != keys[0] {
			keys = append(keys, key)
		}
		return keys, err
	}
	all, err := s.Root.Sandboxes()
	errs := []error{err}
	for _, key := range all {
		if !key.OfNetns() {
			continue
		}
		found, err := s.hasInterface(key, ofID)
		if found {
			keys = append(keys, key)
		}
		errs = append(errs, err)
	}
	return keys, errors.Join(errs...)
}

// hasInterface reports whether CNI has made an entry of a sandbox that is of an id.
// It takes no lock, which may be held for seconds on behalf of somebody else: who
// acts on the answer must ask again under the lock.
func (s *Session) hasInterface(key pin.Key, ofID func(*pin.Record) bool) (bool, error) {
	places, err := s.Root.Entries(pin.Sandbox(key))
	if err != nil {
		return false, err
	}
	var errs []error
	for _, p := range places {
		rec, err := s.readRecord(p)
		switch {
		case errors.Is(err, fs.ErrNotExist): // retired meanwhile
		case err != nil:
			errs = append(errs, err)
		case rec.By == pin.ByCNI && rec.Interface != nil && ofID(rec):
			return true, nil
		}
	}
	return false, errors.Join(errs...)
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

// ending says what delInterfaces takes. The records are of CNI, with an interface.
type ending struct {
	reason string
	ends   func(*pin.Record) bool // whether it is of an interface that ends
	ofID   func(*pin.Record) bool // whether it is of the id of which an interface ends; nil: not known
}

// delInterfaces retires the CNI entries of a locked sandbox whose interface is one
// that ends. Those of the namespace and of the pod's cgroup stay as long as another
// interface has entries; the last one takes them along, also those that were made
// for an interface of the id that went before.
func (s *Session) delInterfaces(ctx context.Context, key pin.Key, end ending) error {
	places, err := s.Root.Entries(pin.Sandbox(key))
	if err != nil {
		return err
	}
	var errs []error
	var shared []pin.Place
	others := map[pin.Place]*pin.Record{} // shared entries of the id's other interfaces
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
			if end.ends(rec) {
				shared = append(shared, p)
			} else if end.ofID != nil && end.ofID(rec) {
				others[p] = rec
			}
		case !end.ends(rec):
			left++
		default:
			errs = append(errs, s.retire(p, end.reason))
		}
	}
	if left == 0 {
		for p, rec := range others {
			gone, err := interfaceGone(rec)
			if gone {
				shared = append(shared, p)
			}
			errs = append(errs, err)
		}
		errs = append(errs, s.retireShared(shared, end.reason))
	}
	return errors.Join(append(errs, s.tidySandbox(ctx, key, cookies))...)
}

func (s *Session) retireShared(places []pin.Place, reason string) error {
	var errs []error
	for _, p := range places {
		if p.Kind() == pin.PodCgroupPlace {
			errs = append(errs, s.retire(p, reasonPod))
			continue
		}
		errs = append(errs, s.retire(p, reason))
	}
	return errors.Join(errs...)
}

// interfaceGone reports whether the interface of a record is not in its namespace
// any more. One that has no entries of its own leaves no other trace of its DEL; as
// long as it is there, under whatever name, it may need what is shared.
func interfaceGone(rec *pin.Record) (bool, error) {
	if ended, err := netnsEnded(rec); ended || err != nil {
		return ended, err
	}
	ns, err := target.OpenNetns(rec.Netns.Path)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	is, err := ns.Interfaces()
	return err == nil && !slices.ContainsFunc(is, func(i target.Interface) bool {
		return i.Name == rec.Interface.Name || i.Index == rec.Interface.Index
	}), err
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
	return s.delInterfaces(ctx, key, ending{reason: reasonInvalid, ends: func(rec *pin.Record) bool {
		return rec.Interface.Network == network && !valid(rec.Identity.ContainerID, rec.Interface.Name)
	}})
}
