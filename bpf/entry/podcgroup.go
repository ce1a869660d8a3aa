// SPDX-License-Identifier: Apache-2.0

package entry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/linkpin/linkpin/bpf/pin"
	"github.com/linkpin/linkpin/bpf/target"
	"github.com/linkpin/linkpin/specs"
	"github.com/linkpin/linkpin/specs/fault"
)

// ErrOutside means that a container is not in the cgroup that its pod's programs are
// attached to.
var ErrOutside = errors.New("is not in the cgroup of its pod")

// The remedies for what a user sees of a policy with `cgroup: pod`.
const (
	podRemedy    = "make the pod again if it is older than the policy; it takes linkpin-cni with the capability cgroupPath (`linkpin install cni`)"
	callerRemedy = "name crio and containerd in the policy's select.callers"
)

// NeedsPods refuses a policy for the pod's cgroup to a caller that has no pods.
func NeedsPods(caller specs.Caller, policy string) error {
	if caller.HasPods() {
		return nil
	}
	return fault.New("policy "+policy, fmt.Errorf("it is for the pod's cgroup (cgroup: pod), and the caller %s has no pods", caller), callerRemedy)
}

// ClaimPodCgroup makes sure that no entry of another sandbox is on the cgroup of a
// pod, above it or below it: its programs would decide about another pod's
// containers. What a sandbox has left there whose namespace is gone is retired;
// otherwise the error wraps ErrInUse. The sandbox's lock must be held. Who publishes
// asks again afterwards: two sandboxes may be made at the same time.
func (s *Session) ClaimPodCgroup(sandbox pin.Key, cg *target.Cgroup) error {
	keys, err := s.Root.Sandboxes()
	if err != nil {
		return err
	}
	for _, key := range keys {
		if key == sandbox {
			continue
		}
		places, err := s.Root.PodCgroups(key)
		if err != nil {
			return err
		}
		for _, p := range places {
			if err := s.leavesRoom(key, p, cg); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// leavesRoom returns ErrInUse if an entry of another sandbox is in the way.
func (s *Session) leavesRoom(key pin.Key, p pin.Place, cg *target.Cgroup) error {
	over, err := s.inTheWay(p, cg)
	if err == nil || !over {
		return err
	}
	lock, busy := s.Root.TryLock(pin.Sandbox(key))
	if errors.Is(busy, pin.ErrBusy) {
		return err
	}
	if busy != nil {
		return busy
	}
	defer s.release(lock)
	// The sandbox may have been made again until it was locked.
	if over, err = s.inTheWay(p, cg); err == nil || !over {
		return err
	}
	return s.retire(p, reasonPod)
}

// inTheWay returns ErrInUse if an entry is on the cgroup of a pod, above it or below
// it, and whether its own namespace is gone. A record that can't be read refuses
// nobody but who is on the cgroup of its links.
func (s *Session) inTheWay(p pin.Place, cg *target.Cgroup) (over bool, err error) {
	rec, err := s.readRecord(p)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		e, other := s.Root.Entry(p)
		if other == nil && s.linksOn(e, cg) {
			return false, err
		}
		s.warn(err)
		return false, nil
	}
	if rec.Cgroup == nil || rec.Cgroup.ID != cg.ID && !above(rec.Cgroup.Path, cg.Path) && !above(cg.Path, rec.Cgroup.Path) {
		return false, nil
	}
	inUse := fault.New("cgroup "+cg.Path+" of the pod", fmt.Errorf("policy %s of sandbox %s is attached to %s: it %w",
		rec.Policy, rec.Identity.ContainerID, rec.Cgroup.Path, ErrInUse), "give each pod a cgroup of its own (cgroup_parent of its sandbox)")
	ended, err := netnsEnded(rec)
	return ended && err == nil, errors.Join(err, inUse)
}

// above reports whether directory a is above directory b, as far as their names tell.
func above(a, b string) bool { return strings.HasPrefix(b, filepath.Clean(a)+"/") }

// DropDrained takes down what drains on the cgroup of a pod: a pod's sandbox may be
// made again in the same cgroup, and what was attached for the one before would
// decide about its containers, beside the programs of now.
func (s *Session) DropDrained(cg *target.Cgroup) error { return s.dropDrained(cg, reasonPod) }

// dropDrained takes down what was retired for one of the reasons and drains on a
// cgroup that is used again. The names of retired entries tell which cgroup it was;
// where they don't, the links do. What can't be read is left to gc: it must not keep
// others from starting.
func (s *Session) dropDrained(cg *target.Cgroup, reasons ...string) error {
	if n, err := s.Root.RetiredCount(); err != nil || n == 0 {
		return err
	}
	places, err := s.Root.Retired()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range places {
		r, err := pin.ParseRetired(p.Name())
		if err != nil || !slices.Contains(reasons, r.Reason) || !r.Concerns(pin.Target{Cgroup: cg.ID}) {
			continue
		}
		e, err := s.Root.Entry(p)
		if err != nil || r.Cgroup == 0 && !s.linksOn(e, cg) {
			s.warnUnless(err, fs.ErrNotExist)
			continue
		}
		if err := s.takeDown(e); err != nil && !skippable(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// linksOn reports whether a link of an entry is on a cgroup.
func (s *Session) linksOn(e *pin.Entry, cg *target.Cgroup) bool {
	return slices.ContainsFunc(e.Links(), func(name string) bool {
		info, err := linkInfo(e.LinkPath(name))
		s.warnUnless(err, fs.ErrNotExist)
		return err == nil && info.CgroupID == cg.ID
	})
}

// warnUnless reports an error, unless it is one that is to be expected.
func (s *Session) warnUnless(err, expected error) {
	if err != nil && !errors.Is(err, expected) {
		s.warn(err)
	}
}

// Withdraw removes entries that this invocation has published. The locks of their
// owners must be held; the links are off when it returns.
func (s *Session) Withdraw(places []pin.Place) error {
	var errs []error
	for _, p := range slices.Backward(places) {
		e, err := s.Root.Entry(p)
		if err == nil {
			err = s.takeDown(e)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// PodCovers makes sure that a policy for the pod's cgroup is in force for a
// container: its pod's entry has every link live, what was taken off is attached
// again, and the container's own cgroup is that of the pod or below it (ErrOutside).
// The sandbox's lock must be held.
func (s *Session) PodCovers(ctx context.Context, sandbox pin.Key, policy string, sub *Subject) error {
	p := pin.PodCgroupEntry(sandbox, policy)
	object := "policy " + policy
	covered, err := s.Covered(ctx, p)
	if err == nil && !covered {
		err = fault.New(object, errors.New("its programs are not attached to the cgroup of the pod (cgroup: pod)"), podRemedy)
	}
	if err != nil {
		return err
	}
	rec, err := s.readRecord(p)
	if err != nil {
		return err
	}
	if rec.Cgroup == nil || rec.Netns == nil || sub.Netns == nil || rec.Netns.Cookie != sub.Netns.Cookie {
		return fault.New(object, fmt.Errorf("the entry of the pod's cgroup, recorded for another network namespace, %w", target.ErrMismatch), "make the pod again")
	}
	if _, digest, err := s.Plan(policy); err != nil || digest != rec.Digest {
		s.warn(errors.Join(err, fmt.Errorf("%s: the cgroup of the pod has an older version of it, until the pod is made again", object)))
	}
	cg, err := target.OpenCgroup(rec.Cgroup.Path, rec.Cgroup.ID)
	if err != nil {
		return fault.New(object, err, "")
	}
	defer func() { s.warn(cg.Close()) }()
	inside, err := cg.Contains(sub.Cgroup)
	if err == nil && !inside {
		err = fault.New(object, fmt.Errorf("cgroup %s of the container %w: %s", sub.Cgroup.Path, ErrOutside, cg.Path),
			"the runtime must make containers below the pod's cgroup (its cgroup_parent)")
	}
	return err
}
