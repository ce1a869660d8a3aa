// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs/fault"
)

// LockSandbox finds the sandbox of a network namespace, or names one, and locks
// it. It is found by the namespace's cookie, never by an id that somebody claims: an
// id alone proves nothing. So everybody who comes to a namespace finds the same
// sandbox, whether hook or CNI made it. id is the name for a new one (CNI); without
// it the cookie is.
func (s *Session) LockSandbox(ctx context.Context, ns *target.Netns, id string) (pin.Key, *pin.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, LoadTimeout)
	defer cancel()
	for {
		key, known, err := s.SandboxOf(ns, id)
		if err != nil {
			return "", nil, err
		}
		lock, err := s.Lock(ctx, pin.Sandbox(key))
		if err != nil {
			return "", nil, err
		}
		// While we waited, the sandbox may have ended and another one may have
		// been made for the same namespace.
		if again, ok, err := s.Root.SandboxByCookie(ns.Cookie); known && (err != nil || !ok || again != key) {
			s.release(lock)
			if err != nil {
				return "", nil, err
			}
			continue
		}
		if err = s.Root.IndexNetns(ctx, ns.Cookie, key); err == nil {
			return key, lock, nil
		}
		if err = errors.Join(err, lock.Release()); !errors.Is(err, pin.ErrExist) || ctx.Err() != nil {
			return "", nil, err
		}
		// Somebody else made a sandbox for the namespace meanwhile: take that one.
	}
}

// SandboxOf returns the key of a network namespace's sandbox, and whether there is
// one already; see LockSandbox.
func (s *Session) SandboxOf(ns *target.Netns, id string) (key pin.Key, known bool, err error) {
	key, known, err = s.Root.SandboxByCookie(ns.Cookie)
	switch {
	case err != nil || known:
	case id != "":
		key = pin.SandboxKey(id)
	default:
		key = pin.CookieKey(ns.Cookie)
	}
	return key, known, err
}

// Named reports whether CNI has made one of the places for a sandbox of that id.
func (s *Session) Named(places []pin.Place, id string) bool {
	return slices.ContainsFunc(places, func(p pin.Place) bool {
		rec, err := s.readRecord(p)
		return err == nil && rec.By == pin.ByCNI && rec.Identity.ContainerID == id
	})
}

// tidySandbox takes back the index of a locked sandbox in which nothing is left.
func (s *Session) tidySandbox(ctx context.Context, key pin.Key, cookies map[uint64]bool) error {
	places, err := s.Root.Entries(pin.Sandbox(key))
	if err != nil || len(places) > 0 {
		return err
	}
	members, err := s.Root.Members(key)
	if err != nil || len(members) > 0 {
		return err
	}
	var errs []error
	for cookie := range cookies {
		errs = append(errs, s.Root.UnindexNetns(ctx, cookie, key))
	}
	return errors.Join(errs...)
}

// ClaimSandbox makes sure that nothing in a sandbox belongs to another network
// namespace: what did is retired if that one is gone, and ErrInUse if it is not. It
// returns the entries that stay. The sandbox's lock must be held.
func (s *Session) ClaimSandbox(key pin.Key, sub *Subject) ([]pin.Place, error) {
	places, err := s.Root.Entries(pin.Sandbox(key))
	if err != nil {
		return nil, err
	}
	var kept []pin.Place
	for _, p := range places {
		rec, err := s.readRecord(p)
		if err != nil {
			return nil, err
		}
		if rec.Netns != nil && rec.Netns.Cookie == sub.Netns.Cookie {
			kept = append(kept, p)
			continue
		}
		over, err := s.sandboxEntryOver(p, rec)
		if err == nil && !over {
			over, err = s.deserted(key, rec)
		}
		if err != nil {
			return nil, err
		}
		if !over {
			return nil, fault.New("sandbox "+sub.Identity.ContainerID, fmt.Errorf("another network namespace is recorded for its id: %w", ErrInUse),
				"delete that sandbox first (CNI DEL)")
		}
		if err := s.retire(p, reasonReplaced); err != nil {
			return nil, err
		}
	}
	if err := s.dropMembers(key); err != nil {
		return nil, err
	}
	return kept, s.makeRoom(sub)
}

// deserted reports whether nobody uses the namespace of an entry any more that the kernel
// has yet to destroy, because a link of ours holds it: DEL never came, and the rest of the
// sandbox is over. What is live drains.
func (s *Session) deserted(key pin.Key, rec *pin.Record) (bool, error) {
	if ended, err := netnsEnded(rec); err != nil || !ended {
		return false, err
	}
	n, err := s.runningMembers(key)
	return err == nil && n == 0, err
}

// dropMembers removes the members of a locked sandbox that have ended. Sweeps do so only
// where the sandbox is over as well: they lock no other.
func (s *Session) dropMembers(key pin.Key) error {
	members, err := s.Root.Members(key)
	if err != nil {
		return err
	}
	for _, m := range members {
		if ended, err := s.memberEnded(key, m); err != nil || !ended {
			s.warn(err) // a damaged record keeps nobody else from starting
			continue
		}
		if err := s.Root.RemoveMember(key, m); err != nil {
			return err
		}
	}
	return nil
}

// makeRoom takes down what drains in a namespace that its last container has left
// and another one joins now (a pod's container that is started again): the new
// one's programs would find the old ones beside them, or in their way.
func (s *Session) makeRoom(sub *Subject) error {
	if s.By != pin.ByHook {
		return nil
	}
	if n, err := s.Root.RetiredCount(); err != nil || n == 0 {
		return err
	}
	places, err := s.Root.Retired()
	if err != nil {
		return err
	}
	for _, p := range places {
		r, err := pin.ParseRetired(p.Name())
		if err != nil || r.Reason != reasonLeft || !r.Concerns(pin.Target{Netns: sub.Netns.Cookie}) {
			continue
		}
		e, rec, err := s.open(p)
		if err == nil && rec.Netns != nil && rec.Netns.Cookie == sub.Netns.Cookie {
			err = s.takeDown(e)
		}
		if err != nil && !skippable(err) {
			return err
		}
	}
	return nil
}

// Covered reports whether an entry exists at one of the places with every link
// live. What somebody took off is attached again there: others in the sandbox may
// depend on what is left. What has lost its target is retired, so that it can be
// made anew. The sandbox's lock must be held.
func (s *Session) Covered(ctx context.Context, places ...pin.Place) (bool, error) {
	for _, p := range places {
		e, rec, err := s.open(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		if s.allLive(e, rec) {
			return true, nil
		}
		mended, lost := s.mend(ctx, p)
		if mended {
			return true, nil
		}
		if n, err := s.states(e); err != nil || n.live > 0 {
			return false, errors.Join(lost, err)
		}
		if err := s.retire(p, reasonSevered); err != nil {
			return false, err
		}
	}
	return false, nil
}

// On returns those of the places where CNI, for any network, has recorded a policy
// for an interface.
func On(places []pin.Place, ifname, policy string) []pin.Place {
	return slices.DeleteFunc(slices.Clone(places), func(p pin.Place) bool {
		return p.Kind() != pin.InterfacePlace || p.Interface() != ifname || p.Policy() != policy
	})
}

// sandboxEntryOver reports whether an entry of a sandbox has lost what it was for.
func (s *Session) sandboxEntryOver(p pin.Place, rec *pin.Record) (bool, error) {
	if isNote(p) {
		return netnsEnded(rec)
	}
	e, err := s.Root.Entry(p)
	if err != nil {
		return false, err
	}
	n, err := s.states(e)
	if err != nil {
		return false, err
	}
	if n.live > 0 {
		return false, nil
	}
	if n.unknown == 0 {
		lives, err := s.anyTargetLives(p, rec)
		return err == nil && !lives, err
	}
	// Only netfilter links: they never show that the namespace has no user left.
	owner, _ := p.Owner()
	running, err := s.runningMembers(owner.Key())
	if err != nil || running > 0 {
		return false, err
	}
	if rec.By == pin.ByHook {
		return true, nil
	}
	return netnsEnded(rec)
}

// anyTargetLives tells a link that the kernel severed with its target from one that
// somebody took off: the latter is drift, which a sweep must not hide.
func (s *Session) anyTargetLives(p pin.Place, rec *pin.Record) (bool, error) {
	for _, prog := range rec.Programs {
		if lives, err := s.targetLives(p, rec, prog); err != nil || lives {
			return lives, err
		}
	}
	return false, nil
}
